/**
 * The endpoints: one for each route of src/api/routes.ts, made in one loop, and the two that are
 * for tools. Loads zod.
 */
import { ROUTES, type Route, type RouteName } from '../../api/routes.ts'
import { BpftokenError, DeniedError, InternalError, RequestError, UnreachableError } from '../../errors.ts'
import { Turns } from '../../sys/turns.ts'
import type { Meter } from '../meter.ts'
import type { Answered, Call, Service } from '../service.ts'
import { accepted } from './accept.ts'
import { answer, answerJson, JSON_TYPE } from './answer.ts'
import type { Endpoint, Exchange, Outcome } from './exchange.ts'
import { hasBody, idempotencyKey } from './head.ts'
import { readJson } from './json.ts'
import { defect, problemOf } from './problem.ts'
import { STREAM_TYPE, type StreamEvent, type StreamTimes, writeStream } from './stream.ts'
import { Table } from './table.ts'
import { validated } from './validate.ts'

export interface EndpointOptions {
  readonly service: Service
  readonly meter: Meter
  /** The numbers, as Prometheus reads them. */
  readonly metrics: () => Promise<{ text: string; type: string }>
  readonly version: string
  readonly streamTimes: StreamTimes
  readonly stopping: () => boolean
  /** Users besides root that may read the numbers. */
  readonly metricsReaders: readonly number[]
  /** For tests: an answer that is not of its schema is a defect. */
  readonly checkAnswers: boolean
  /** Told of what nobody foresaw. */
  readonly defect: (route: RouteName, error: unknown) => void
}

/**
 * How many requests of one user are answered at one time; the others wait. So whoever asks by many
 * connections, and without end, delays itself, and others by no more than that.
 */
interface Lanes {
  /** What is answered from what the daemon knows. */
  readonly reads: Turns
  /** What is done, which can take its time, and must not hold up the rest. */
  readonly acts: Turns
}

const READS_AT_ONCE = 1
const ACTS_AT_ONCE = 4

export function endpoints(options: EndpointOptions): Table<Endpoint> {
  const table = new Table<Endpoint>()
  const lanes: Lanes = { reads: new Turns(READS_AT_ONCE), acts: new Turns(ACTS_AT_ONCE) }
  for (const [name, route] of Object.entries(ROUTES) as [RouteName, Route][])
    table.add(route.method, route.path, routeEndpoint(name, route, options, lanes))
  table.add('GET', '/openapi.json', openApiEndpoint(options))
  table.add('GET', '/metrics', metricsEndpoint(options))
  return table
}

type AnyHandler = (call: Call, request: object) => Promise<Answered<RouteName>>
type AnyStream = (call: Call, request: object) => AsyncIterable<object>

function routeEndpoint(name: RouteName, route: Route, options: EndpointOptions, lanes: Lanes): Endpoint {
  const { service } = options
  const types = route.stream === undefined ? [JSON_TYPE] : [JSON_TYPE, STREAM_TYPE]
  const handle = async (exchange: Exchange): Promise<Outcome> => {
    const { req, res, peer, signal } = exchange
    const type = accepted(req.headers.accept, types)
    if (route.root && !peer.isRoot) throw new DeniedError('this is for root alone')
    const key = idempotencyKey(req, route.idempotent === true)
    // It comes when it comes; what it says is looked at in turn.
    const bytes = await bodyFor(exchange, route)
    using turn = await turnIn(lanes, exchange, route, type)
    const request = validated(route, parts(exchange, route, bytes))
    const call: Call = { asker: peer, signal, idempotencyKey: key }
    if (type === STREAM_TYPE) return stream(name, exchange, call, request, options)
    const handler = service.handlers[name] as unknown as AnyHandler
    const { status, body } = await handler({ ...call, waits: () => turn?.end() }, request)
    if (options.checkAnswers) requireTrue(route, status, body)
    answerJson(res, status, body)
    return { status, facts: idsOf(body) }
  }
  return {
    name,
    acts: route.method === 'POST',
    answer: handle,
  }
}

interface Turn extends Disposable {
  /** Before it is disposed of. */
  end(): void
}

/** Undefined: it needs none. It is held until the answer is written, or will not be, or it waits. */
async function turnIn(
  { reads, acts }: Lanes,
  { owner, signal }: Exchange,
  route: Route,
  type: string,
): Promise<Turn | undefined> {
  // What streams holds up nobody.
  if (owner === undefined || type === STREAM_TYPE) return undefined
  let turn = await (route.method === 'GET' ? reads : acts).take(owner, signal)
  if (turn === undefined) throw new UnreachableError('the client has gone')
  const end = (): void => {
    const held = turn
    turn = undefined
    held?.[Symbol.dispose]()
  }
  return { end, [Symbol.dispose]: end }
}

/** Undefined: there is none. */
async function bodyFor({ req, body }: Exchange, route: Route): Promise<Uint8Array | undefined> {
  if (route.body !== undefined) return body()
  if (hasBody(req)) throw new RequestError(400, 'this route takes no body')
  return undefined
}

function parts(
  exchange: Exchange,
  route: Route,
  bytes: Uint8Array | undefined,
): Parameters<typeof validated>[1] {
  const query = resumed(exchange, route)
  const { params } = exchange
  if (route.body === undefined) return { params, query }
  return { params, query, body: bytes === undefined ? {} : readJson(bytes) }
}

/** Where a client goes on, as the header that browsers and libraries send by themselves says. */
function resumed({ req, query }: Exchange, { query: schema }: Route): Exchange['query'] {
  const last = req.headers['last-event-id'] as string | undefined
  if (last === undefined || schema?.shape['after'] === undefined) return query
  return { after: last, ...query }
}

async function stream(
  name: RouteName,
  { res, signal }: Exchange,
  call: Call,
  request: object,
  { service, streamTimes, stopping, defect: tell }: EndpointOptions,
): Promise<Outcome> {
  const open = service.streams[name as keyof Service['streams']] as unknown as AnyStream
  const failed = (error: unknown): object => {
    if (error instanceof BpftokenError) return problemOf(error)
    tell(name, error)
    return problemOf(defect(error))
  }
  const why = await writeStream(res, numbered(open(call, request)), streamTimes, signal, { failed, stopping })
  return { status: 200, facts: { end: why } }
}

/** Events that have a number of their own keep it, so that a client can go on behind the last. */
async function* numbered(events: AsyncIterable<object>): AsyncGenerator<StreamEvent> {
  let count = 0
  for await (const data of events) yield { id: 'seq' in data ? (data.seq as number) : ++count, data }
}

function requireTrue(route: Route, status: number, body: unknown): void {
  const parsed = route.answers[status]?.safeParse(body)
  if (parsed?.success !== true)
    throw new InternalError(`the answer, of status ${status}, is not as the table of routes says`, {
      cause: parsed?.error,
    })
}

/** Of an answer about a loan or a request, its id. */
function idsOf(body: unknown): Record<string, string> {
  const { id, loan, request } = body as { id?: unknown; loan?: { id?: unknown }; request?: { id?: unknown } }
  const ids = { id, loan: loan?.id, request: request?.id }
  return Object.fromEntries(Object.entries(ids).filter((one): one is [string, string] => isId(one[1])))
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && /^(loan|request)-\d+$/.test(value)
}

function openApiEndpoint({ version }: EndpointOptions): Endpoint {
  let text: string | undefined
  return {
    name: 'openapi',
    acts: false,
    async answer({ req, res }) {
      accepted(req.headers.accept, [JSON_TYPE])
      if (text === undefined) {
        const { openApiDocument } = await import('./openapi.ts')
        text = JSON.stringify(openApiDocument(version))
      }
      answer(res, 200, JSON_TYPE, text)
      return { status: 200 }
    },
  }
}

function metricsEndpoint({ metrics, metricsReaders }: EndpointOptions): Endpoint {
  return {
    name: 'metrics',
    acts: false,
    async answer({ res, peer }) {
      if (!peer.isRoot && !metricsReaders.includes(peer.uid))
        throw new DeniedError('the numbers are for root, and for whom the configuration names', {
          hint: 'Name the user in metrics.readers of the configuration',
        })
      const { text, type } = await metrics()
      answer(res, 200, type, text)
      return { status: 200 }
    },
  }
}
