import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import type { ObjectMap, ObjectSpec } from '../../../../src/ebpf/object/spec.ts'
import { eventType, showRecord } from '../../../../src/ebpf/watch/event-type.ts'

/** An object with these structs, of one u32 each, kept by a variable, and these ring buffers. */
function object(structs: readonly string[], rings: readonly string[]): ObjectSpec {
  const btf = new BtfBuilder()
  const u32 = btf.int('unsigned int', 4)
  const vars = structs.map((name, i) => {
    const struct = btf.struct(name, 4, [{ name: 'n', type: u32, bitOff: 0 }])
    return { type: btf.var(`unused_${name}`, btf.ptr(btf.const(struct))), off: i * 8, size: 8 }
  })
  const valueTypeId = vars.length === 0 ? 0 : btf.datasec('.bss', vars.length * 8, vars)
  const maps = [
    { name: '.bss', kind: 'bss', type: 'array', valueTypeId },
    ...rings.map(name => ({ name, kind: 'declared', type: 'ringbuf', valueTypeId: 0 })),
  ] as unknown as ObjectMap[]
  return { maps, btf: { bytes: new Uint8Array(), types: Btf.parse(btf.build()) } } as unknown as ObjectSpec
}

function nameOf(spec: ObjectSpec, map: string): string | undefined {
  const found = eventType(spec, map)
  return found?.types.type(found.id).name
}

test('one struct that is kept is that of the one ring buffer', () => {
  assert.equal(nameOf(object(['event'], ['rb']), 'rb'), 'event')
})

test('of several structs and rings, names decide; no guess is made', () => {
  const spec = object(['open', 'exit_t'], ['opens', 'exits', 'rb'])
  assert.equal(nameOf(spec, 'opens'), 'open')
  assert.equal(nameOf(spec, 'exits'), 'exit_t')
  assert.equal(nameOf(spec, 'rb'), undefined)
  assert.equal(nameOf(object(['event'], ['a', 'b']), 'a'), undefined)
  assert.equal(nameOf(object([], ['events']), 'events'), undefined)
})

test('a record of another length is shown as bytes', () => {
  const type = eventType(object(['event'], ['events']), 'events')
  assert.deepEqual(showRecord(type, Uint8Array.of(5, 0, 0, 0)), { n: 5 })
  assert.equal(showRecord(type, Uint8Array.of(5, 0, 0, 0, 1)), '0500000001')
})

test('a record of a perf event array has padding, which is not shown', () => {
  const spec = object(['event', 'pair'], ['events'])
  const type = eventType(spec, 'events')
  // With the u32 of its length 8 bytes, which need none.
  assert.deepEqual(showRecord(type, Uint8Array.of(5, 0, 0, 0), true), { n: 5 })
  assert.equal(showRecord(type, new Uint8Array(12), true), '00'.repeat(12))
  const types = new BtfBuilder()
  const u64 = types.int('unsigned long', 8)
  const id = types.struct('wide', 8, [{ name: 'n', type: u64, bitOff: 0 }])
  const wide = { types: Btf.parse(types.build()), id }
  const padded = Uint8Array.of(5, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9)
  assert.deepEqual(showRecord(wide, padded, true), { n: 5 })
  assert.equal(showRecord(wide, padded), Buffer.from(padded).toString('hex'))
})
