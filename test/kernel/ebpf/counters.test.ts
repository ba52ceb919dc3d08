/** What is read of maps, and how much of it at most. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Btf } from '../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../src/ebpf/btf/builder.ts'
import type { LoadedObject } from '../../../src/ebpf/load/object.ts'
import { BpfMap, type MapSpec } from '../../../src/ebpf/map.ts'
import { possibleCpus } from '../../../src/ebpf/per-cpu.ts'
import { type Reading, readCounters } from '../../../src/ebpf/watch/counters.ts'
import { isRoot } from '../../helpers/machine.ts'

const machine = isRoot ? {} : { skip: 'needs root' }

function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true)
  return bytes
}

/** What is read of a map of u32 to u64, after `fill`. */
function readOf(spec: Pick<MapSpec, 'type' | 'maxEntries'>, fill: (map: BpfMap) => void): Reading {
  const btf = new BtfBuilder()
  const keyTypeId = btf.int('unsigned int', 4)
  const valueTypeId = btf.int('unsigned long long', 8)
  const types = Btf.parse(btf.build())
  using map = BpfMap.create({ ...spec, keyBytes: 4, valueBytes: 8, token: null })
  fill(map)
  const facts = { name: 'm', kind: 'declared', type: map.type, keyTypeId, valueTypeId }
  const object = { spec: { maps: [facts], btf: { types } }, maps: new Map([['m', map]]) }
  return readCounters(object as unknown as LoadedObject)[0]!
}

test('of an array: all of a small one, else what is not zero', machine, () => {
  const small = readOf({ type: 'array', maxEntries: 2 }, map => map.update(1, u64(7)))
  assert.deepEqual(small.rows, [
    { key: 0, value: 0 },
    { key: 1, value: 7 },
  ])
  const large = readOf({ type: 'array', maxEntries: 1024 }, map => {
    for (let key = 0; key < 30; key++) map.update(key * 2, u64(key + 1))
  })
  assert.equal(large.rows.length, 20)
  assert.deepEqual(large.rows[1], { key: 2, value: 2 })
  assert.deepEqual([large.more, large.cut], [10, false])
  assert.equal(readOf({ type: 'array', maxEntries: 1025 }, () => {}).cut, true)
})

test('of a hash the largest values, and no more than a thousand are looked at', machine, () => {
  const reading = readOf({ type: 'hash', maxEntries: 2000 }, map => {
    for (let key = 0; key < 100; key++) map.update(key, u64(key * 10))
  })
  assert.deepEqual(
    reading.rows.map(({ key, value }) => [key, value]),
    Array.from({ length: 20 }, (_, i) => [99 - i, (99 - i) * 10]),
  )
  assert.deepEqual([reading.more, reading.cut], [80, false])
  const full = readOf({ type: 'hash', maxEntries: 2000 }, map => {
    for (let key = 0; key < 1500; key++) map.update(key, u64(1))
  })
  assert.deepEqual([full.rows.length, full.more, full.cut], [20, 1004, true])
})

test('values of CPUs are added up', machine, () => {
  for (const type of ['percpu_array', 'percpu_hash'] as const) {
    const { rows, perCpu } = readOf({ type, maxEntries: 1 }, map => {
      const values = Array.from({ length: possibleCpus() }, (_, cpu) => u64(cpu + 1))
      map.updatePerCpu(0, values)
    })
    const sum = (possibleCpus() * (possibleCpus() + 1)) / 2
    assert.deepEqual([rows, perCpu], [[{ key: 0, value: sum }], true], type)
  }
})
