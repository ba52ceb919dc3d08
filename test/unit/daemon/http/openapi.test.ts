/**
 * The OpenAPI document: that it is one, that it is the one that was reviewed, and that it is true.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ROUTES, type Route, type RouteName } from '../../../../src/api/routes.ts'
import { openApiDocument } from '../../../../src/daemon/http/openapi.ts'
import { fakeService } from './fake-service.ts'
import { lab } from './lab.ts'

const GOLDEN = join(__dirname, 'openapi.json')
// biome-ignore lint/suspicious/noExplicitAny: a document of any form
type Any = any

const DOCUMENT = openApiDocument('0.0.0') as Any
const ROUTE_LIST = Object.entries(ROUTES) as [RouteName, Route][]

test('the document is the one that was reviewed (BPFTOKEN_TEST_UPDATE=1 writes it)', () => {
  const text = `${JSON.stringify(DOCUMENT, null, 2)}\n`
  if (process.env['BPFTOKEN_TEST_UPDATE'] === '1') writeFileSync(GOLDEN, text)
  // The formatter breaks its lines otherwise.
  assert.deepEqual(JSON.parse(text), JSON.parse(readFileSync(GOLDEN, 'utf8')))
})

test('the document has each route once, with all its answers, and every reference leads somewhere', () => {
  assert.match(DOCUMENT.openapi, /^3\.1\./)
  const operations = Object.entries<Any>(DOCUMENT.paths).flatMap(([path, item]) =>
    Object.entries<Any>(item).map(([method, operation]) => ({ path, method, ...operation })),
  )
  assert.deepEqual(operations.map(one => one.operationId).sort(), ROUTE_LIST.map(([name]) => name).sort())
  for (const [name, route] of ROUTE_LIST) {
    const operation = operations.find(one => one.operationId === name)!
    assert.equal(operation.path, route.path)
    assert.equal(operation.method, route.method.toLowerCase())
    for (const status of [...Object.keys(route.answers), '400', '403', '500'])
      assert.ok(operation.responses[status].description, `${name} ${status}`)
    const named = (operation.parameters ?? []).filter((one: Any) => one.in === 'path')
    assert.deepEqual(
      named.map((one: Any) => one.name),
      [...route.path.matchAll(/\{(\w+)\}/g)].map(([, param]) => param),
    )
    for (const one of named) assert.equal(one.required, true)
    assert.equal(operation.requestBody !== undefined, route.body !== undefined)
  }
  const references = [...JSON.stringify(DOCUMENT).matchAll(/"\$ref":"#\/([^"]+)"/g)]
  assert.ok(references.length > 30)
  for (const [, to] of references)
    assert.ok(to!.split('/').reduce((at, step) => at?.[step], DOCUMENT) !== undefined, to)
})

test('answers of the daemon are as the document says, told by its schemas alone', async () => {
  await using it = await lab({ service: fakeService() })
  it.uid = 0
  const served = await it.ask('/openapi.json')
  assert.deepEqual(served.json, JSON.parse(JSON.stringify(DOCUMENT)))
  const sample: Record<string, string> = { '/v1/policies/{name}': '/v1/policies/dev' }
  for (const [name, route] of ROUTE_LIST.filter(([, { method }]) => method === 'GET')) {
    const path =
      sample[route.path] ?? route.path.replace('{id}', name === 'showLoan' ? 'loan-1' : 'request-1')
    const { status, json } = await it.ask(path)
    const schema = DOCUMENT.paths[route.path].get.responses[status].content['application/json'].schema
    assert.deepEqual(faults(schema, json, name), [])
    assert.notDeepEqual(faults(schema, { ...json, extra: 1 }, name), [], 'a member too many is found')
    const [first] = Object.keys(json)
    assert.notDeepEqual(faults(schema, { ...json, [first!]: undefined }, name), [], 'a missing one is found')
  }
  const refused = await it.ask('/v1/loans/none')
  const problem =
    DOCUMENT.paths['/v1/loans/{id}'].get.responses[400].content['application/problem+json'].schema
  assert.deepEqual(faults(problem, refused.json, 'problem'), [])
})

/** What of a value is not as a schema says: as much of JSON Schema as the document has. */
function faults(schema: Any, value: Any, at: string): string[] {
  if (schema.$ref !== undefined) {
    const target = schema.$ref
      .slice(2)
      .split('/')
      .reduce((to: Any, step: string) => to[step], DOCUMENT)
    return faults(target, value, at)
  }
  for (const word of Object.keys(schema)) assert.ok(KNOWN.has(word), `${at}: the keyword ${word}`)
  if (schema.anyOf !== undefined)
    return schema.anyOf.some((one: Any) => faults(one, value, at).length === 0) ? [] : [`${at}: no form fits`]
  const wrong: string[] = []
  if (schema.const !== undefined && value !== schema.const) wrong.push(`${at}: is not ${schema.const}`)
  if (schema.enum !== undefined && !schema.enum.includes(value)) wrong.push(`${at}: is none of the words`)
  if (schema.type !== undefined && !TYPES[schema.type]!(value))
    return [...wrong, `${at}: is no ${schema.type}`]
  if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test(value))
    wrong.push(`${at}: pattern`)
  if (value < (schema.minimum ?? value) || value > (schema.maximum ?? value)) wrong.push(`${at}: range`)
  if (schema.maxLength !== undefined && value.length > schema.maxLength) wrong.push(`${at}: length`)
  if (schema.type === 'array')
    wrong.push(...value.flatMap((one: Any, i: number) => faults(schema.items ?? {}, one, `${at}[${i}]`)))
  if (schema.type !== 'object') return wrong
  for (const name of schema.required ?? [])
    if (value[name] === undefined) wrong.push(`${at}.${name}: is missing`)
  for (const [name, one] of Object.entries(value)) {
    const inner = schema.properties?.[name] ?? schema.additionalProperties ?? {}
    if (inner === false) wrong.push(`${at}.${name}: is too many`)
    else if (one !== undefined) wrong.push(...faults(inner, one, `${at}.${name}`))
  }
  return wrong
}

const TYPES: Readonly<Record<string, (value: unknown) => boolean>> = {
  object: value => typeof value === 'object' && value !== null && !Array.isArray(value),
  array: Array.isArray,
  string: value => typeof value === 'string',
  integer: Number.isSafeInteger,
  number: value => typeof value === 'number',
  boolean: value => typeof value === 'boolean',
}

const KNOWN = new Set([
  ...['type', 'properties', 'required', 'additionalProperties', 'propertyNames', 'items', 'anyOf', 'enum'],
  ...['const', 'pattern', 'format', 'minimum', 'maximum', 'exclusiveMinimum', 'minLength', 'maxLength'],
  ...['maxItems', 'description'],
])
