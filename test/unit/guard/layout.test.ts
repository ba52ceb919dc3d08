/** The guard's layouts are those of bpf/guard.h: held against the types in the compiled object. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Btf, BtfComposite } from '../../../src/ebpf/btf.ts'
import { parseObject } from '../../../src/ebpf/object-spec.ts'
import {
  CGROUP_LEVELS,
  CONFINEMENTS,
  EVENTS_WORDS,
  GUARD_ABI,
  GUARD_FLAGS,
  guard_cgroup,
  guard_config,
  guard_delegation,
  guard_delegator,
  guard_digest,
  guard_event,
  guard_file,
  guard_function,
  guard_namespace,
  guard_pending,
  guard_process,
  guard_revocation,
  guard_terms,
  guard_totals,
  guard_usage,
  KEEPER_KEY,
  NAME_BYTES,
  NETWORK_PROGS,
  POINTS,
  PROBE_KEY,
  REASONS,
  SLOTS,
  VERDICTS,
} from '../../../src/guard/layout.ts'
import { DEFAULT_LIMITS } from '../../../src/policy/policy.ts'
import type { Field, Fields, Struct } from '../../../src/uapi/codec.ts'
import { ROOT } from '../../helpers/machine.ts'

const object = parseObject(readFileSync(join(ROOT, 'bpf/guard.bpf.o')), { name: 'guard' })
const types = object.btf!.types
const header = readFileSync(join(ROOT, 'bpf/guard.h'), 'utf8')

/** Every single field, nested ones by their own name: `[off, bytes]`. */
function fieldsOf(btf: Btf, id: number, base = 0): [number, number][] {
  const type = btf.resolve(id)!
  if (type.kind !== 'struct') return [[base, btf.sizeof(id)]]
  return (type as BtfComposite).members.flatMap(member =>
    fieldsOf(btf, member.type, base + member.bitOff / 8),
  )
}

/** The same of ours. */
function fieldsOfOurs(of: Struct<Fields>, base = 0): [number, number][] {
  return Object.values(of.fields).flatMap((field: Field<unknown> & { of?: Struct<Fields> }) =>
    field.of === undefined
      ? ([[base + field.off, field.size]] as [number, number][])
      : fieldsOfOurs(field.of, base + field.off),
  )
}

const STRUCTS: Record<string, Struct<Fields>> = {
  guard_config,
  guard_totals,
  guard_terms,
  guard_digest,
  guard_function,
  guard_process,
  guard_file,
  guard_cgroup,
  guard_delegator,
  guard_pending,
  guard_delegation,
  guard_revocation,
  guard_usage,
  guard_namespace,
  guard_event,
}

for (const [name, ours] of Object.entries(STRUCTS))
  test(`${name} has the size and the fields of the object`, () => {
    const id = types.find(name, 'struct')[0]
    assert.ok(id !== undefined, 'the object has no such type')
    assert.equal(ours.size, types.sizeof(id))
    assert.deepEqual(fieldsOfOurs(ours), fieldsOf(types, id))
  })

/** Enumerators of one enum of the header, by value, as we write them. */
function words(enumName: string, prefix: string): Record<number, string> {
  const [, body = ''] = new RegExp(`enum ${enumName} \\{([^}]*)\\}`).exec(header) ?? []
  const found = [...body.matchAll(/GUARD_(\w+) = (\d+)/g)].map(([, word, value]) => [
    value,
    word!.toLowerCase(),
  ])
  assert.ok(found.length > 0)
  return Object.fromEntries(found.map(([value, word]) => [value, word!.replaceAll('_', prefix)]))
}

test('points, verdicts and reasons have the words of the header', () => {
  assert.deepEqual(POINTS, words('guard_point', '_'))
  assert.deepEqual(VERDICTS, words('guard_verdict', '-'))
  assert.deepEqual(REASONS, words('guard_reason', '-'))
})

test('flags and kinds of events have the numbers of the header', () => {
  const flags = Object.entries(GUARD_FLAGS).map(([flag, value]) => [
    value,
    flag.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`),
  ])
  assert.deepEqual(Object.fromEntries(flags), words('guard_flag', '_'))
  assert.deepEqual(
    Object.fromEntries(EVENTS_WORDS.map((word, number) => [number, `events-${word}`])),
    words('guard_events', '-'),
  )
})

test('numbers of the header', () => {
  const define = (name: string): string => new RegExp(`#define ${name} (\\S+)`).exec(header)![1]!
  assert.equal(Number(define('GUARD_ABI')), GUARD_ABI)
  assert.deepEqual(
    {
      tokens: Number(define('GUARD_DEFAULT_TOKENS')),
      programs: Number(define('GUARD_DEFAULT_PROGRAMS')),
      maps: Number(define('GUARD_DEFAULT_MAPS')),
    },
    DEFAULT_LIMITS,
  )
  assert.equal(Number(define('GUARD_NAME_BYTES')), NAME_BYTES)
  assert.equal(Number(define('GUARD_SLOTS')), SLOTS)
  assert.equal(Number(define('GUARD_CONFINEMENTS')), CONFINEMENTS)
  assert.equal(Number(define('GUARD_CGROUP_LEVELS')), CGROUP_LEVELS)
  assert.equal(define('GUARD_NETWORK_PROGS'), `0x${NETWORK_PROGS.toString(16)}ULL`)
  assert.equal(define('GUARD_KEEPER_KEY'), `"${KEEPER_KEY}"`)
  assert.equal(define('GUARD_PROBE_KEY'), `"${PROBE_KEY}"`)
  assert.equal(define('GUARD_PROBE_ERRNO'), '129')
})
