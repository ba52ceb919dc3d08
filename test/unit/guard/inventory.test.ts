/**
 * Records of the inventory: the layout is the object's, and holders are put together from many of
 * them.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { BtfComposite } from '../../../src/ebpf/btf/btf.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { holdersOf, inventory_record, KINDS } from '../../../src/guard/inventory.ts'
import { ROOT } from '../../helpers/machine.ts'

const source = readFileSync(join(ROOT, 'bpf/inventory.bpf.c'), 'utf8')
const inventory = parseObject(readFileSync(join(ROOT, 'bpf/inventory.bpf.o')), { name: 'inventory' })
const guard = parseObject(readFileSync(join(ROOT, 'bpf/guard.bpf.o')), { name: 'guard' })

test('inventory_record has the size and the fields of the object', () => {
  const types = inventory.btf!.types
  const [id] = types.find('inventory_record', 'struct')
  const { members } = types.resolve(id!) as BtfComposite
  assert.equal(inventory_record.size, types.sizeof(id!))
  assert.deepEqual(
    Object.entries(inventory_record.fields).map(([name, { off, size }]) => [name, off, size]),
    members.map(({ name, bitOff, type }) => [name, bitOff / 8, types.sizeof(type)]),
  )
})

test('kinds are those of the source', () => {
  const found = [...source.matchAll(/INVENTORY_(\w+) = (\d+)/g)].map(([, word, number]) => [
    number,
    word!.toLowerCase(),
  ])
  assert.deepEqual(KINDS, Object.fromEntries(found))
})

test("the maps are declared as the guard's, which are used in their place", () => {
  for (const { name, type, keyBytes, valueBytes, maxEntries, flags } of inventory.maps) {
    const of = guard.maps.find(map => map.name === name)
    assert.ok(of !== undefined, `the guard has no map ${name}`)
    assert.deepEqual(
      { type, keyBytes, valueBytes, maxEntries, flags },
      {
        type: of.type,
        keyBytes: of.keyBytes,
        valueBytes: of.valueBytes,
        maxEntries: of.maxEntries,
        flags: of.flags,
      },
    )
  }
})

const NUMBERS = Object.fromEntries(Object.entries(KINDS).map(([number, word]) => [word, Number(number)]))

function record(kind: string, id: number, holder: number, more: { within?: number; task?: string } = {}) {
  return inventory_record.decode(
    inventory_record.encode({
      delegation: 7n,
      kind: NUMBERS[kind]!,
      id,
      holder,
      within: more.within ?? 0,
      name: new TextEncoder().encode(more.task ?? 'task'),
    }),
  )
}

test('each process is one holder, with each thing it holds once', () => {
  const records = [
    record('program', 12, 40),
    record('program', 3, 40),
    record('program', 12, 40),
    record('link', 5, 40),
    record('token', 0, 9, { task: 'shell', within: 1 }),
    record('map', 8, 9, { task: 'shell', within: 1 }),
  ]
  assert.deepEqual(holdersOf(records), [
    { pid: 9, task: 'shell', within: true, programs: [], maps: [8], links: [], token: true },
    { pid: 40, task: 'task', within: false, programs: [3, 12], maps: [], links: [5], token: false },
  ])
})

test('a process is within if it is for any of the delegations that it holds something of', () => {
  const records = [record('program', 1, 40), record('program', 2, 40, { within: 1 }), record('map', 1, 41)]
  assert.deepEqual(
    holdersOf(records).map(({ pid, within }) => [pid, within]),
    [
      [40, true],
      [41, false],
    ],
  )
})

test('no records are no holders', () => {
  assert.deepEqual(holdersOf([]), [])
})
