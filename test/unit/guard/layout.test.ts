/**
 * src/guard/layout.ts is made from the types in the compiled object. Held against these by another
 * way, and against the text of bpf/guard/abi.h: a generator that reads wrong would write, and
 * check, the same wrong file.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { layoutText } from '../../../scripts/gen-guard-layout.ts'
import type { Btf, BtfComposite } from '../../../src/ebpf/btf/btf.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { PROG_TYPES } from '../../../src/ebpf/type-names.ts'
import * as layout from '../../../src/guard/layout.ts'
import { PROGRAM_CLASSES } from '../../../src/policy/kernel-classes.ts'
import { DEFAULT_LIMITS, EVENTS } from '../../../src/policy/policy.ts'
import type { Field, Fields, Struct } from '../../../src/uapi/codec.ts'
import { ROOT } from '../../helpers/machine.ts'

const { EVENTS_WORDS, GUARD_FLAGS, POINTS, REASONS, VERDICTS } = layout
const object = parseObject(readFileSync(join(ROOT, 'bpf/guard.bpf.o')), { name: 'guard' })
const types = object.btf!.types
const header = readFileSync(join(ROOT, 'bpf/guard/abi.h'), 'utf8')

test('the file is what the generator makes of the object', () => {
  assert.equal(readFileSync(join(ROOT, 'src/guard/layout.ts'), 'utf8'), layoutText())
})

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

const STRUCTS = new Map(
  Object.entries(layout).flatMap(([name, value]): [string, Struct<Fields>][] =>
    name.startsWith('guard_') ? [[name, value as unknown as Struct<Fields>]] : [],
  ),
)

test('every struct of the header is there', () => {
  const declared = [...header.matchAll(/^struct (guard_\w+) \{/gm)].map(([, name]) => name)
  assert.ok(declared.length > 0)
  assert.deepEqual([...STRUCTS.keys()].sort(), declared.sort())
})

for (const [name, ours] of STRUCTS)
  test(`${name} has the size and the fields of the object`, () => {
    const id = types.find(name, 'struct')[0]
    assert.ok(id !== undefined, 'the object has no such type')
    assert.equal(ours.size, types.sizeof(id))
    assert.deepEqual(fieldsOfOurs(ours), fieldsOf(types, id))
  })

test('sizes are those that the header asserts', () => {
  const asserted = [...header.matchAll(/^_Static_assert\(sizeof\(struct (\w+)\) == (\d+), "\1"\);$/gm)]
  assert.ok(asserted.length > 0)
  for (const [, name, size] of asserted) assert.equal(STRUCTS.get(name!)?.size, Number(size), name)
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

test('numbers and strings of the header', () => {
  const [, body = ''] = /enum guard_number \{([^}]*)\}/.exec(header) ?? []
  const numbers = [...body.matchAll(/^\t(GUARD_\w+) = (\w+),$/gm)].map(([, name, text]) => [
    name,
    Number(text),
  ])
  const strings = [...header.matchAll(/^#define (GUARD_\w+) "(.*)"$/gm)].map(([, name, text]) => [name, text])
  assert.ok(numbers.length > 0 && strings.length > 0)
  const ours = Object.entries(layout).filter(([, value]) => typeof value !== 'object')
  assert.deepEqual(Object.fromEntries(ours), Object.fromEntries([...numbers, ...strings]))
})

test('what a policy does not state is as the policy says', () => {
  const { GUARD_DEFAULT_TOKENS: tokens, GUARD_DEFAULT_PROGRAMS: programs, GUARD_DEFAULT_MAPS: maps } = layout
  assert.deepEqual({ tokens, programs, maps }, DEFAULT_LIMITS)
})

test('what reaches the network does so by the rating of a policy, too', () => {
  const networkTypes = PROG_TYPES.words().filter(word => PROGRAM_CLASSES[word]?.reach === 'network')
  const ours = networkTypes.map(word => PROG_TYPES.number(word)).filter(type => type < 32)
  const theirs = Array.from({ length: 32 }, (_, bit) => bit).filter(
    bit => ((layout.GUARD_NETWORK_PROGS_LOW >>> bit) & 1) === 1,
  )
  assert.deepEqual(ours, theirs)
})

test('events of a policy are those that the guard knows', () => {
  assert.deepEqual([...EVENTS].sort(), [...EVENTS_WORDS].sort())
})

test('the lists are those of the header, by the numbers that the programs are compiled with', () => {
  const kernel = readFileSync(join(ROOT, 'bpf/kernel.h'), 'utf8')
  const numbers = new Map(
    [...kernel.matchAll(/^\t(BPF_\w+) = (\d+),/gm)].map(([, name, value]) => [name!, Number(value)]),
  )
  const macros = new Map(
    readFileSync(join(ROOT, 'bpf/guard/lists.h'), 'utf8')
      .replaceAll('\\\n', ' ')
      .split('\n')
      .flatMap(line => {
        const [, name, text] = /^#define (\w+)\s+(.*)$/.exec(line) ?? []
        return name === undefined || text === undefined ? [] : [[name, text] as const]
      }),
  )
  const expanded = (text: string): string =>
    text.replace(/\b[A-Z]+_[A-Z_]+\b/g, word => (macros.has(word) ? expanded(macros.get(word)!) : word))
  const bits = (text: string): bigint =>
    [...expanded(text).matchAll(/BIT\((\w+)\)/g)].reduce(
      (mask, [, name]) => mask | (1n << BigInt(numbers.get(name!) ?? 99)),
      0n,
    )
  const theirs = [...macros].map(([name, text]) => [
    name.toLowerCase().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    text.includes('BIT(') || macros.has(text.replace(/[()]/g, ''))
      ? bits(text)
      : (numbers.get(text) ?? Number(text)),
  ])
  assert.ok(theirs.length > 10)
  assert.deepEqual(layout.GUARD_LISTS, Object.fromEntries(theirs))
})
