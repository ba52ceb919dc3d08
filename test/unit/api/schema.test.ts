/** The schemas of the JSON documents: one for each, strict, and published as JSON Schema. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DOCUMENT_NAMES } from '../../../src/api/names.ts'
import { jsonSchemaOf, SCHEMAS } from '../../../src/api/schema.ts'
import { commandTree } from '../../../src/cli/tree.ts'

/** Every object in a JSON Schema that says which fields it has. */
function* objectsIn(schema: unknown): Generator<Record<string, unknown>> {
  if (typeof schema !== 'object' || schema === null) return
  if ('properties' in schema) yield schema as Record<string, unknown>
  for (const part of Object.values(schema)) yield* objectsIn(part)
}

test('every document has a JSON Schema that allows no field it does not name', () => {
  for (const name of DOCUMENT_NAMES) {
    const schema = jsonSchemaOf(name)
    assert.equal(schema['$schema'], 'https://json-schema.org/draft/2020-12/schema')
    const objects = [...objectsIn(schema)]
    assert.ok(objects.length > 0, name)
    for (const { additionalProperties } of objects) assert.equal(additionalProperties, false, name)
  }
})

test('every command that answers in JSON has a document', () => {
  const names: readonly string[] = DOCUMENT_NAMES
  for (const command of commandTree(() => {}, '').withAllBelow()) {
    const json = command.options.find(({ long }) => long === '--json')!.description
    const answers = command.subcommands.length === 0 && !/with --dry-run|of errors only/.test(json)
    if (answers && command.path !== 'schema')
      assert.ok(names.includes(command.path.replace(' ', '-')), command.path)
  }
})

test('numbers, masks and times have one form each', () => {
  const parses = (name: 'policy-install' | 'show' | 'events', value: unknown): boolean =>
    SCHEMAS[name].safeParse(value).success
  const event = {
    seq: 1,
    time: '2026-01-02T03:04:05.678Z',
    point: 'option',
    verdict: 'refused',
    reason: 'none',
    pid: 1,
    tid: 1,
    uid: 0,
    task: 'x',
    cgroup: 4242,
    name: '',
  }
  assert.ok(parses('events', event))
  assert.ok(parses('events', { ...event, cgroup: '18446744073709551615' }))
  for (const wrong of [
    { time: 'yesterday' },
    { time: 1700000000 },
    { cgroup: '0x10' },
    { cgroup: 2 ** 60 },
    { uid: -1 },
    { pid: '1' },
    { surprise: true },
  ])
    assert.ok(!parses('events', { ...event, ...wrong }), JSON.stringify(wrong))
  assert.ok(parses('policy-install', { installed: ['a'] }))
  assert.ok(!parses('policy-install', { installed: 'a' }))
})
