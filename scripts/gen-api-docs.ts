/**
 * Writes docs/api.md, the reference of the daemon's HTTP API, from its OpenAPI document.
 *
 * `--check` writes nothing and exits 1 if the file differs.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROUTES, type Route, type RouteName } from '../src/api/routes.ts'
import { openApiDocument } from '../src/daemon/http/openapi.ts'
import { ERROR_CODES } from '../src/errors.ts'

const FILE = join(__dirname, '..', 'docs', 'api.md')
const SOCKET = '/run/bpftoken/bpftokend.sock'

interface Schema {
  readonly $ref?: string
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Schema[]
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly description?: string
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
}

interface Parameter {
  readonly in: 'path' | 'query' | 'header'
  readonly name: string
  readonly schema: Schema
  readonly description?: string
}

interface Operation {
  readonly parameters?: readonly Parameter[]
}

/** What is sent in the example of a route. */
const BODIES: Partial<Record<RouteName, object>> = {
  decide: { policy: 'dev', recipient: { self: true } },
  lend: { policy: { name: 'dev' }, recipient: { pid: 4711 }, place: { path: '/sys/fs/bpf' } },
  derive: { policy: { name: 'small' }, recipient: { pid: 4712 }, place: { path: '/sys/fs/bpf' } },
  renew: { lifetimeSec: 3600 },
  revoke: { what: { loan: 'loan-1' }, dryRun: true },
  approve: { comment: 'for the release' },
  deny: {},
  ociHook: {
    state: {
      ...{ id: 'web', pid: 4711, status: 'created', bundle: '/run/containers/web', root: 'rootfs' },
      annotations: { 'bpftoken.dev/policy': 'dev' },
    },
  },
  announceContainers: {
    runtime: 'containerd',
    whole: false,
    containers: [{ id: 'web', name: 'web', labels: { app: 'web' } }],
  },
}

function typeOf(schema: Schema): string {
  if (schema.$ref !== undefined) return `[${nameOf(schema.$ref)}](#${nameOf(schema.$ref).toLowerCase()})`
  if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``
  if (schema.enum !== undefined) return schema.enum.map(one => `\`${one}\``).join(', ')
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(' or ')
  if (schema.items !== undefined) return `list of ${typeOf(schema.items)}`
  if (schema.properties !== undefined)
    return `{ ${Object.entries(schema.properties)
      .map(([name, inner]) => `${name}${schema.required?.includes(name) ? '' : '?'}: ${typeOf(inner)}`)
      .join(', ')} }`
  return schema.type ?? 'any'
}

function nameOf(reference: string): string {
  return reference.split('/').at(-1)!
}

const COLUMNS = 100

/** Prose, in lines. */
function wrapped(text: string): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const longer = `${lines.at(-1)} ${word}`
    if (lines.length > 0 && longer.length <= COLUMNS) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

/** A cell of a table. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}

function example(name: RouteName, { method, path, body }: Route): string[] {
  const at = path.replace('{name}', 'dev').replace('{id}', path.includes('requests') ? 'request-1' : 'loan-1')
  const sent = BODIES[name]
  return [
    `curl --unix-socket ${SOCKET} ${method === 'POST' && body === undefined ? '-X POST ' : ''}http://localhost${at}` +
      (body === undefined ? '' : ' \\'),
    ...(body === undefined
      ? []
      : [`  -H 'Content-Type: application/json' -d '${JSON.stringify(sent ?? {})}'`]),
  ]
}

function section(name: RouteName, route: Route, operation: Operation): string[] {
  const { method, path, summary, root, stream, idempotent, body, answers } = route
  const parameters = operation.parameters ?? []
  const bodyType = body === undefined ? undefined : documentOf(name).requestBody
  return [
    `### ${method} ${path}`,
    '',
    ...wrapped(
      `${summary}.${root ? ' Root alone.' : ''}${stream === undefined ? '' : ' Also as a stream.'}${idempotent ? ' Takes `Idempotency-Key`.' : ''}`,
    ),
    '',
    ...(parameters.length === 0
      ? []
      : [
          '| parameter | in | type |',
          '|---|---|---|',
          ...parameters.map(one => `| \`${one.name}\` | ${one.in} | ${cell(typeOf(one.schema))} |`),
          '',
        ]),
    ...(bodyType === undefined
      ? []
      : [...wrapped(`Body: ${typeOf(bodyType.content['application/json'].schema)}.`), '']),
    ...wrapped(
      `Answers: ${Object.keys(answers)
        .map(
          status =>
            `${status} ${typeOf(documentOf(name).responses[status].content['application/json'].schema)}`,
        )
        .join('; ')}.`,
    ),
    '',
    '```sh daemon',
    ...example(name, route),
    '```',
    '',
  ]
}

const DOCUMENT = openApiDocument('0')

// biome-ignore lint/suspicious/noExplicitAny: OpenAPI's own form
function documentOf(name: RouteName): any {
  const { path, method } = ROUTES[name]
  return DOCUMENT.paths[path]![method.toLowerCase()]
}

function component(name: string, schema: Schema): string[] {
  const heading = [
    `### ${name}`,
    '',
    ...(schema.description === undefined ? [] : [...wrapped(`${schema.description}.`), '']),
  ]
  if (schema.properties === undefined) return [...heading, ...wrapped(`${typeOf(schema)}.`), '']
  return [
    ...heading,
    '| field | type | |',
    '|---|---|---|',
    ...Object.entries(schema.properties).map(
      ([field, inner]) =>
        `| \`${field}\`${schema.required?.includes(field) ? '' : '?'} | ${cell(typeOf(inner))} | ${cell(inner.description ?? '')} |`,
    ),
    '',
  ]
}

function page(): string {
  const errors = Object.entries(ERROR_CODES).map(
    ([code, { title, http }]) => `| \`${code}\` | ${http} | ${title} |`,
  )
  return [
    '# The API of bpftokend',
    '',
    'Made from the OpenAPI document by `scripts/gen-api-docs.ts`; the daemon has it at `/openapi.json`.',
    '',
    ...wrapped(
      `The daemon answers HTTP/1.1 at \`${SOCKET}\`. Everybody may connect: the kernel says who asks, so there are no credentials. Root sees and may do all; others what is their own.`,
    ),
    '',
    '- **Bodies** are JSON in UTF-8 of at most 300 KiB. A name that stands twice, a number that is not',
    '  whole or beyond 2^53 - 1, and half a surrogate pair are refused, and so are unknown fields.',
    '- **Failures** are `application/problem+json` (RFC 9457): [Problem](#problem), with a code of the',
    '  table below.',
    '- **Streams** come to who sends `Accept: text/event-stream`. The last event is `end`, and says why:',
    '  `ended`, `slow` (the client did not read), `stopping` (the daemon), `failed`.',
    '- **Limits**: 8 KiB and 64 headers, 2048 characters of address, one request at a time on a',
    '  connection, 5 s for headers, 10 s for a request, 60 s between two, 32 connections of one user.',
    '- **Browsers**: requests with `Origin` are refused.',
    '',
    '## Routes',
    '',
    ...(Object.entries(ROUTES) as [RouteName, Route][]).flatMap(([name, route]) =>
      section(name, route, documentOf(name)),
    ),
    '### GET /metrics',
    '',
    'Numbers for Prometheus. For root, and for users that `metrics.readers` of the configuration names.',
    '',
    '```sh daemon',
    `curl --unix-socket ${SOCKET} http://localhost/metrics`,
    '```',
    '',
    '## Errors',
    '',
    '| code | status | |',
    '|---|---|---|',
    ...errors,
    '',
    '`BPFTOKEN_REQUEST` has the status that says what is wrong with the request, such as 404 or 415.',
    '',
    '## Documents',
    '',
    ...Object.entries(DOCUMENT.components.schemas)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, schema]) => component(name, schema as Schema)),
  ]
    .join('\n')
    .trimEnd()
    .concat('\n')
}

const text = page()
if (!process.argv.includes('--check')) writeFileSync(FILE, text)
else if (readFileSync(FILE, 'utf8') !== text) {
  console.error('docs/api.md is not what the routes say: npx tsx scripts/gen-api-docs.ts')
  process.exitCode = 1
}
