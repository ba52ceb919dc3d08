import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { showBytes, sumOf, weightOf } from '../../../../src/ebpf/watch/shown.ts'

/**
 * struct { u64 big; char name[8]; u8 mac[2]; enum verdict v; void *p; union { u32 a; u32 b; }; }
 */
function sample(): { types: Btf; id: number } {
  const btf = new BtfBuilder()
  const u64 = btf.int('unsigned long long', 8)
  const u32 = btf.int('unsigned int', 4)
  const char = btf.int('char', 1, { signed: true })
  const u8 = btf.int('unsigned char', 1)
  const name = btf.array(char, u32, 8)
  const mac = btf.array(btf.typedef('u8', u8), u32, 2)
  const verdict = btf.enum('verdict', { DROP: 1, PASS: 2 })
  const pointer = btf.ptr(0)
  const inner = btf.union('', 4, [
    { name: 'a', type: u32, bitOff: 0 },
    { name: 'b', type: u32, bitOff: 0 },
  ])
  const id = btf.struct('sample', 40, [
    { name: 'big', type: u64, bitOff: 0 },
    { name: 'name', type: name, bitOff: 64 },
    { name: 'mac', type: mac, bitOff: 128 },
    { name: 'v', type: btf.typedef('verdict_t', verdict), bitOff: 160 },
    { name: 'p', type: pointer, bitOff: 192 },
    { name: '', type: inner, bitOff: 256 },
  ])
  return { types: Btf.parse(btf.build()), id }
}

function bytes(name: string, verdict: number, big: bigint): Uint8Array {
  const all = Buffer.alloc(40)
  all.writeBigUInt64LE(big, 0)
  all.write(name, 8, 'latin1')
  all.set([0xde, 0xad], 16)
  all.writeUInt32LE(verdict, 20)
  all.writeBigUInt64LE(0xff00n, 24)
  all.writeUInt32LE(7, 32)
  return all
}

test('each kind of value is shown as people read it', () => {
  assert.deepEqual(showBytes(sample(), bytes('eth0', 2, 12n)), {
    big: 12,
    name: 'eth0',
    mac: 'dead',
    v: 'PASS',
    p: '0xff00',
    a: 7,
    b: 7,
  })
})

test('what has no exact or no readable form is told in another', () => {
  const shown = showBytes(sample(), bytes('\xff\xfe', 9, 2n ** 63n)) as Record<string, unknown>
  assert.equal(shown['big'], '9223372036854775808')
  assert.equal(shown['name'], 'fffe000000000000')
  assert.equal(shown['v'], 9)
  assert.equal(showBytes(undefined, Uint8Array.of(1, 0xab)), '01ab')
})

test('sumOf adds numbers, and structs and arrays of them; nothing else', () => {
  assert.equal(sumOf([1n, 2n, 3n]), 6n)
  assert.deepEqual(
    sumOf([
      { a: 1, b: [1n, 2n] },
      { a: 2, b: [3n, 4n] },
    ]),
    { a: 3, b: [4n, 6n] },
  )
  assert.equal(sumOf([true, false]), undefined)
  assert.equal(sumOf([{ a: 1, b: Uint8Array.of(1) }]), undefined)
})

test('weightOf is the first number that is not zero', () => {
  assert.equal(weightOf({ a: 0, b: [0, 5] }), 5)
  assert.equal(weightOf('text'), 0)
})
