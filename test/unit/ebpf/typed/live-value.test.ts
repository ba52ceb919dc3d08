import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { codecOf } from '../../../../src/ebpf/btf/typed-value.ts'
import { liveValue } from '../../../../src/ebpf/typed/live-value.ts'

interface Sample {
  port: number
  low: number
  high: number
  name: string
  mac: Uint8Array
  peers: { id: number }[]
  __proto__: number
}

/** A struct in bytes that are ours. */
function sample(writable = true): { value: Sample; bytes: Uint8Array } {
  const b = new BtfBuilder()
  const [u8, char, u16, u32] = [
    ...[b.int('unsigned char', 1), b.int('char', 1), b.int('short', 2), b.int('int', 4)],
  ] as [number, number, number, number]
  const peer = b.struct('peer', 4, [{ name: 'id', type: u32, bitOff: 0 }])
  const id = b.struct('sample', 40, [
    { name: 'port', type: u16, bitOff: 0 },
    { name: 'low', type: u32, bitOff: 32, bitSize: 3 },
    { name: 'high', type: u32, bitOff: 35, bitSize: 29 },
    { name: 'name', type: b.array(char, u32, 8), bitOff: 64 },
    { name: 'mac', type: b.array(u8, u32, 6), bitOff: 128 },
    { name: 'peers', type: b.array(peer, u32, 2), bitOff: 192 },
    { name: '__proto__', type: u32, bitOff: 256 },
  ])
  const bytes = new Uint8Array(40)
  const memory = { name: 'sample', writable, bytes: () => bytes }
  return { value: liveValue(memory, codecOf(Btf.parse(b.build()), id, 'text'), 0) as Sample, bytes }
}

test('liveValue() writes through to the bytes of what is set, and to no others', () => {
  const { value, bytes } = sample()
  bytes.fill(0xff)
  value.port = 0x1234
  value.low = 0
  assert.deepEqual([...bytes.subarray(0, 8)], [0x34, 0x12, 0xff, 0xff, 0xf8, 0xff, 0xff, 0xff])
  value.name = 'abc'
  assert.equal(Buffer.from(bytes.subarray(8, 16)).toString(), 'abc\0\0\0\0\0')
  value.mac[1] = 7
  assert.equal(bytes[17], 7)
  value.peers[1]!.id = 5
  value.peers[0] = { id: 6 }
  assert.deepEqual([bytes[24], bytes[28]], [6, 5])
  // biome-ignore lint/suspicious/noProto: a member that happens to be called so
  value['__proto__'] = 9
  assert.equal(bytes[32], 9)
})

test('liveValue() reads what is there when it is asked', () => {
  const { value, bytes } = sample()
  const { peers } = value
  bytes[24] = 3
  bytes[0] = 80
  assert.deepEqual([value.port, peers[0]!.id, peers.length], [80, 3, 2])
  assert.deepEqual(
    peers.map(({ id }) => id),
    [3, 0],
  )
  assert.deepEqual([...peers].length, 2)
  assert.match(inspect(value), /port: 80/)
  assert.match(inspect(peers), /id: 3/)
  assert.deepEqual(Object.keys(value), ['port', 'low', 'high', 'name', 'mac', 'peers', '__proto__'])
  assert.equal(JSON.stringify(peers), '[{"id":3},{"id":0}]')
})

test('liveValue() refuses what does not fit, names that are not there, and read-only memory', () => {
  const { value, bytes } = sample()
  assert.throws(() => {
    value.port = 0x8_0000
  }, RangeError)
  assert.throws(() => {
    value.peers[2] = { id: 1 }
  }, RangeError)
  assert.throws(() => {
    value.peers.length = 0
  }, RangeError)
  assert.throws(() => value.peers.push({ id: 1 }))
  assert.ok(bytes.every(byte => byte === 0))
  const frozen = sample(false)
  assert.throws(
    () => {
      frozen.value.port = 1
    },
    { code: 'BPFTOKEN_CONFLICT' },
  )
  frozen.value.mac[0] = 1
  assert.ok(
    frozen.bytes.every(byte => byte === 0),
    'a copy was changed',
  )
})
