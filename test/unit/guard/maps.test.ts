/**
 * The tables over the guard's maps, held against the object that declares these, and used on a map
 * of ours.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { BpfMap } from '../../../src/ebpf/map.ts'
import { delegationId } from '../../../src/guard/id.ts'
import * as layout from '../../../src/guard/layout.ts'
import { TABLES, tablesOf } from '../../../src/guard/maps.ts'
import { declared, Memory, made, tables, types } from './memory.ts'

/** Maps that only the programs use, and the ring buffer. */
const NO_TABLES = ['contexts', 'events', 'keepers', 'maps', 'programs', 'superblocks', 'tokens', 'unexpired']

test("each map of the guard has a table, or is the programs' alone", () => {
  assert.deepEqual([...Object.keys(TABLES), ...NO_TABLES].sort(), [...declared.keys()].sort())
})

/** `guard_terms` for a struct of the header, else how many bytes. */
function typeName(id: number): string {
  const type = types.resolve(id)!
  return type.kind === 'struct' ? type.name : String(types.sizeof(id))
}

/** The same of ours. Names of policies are records in the maps, and text in the table. */
function codecName(codec: { readonly size: number }): string {
  const found = Object.entries(layout).find(([, one]) => one === codec)
  if (found !== undefined) return found[0]
  return codec.size === layout.guard_name.size ? 'guard_name' : String(codec.size)
}

for (const [name, { key, value }] of Object.entries<(typeof TABLES)[keyof typeof TABLES]>(TABLES))
  test(`table ${name} has the key and the value of the object`, () => {
    const map = declared.get(name)!
    assert.equal(codecName(value), typeName(map.valueTypeId!))
    assert.equal(key === undefined ? '4' : codecName(key), typeName(map.keyTypeId!))
  })

test('delegations have as many places as the slots count', () => {
  for (const name of ['delegations', 'revocations', 'usages'])
    assert.equal(declared.get(name)!.maxEntries, layout.GUARD_SLOTS, name)
})

const FIRST = delegationId(100)
const NEXT = delegationId(101)
/** Has the place of `FIRST`. */
const LATER = delegationId(100 + layout.GUARD_SLOTS)

describe('tables', () => {
  test('a record is read by whose it is, and not by who has its place now', () => {
    const { delegations, revocations } = tables()
    delegations.set(FIRST, { created_ns: 5n, cgroup_level: 3 })
    revocations.set(FIRST, { revoked_ns: 7n })
    assert.deepEqual(
      [delegations.get(FIRST)?.cgroup_level, revocations.get(FIRST)?.revoked_ns, delegations.get(NEXT)],
      [3, 7n, undefined],
    )
    delegations.set(LATER, { created_ns: 6n })
    assert.equal(delegations.get(FIRST), undefined, "the place is another one's")
    assert.equal(delegations.get(LATER)?.created_ns, 6n)
    assert.equal(revocations.get(LATER), undefined, 'what revoked one revokes the next')
    assert.deepEqual(
      delegations.all().map(({ id }) => id),
      [LATER],
    )
    delegations.clear(LATER)
    assert.deepEqual(delegations.all(), [])
  })

  test('what is counted lies in the place, whoever has it', () => {
    const { usages } = tables()
    assert.equal(usages.get(FIRST).maps, 0)
    usages.set(FIRST, { maps: 4 })
    assert.deepEqual([usages.get(FIRST).maps, usages.get(LATER).maps, usages.get(NEXT).maps], [4, 4, 0])
  })

  test('a change of some fields leaves the others as they are, reserved ones too', () => {
    const { config } = tables()
    config.map.update(new Uint8Array(4), layout.guard_config.encode({ abi: 4, mode: 1, reserved: 9 }))
    config.change({ mode: 0, build: 8 })
    const { abi, mode, build } = config.read()
    assert.deepEqual({ abi, mode, build }, { abi: 4, mode: 0, build: 8 })
    assert.equal(layout.guard_config.decode(config.map.lookup(new Uint8Array(4))!).reserved, 9)
  })

  test('keys come back as they went in, and an element goes by the same key', () => {
    const { policies, namespaces, processes, own_maps } = tables()
    policies.set('counter@17', {})
    namespaces.set(4026531837, { delegation: 2n })
    processes.set({ tgid: 17, start_ticks: 99n }, { last_id: 3n })
    own_maps.set(0xffff_ffff, 1)
    assert.deepEqual([...policies.keys()], ['counter@17'])
    assert.deepEqual(namespaces.readAll()[0]![0], 4026531837)
    assert.deepEqual([...own_maps.entries()], [[0xffff_ffff, 1]])
    const [key] = [...processes.keys()]
    assert.equal(processes.get(key!)?.last_id, 3n)
    assert.equal(processes.delete(key!), true)
    assert.equal(processes.get(key!), undefined)
    assert.equal(processes.delete(key!), false)
  })

  test('a key is the same whether it was given or read back', () => {
    const { files } = tables()
    const given = { inode: 12n, device: 34 }
    files.set(given, { implicit: 1 })
    const [read] = [...files.keys()]
    assert.equal(files.isSameKey(read!, given), true)
    assert.equal(files.isSameKey(read!, { inode: 12n, device: 35 }), false)
  })

  test('a map is opened when its table is asked for, and once', () => {
    made.length = 0
    const of = tables()
    assert.equal(made.length, 0)
    assert.equal(of.usages, of.usages)
    assert.equal(made.length, 1)
  })

  test('a map of another layout is refused, with the way out', () => {
    const other = tablesOf(name => new Memory(name, 52) as unknown as BpfMap)
    assert.throws(() => other.config, { name: 'ConflictError', hint: /version that installed it/ })
  })
})

test('delegationId() takes what can be a delegation, and nothing else', () => {
  assert.equal(delegationId(1), 1n)
  assert.equal(delegationId(0xffff_ffffn), 0xffff_ffffn)
  for (const none of [0, -1, 1.5, Number.NaN, 0x1_0000_0000, -1n, 1n << 64n])
    assert.throws(() => delegationId(none), RangeError, String(none))
})
