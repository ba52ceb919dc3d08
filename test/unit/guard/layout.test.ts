/** The guard's layouts are those of bpf/guard.h: held against the types in the compiled object. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Btf, BtfComposite } from '../../../src/ebpf/btf.ts'
import { parseObject } from '../../../src/ebpf/object-spec.ts'
import {
  GUARD_ABI,
  guard_config,
  guard_delegation,
  guard_delegator,
  guard_event,
  guard_file,
  guard_process,
  guard_terms,
  guard_totals,
  guard_usage,
  NAME_BYTES,
  POINTS,
  PROBE_KEY,
  REASONS,
  VERDICTS,
} from '../../../src/guard/layout.ts'
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

const STRUCTS = {
  guard_config,
  guard_totals,
  guard_terms,
  guard_process,
  guard_file,
  guard_delegator,
  guard_delegation,
  guard_usage,
  guard_event,
}

for (const [name, { size, fields }] of Object.entries(STRUCTS))
  test(`${name} has the size and the fields of the object`, () => {
    const id = types.find(name, 'struct')[0]
    assert.ok(id !== undefined, 'the object has no such type')
    assert.equal(size, types.sizeof(id))
    assert.deepEqual(
      Object.values(fields).map(({ off, size }) => [off, size]),
      fieldsOf(types, id),
    )
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

test('numbers of the header', () => {
  const define = (name: string): string => new RegExp(`#define ${name} (\\S+)`).exec(header)![1]!
  assert.equal(Number(define('GUARD_ABI')), GUARD_ABI)
  assert.equal(Number(define('GUARD_NAME_BYTES')), NAME_BYTES)
  assert.equal(define('GUARD_PROBE_KEY'), `"${PROBE_KEY}"`)
  assert.equal(define('GUARD_PROBE_ERRNO'), '129')
})
