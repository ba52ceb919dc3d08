// A test of a BPF program, as one would write it for one's own: no device, no traffic.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ethernet, ipv4, ipv6, loadObject, packet, parseObject, runProgram, tcp, udp } from 'bpftoken/ebpf'

const spec = parseObject(readFileSync(join(__dirname, 'filter.bpf.o')), { name: 'filter' })

test('the filter drops its port over TCP and UDP, and nothing else', async () => {
  using object = await loadObject(spec, { constants: { port: 53, mode: 'MODE_DROP' } })
  for (const [bytes, wanted] of [
    [packet(ethernet(), ipv4(), udp({ destinationPort: 53 })), 'drop'],
    [packet(ethernet(), ipv4(), tcp({ destinationPort: 53 })), 'drop'],
    [packet(ethernet(), ipv4(), udp({ destinationPort: 54 })), 'pass'],
    [packet(ethernet(), ipv6(), udp({ destinationPort: 53 })), 'pass'],
    [new Uint8Array(14), 'pass'],
  ] as const)
    assert.equal((await runProgram(object.program('filter'), { packet: bytes })).verdict, wanted)
})
