import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bpf_attr_map_create, bpf_prog_info, bpf_token_info } from '../../../src/uapi/bpf.ts'

test('struct.encode() puts every field at its offset, native endian, zero elsewhere', () => {
  const name = Buffer.from('counter')
  const bytes = bpf_attr_map_create.encode({
    map_type: 2,
    max_entries: 0x01020304,
    map_extra: 1n << 63n,
    map_name: name,
  })
  const view = new DataView(bytes.buffer)
  assert.equal(bytes.length, bpf_attr_map_create.size)
  assert.equal(view.getUint32(0, true), 2)
  assert.equal(view.getUint32(12, true), 0x01020304)
  assert.equal(view.getBigUint64(64, true), 1n << 63n)
  assert.equal(Buffer.from(bytes).toString('latin1', 28, 44), 'counter'.padEnd(16, '\0'))
  assert.equal(bytes.filter(byte => byte !== 0).length, 1 + 4 + 1 + name.length)
})

test('struct.decode() gives back what was encoded', () => {
  const values = { allowed_cmds: 1n, allowed_maps: 2n, allowed_progs: 3n, allowed_attachs: (1n << 64n) - 1n }
  assert.deepEqual(bpf_token_info.decode(bpf_token_info.encode(values)), values)
})

test('struct.decode() leaves out the fields of a newer kernel when data is shorter', () => {
  const decoded = bpf_prog_info.decode(new Uint8Array(20))
  assert.equal(decoded.jited_prog_len, 0)
  assert.equal(decoded.xlated_prog_len, undefined)
})
