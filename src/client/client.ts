/**
 * The daemon's client: one method for each route, typed by the table of routes, over its Unix
 * socket. Failures are the coded errors that the libraries throw themselves.
 */
import { randomUUID } from 'node:crypto'
import type { Agent, IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RouteAnswer, RouteEvent, RouteInput, RouteName } from '../api/routes.ts'
import { BpftokenError, FormatError, TimeoutError, UnreachableError } from '../errors.ts'
import { eventsIn } from './event-stream.ts'
import { BrokenError, bodyOf, failureOf, send } from './exchange.ts'
import { KEYED, PATHS, type StreamName } from './paths.ts'
import { errorFromProblem } from './problem.ts'

/** Where the daemon listens unless it is told otherwise. */
export const DEFAULT_SOCKET = '/run/bpftoken/bpftokend.sock'

export type { RouteAnswer, RouteEvent, RouteName } from '../api/routes.ts'
/** What the daemon knows of a loan; see docs/daemon.md. */
export type Loan = RouteAnswer<'showLoan'>
/** Something that was asked for, and that somebody must approve. */
export type LoanRequest = RouteAnswer<'showRequest'>

const FIRST_DELAY_MS = 50
const MAX_DELAY_MS = 2000
/** Of what is no document of ours. */
const SHOWN_CHARS = 200

export interface ClientOptions {
  /** Path of the Unix socket. */
  readonly socket?: string | undefined
  /** For each call, the time until all of its answer is there. Default: 60 seconds. */
  readonly timeoutMs?: number | undefined
  /** No answer, and no event of a stream, is longer. Default: 64 MiB. */
  readonly maxAnswerBytes?: number | undefined
  /** How long a stream tries to find the daemon again. Default: 60 seconds. */
  readonly patienceMs?: number | undefined
}

export interface CallOptions {
  /** Ends the call, which then throws the signal's reason. What was asked for may be done. */
  readonly signal?: AbortSignal | undefined
  /** Instead of the client's own. */
  readonly timeoutMs?: number | undefined
  /**
   * For `lend` and `derive`: the same key asks for the same loan, also from another process.
   * Default: a new one for each call, which is repeated with it if the connection breaks.
   */
  readonly idempotencyKey?: string | undefined
}

type Query<Q> = { readonly [K in keyof Q]?: Q[K] | number | undefined }

/** What a call of a route takes: `params`, `query`, `body`. */
export type CallInput<N extends RouteName> = Omit<RouteInput<N>, 'query'> &
  (RouteInput<N> extends { readonly query: infer Q } ? { readonly query?: Query<Q> } : unknown)

/** Asks for a route. */
export type Call<N extends RouteName> =
  Record<never, never> extends CallInput<N>
    ? (input?: CallInput<N>, options?: CallOptions) => Promise<RouteAnswer<N>>
    : (input: CallInput<N>, options?: CallOptions) => Promise<RouteAnswer<N>>

/** The same, whatever the route. */
interface AnyInput {
  readonly params?: Readonly<Record<string, unknown>>
  readonly query?: Readonly<Record<string, unknown>>
  readonly body?: unknown
}

/**
 * Connections are kept for the calls to come, and do not keep the process alive. The daemon knows
 * who asks by its connection: a client is of one process, and of one user.
 *
 * Of all calls: UnreachableError: nobody answers, or not to the end; TimeoutError; FormatError:
 * what answers is no daemon of ours; BusyError: ask again later; DeniedError; and what the route
 * has to say, see src/errors.ts.
 */
export class Client implements Disposable {
  readonly socket: string
  readonly #timeoutMs: number
  readonly #maxAnswerBytes: number
  readonly #patienceMs: number
  #agent: Agent | undefined

  /** How the daemon is. */
  readonly status: Call<'status'> = this.#call('status')
  /** The policies that we may have; for root all. */
  readonly listPolicies: Call<'listPolicies'> = this.#call('listPolicies')
  readonly showPolicy: Call<'showPolicy'> = this.#call('showPolicy')
  /** Root alone. */
  readonly reload: Call<'reload'> = this.#call('reload')
  /** Whether we would get a delegation, and why; nothing is done. */
  readonly decide: Call<'decide'> = this.#call('decide')
  /** A loan, a request that waits to be approved, or with `dryRun` what would be done. */
  readonly lend: Call<'lend'> = this.#call('lend')
  readonly listLoans: Call<'listLoans'> = this.#call('listLoans')
  readonly showLoan: Call<'showLoan'> = this.#call('showLoan')
  readonly derive: Call<'derive'> = this.#call('derive')
  readonly renew: Call<'renew'> = this.#call('renew')
  readonly revoke: Call<'revoke'> = this.#call('revoke')
  readonly listRequests: Call<'listRequests'> = this.#call('listRequests')
  /** With `query.wait`, in seconds, the answer comes once it is decided, or then. */
  readonly showRequest: Call<'showRequest'> = this.#call('showRequest')
  /** Root alone. */
  readonly approve: Call<'approve'> = this.#call('approve')
  /** Root alone. */
  readonly deny: Call<'deny'> = this.#call('deny')
  readonly withdraw: Call<'withdraw'> = this.#call('withdraw')
  readonly events: Call<'events'> = this.#call('events')
  /** Root alone. */
  readonly audit: Call<'audit'> = this.#call('audit')
  /** Root alone. */
  readonly verifyAudit: Call<'verifyAudit'> = this.#call('verifyAudit')
  /** Root alone: as the hook of a runtime that is about to start a container. */
  readonly ociHook: Call<'ociHook'> = this.#call('ociHook')
  /** Root alone: for a plugin of a runtime. */
  readonly announceContainers: Call<'announceContainers'> = this.#call('announceContainers')
  /** Root alone. */
  readonly listContainers: Call<'listContainers'> = this.#call('listContainers')

  constructor({ socket, timeoutMs, maxAnswerBytes, patienceMs }: ClientOptions = {}) {
    this.socket = socket ?? DEFAULT_SOCKET
    this.#timeoutMs = timeoutMs ?? 60_000
    this.#maxAnswerBytes = maxAnswerBytes ?? 64 * 2 ** 20
    this.#patienceMs = patienceMs ?? 60_000
  }

  /** Whether somebody listens. It says nothing of whether they answer. */
  async isReachable(): Promise<boolean> {
    const { connect } = await import('node:net')
    return new Promise(resolve => {
      const connection = connect(this.socket)
      connection.once('error', () => resolve(false))
      connection.once('connect', () => {
        connection.destroy()
        resolve(true)
      })
    })
  }

  /**
   * What `events` has and will have, or the list of loans or of requests whenever it changes. Where
   * the daemon goes away, it is asked again from where it was, for as long as `patienceMs`. Ends
   * when the signal is aborted. Errors are those of a call.
   */
  async *follow<N extends StreamName>(
    name: N,
    input: CallInput<N>,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<RouteEvent<N>, void, undefined> {
    let { query = {} } = input as AnyInput
    /** When it was last open; undefined: it never was, and who does not answer at all is told. */
    let seen: number | undefined
    let delayMs = FIRST_DELAY_MS
    const opened = (): void => {
      seen = performance.now()
    }
    while (!signal.aborted) {
      try {
        for await (const event of this.#stream(name, { ...input, query }, { signal, opened })) {
          opened()
          delayMs = FIRST_DELAY_MS
          const { seq } = event as { seq?: number }
          if (seq !== undefined) query = { ...query, after: seq }
          yield event
          // What has come already is not told any more.
          if (signal.aborted) return
        }
      } catch (error) {
        if (signal.aborted) return
        const mayReturn = seen !== undefined && performance.now() - seen < this.#patienceMs
        if (!(error instanceof UnreachableError) || !mayReturn) throw error
      }
      // A daemon that starts anew, or ends the stream to stop.
      await sleep(delayMs, undefined, { signal }).catch(() => {})
      delayMs = Math.min(2 * delayMs, MAX_DELAY_MS)
    }
  }

  /** Ends all its connections. */
  close(): void {
    this.#agent?.destroy()
    this.#agent = undefined
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #call<N extends RouteName>(name: N): Call<N> {
    const call = (input: AnyInput = {}, options: CallOptions = {}) => this.#ask(name, input, options)
    return call as Call<N>
  }

  async #ask(name: RouteName, input: AnyInput, options: CallOptions): Promise<unknown> {
    const timeout = AbortSignal.timeout(options.timeoutMs ?? this.#timeoutMs)
    const signal = options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal])
    const asked = requestOf(name, input, options.idempotencyKey)
    const once = () => this.#exchange(asked, signal)
    try {
      return await once().catch(error => {
        if (asked.repeatable && error instanceof BrokenError) return once()
        throw error
      })
    } catch (error) {
      if (!timeout.aborted || options.signal?.aborted === true) throw error
      throw new TimeoutError(`The daemon at ${this.socket} did not answer in time`, {
        context: { socket: this.socket, route: name },
      })
    }
  }

  async #exchange(asked: Request, signal: AbortSignal): Promise<unknown> {
    const agent = asked.repeatable ? await this.#keptAgent() : undefined
    const answer = await send(this.socket, asked, { agent, signal })
    return this.#document(answer, signal)
  }

  /** The document of an answer. Throws the error that it is. */
  async #document(answer: IncomingMessage, signal: AbortSignal): Promise<unknown> {
    const { statusCode = 0 } = answer
    const text = await bodyOf(answer, this.socket, { maxBytes: this.#maxAnswerBytes, signal })
    const succeeded = statusCode >= 200 && statusCode < 300
    const document = parsed(text)
    if (!succeeded) throw errorFromProblem(document ?? { detail: text.slice(0, SHOWN_CHARS) }, statusCode)
    if (typeof document !== 'object' || document === null)
      throw new FormatError('answer', 'it is no JSON document', { context: { socket: this.socket } })
    return document
  }

  async *#stream<N extends StreamName>(
    name: N,
    input: AnyInput,
    { signal, opened }: { signal: AbortSignal; opened: () => void },
  ): AsyncGenerator<RouteEvent<N>, void, undefined> {
    const asked = requestOf(name, input)
    const headers = { ...asked.headers, accept: 'text/event-stream' }
    const answer = await send(this.socket, { ...asked, headers }, { agent: undefined, signal })
    if (answer.statusCode !== 200) await this.#document(answer, signal)
    if (!/^text\/event-stream\b/.test(answer.headers['content-type'] ?? '')) {
      answer.destroy()
      throw new FormatError('answer', 'it is no stream of events', { context: { socket: this.socket } })
    }
    opened()
    try {
      for await (const { event, data } of eventsIn(answer, this.#maxAnswerBytes)) {
        const document = parsed(data)
        if (typeof document !== 'object' || document === null)
          throw new FormatError('event', 'it is no JSON document', { context: { socket: this.socket } })
        if (event === 'end') {
          // Without a problem it can be asked again from where it was.
          if ('problem' in document) throw errorFromProblem(document.problem, 500)
          return
        }
        yield document as RouteEvent<N>
      }
    } catch (error) {
      throw error instanceof BpftokenError ? error : failureOf(error, this.socket)
    } finally {
      answer.destroy()
    }
  }

  async #keptAgent(): Promise<Agent> {
    const { Agent } = await import('node:http')
    this.#agent ??= new Agent({ keepAlive: true, maxFreeSockets: 4 })
    return this.#agent
  }
}

interface Request {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  /**
   * To ask twice is to ask once. What is not goes over a connection of its own: a kept one may be
   * closed by the other side just as it is used, and nobody could tell whether it was heard.
   */
  readonly repeatable: boolean
}

function requestOf(name: RouteName, { params, query, body }: AnyInput, key?: string): Request {
  const [method, template] = PATHS[name].split(' ') as [string, string]
  const path = template.replace(/\{(\w+)\}/g, (_, param: string) =>
    encodeURIComponent(String(params?.[param] ?? '')),
  )
  const search = new URLSearchParams()
  for (const [field, value] of Object.entries(query ?? {}))
    if (value !== undefined) search.set(field, String(value))
  const keyed = Object.hasOwn(KEYED, name)
  return {
    method,
    path: search.size === 0 ? path : `${path}?${search}`,
    headers: {
      accept: 'application/json, application/problem+json',
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(keyed ? { 'idempotency-key': key ?? randomUUID() } : {}),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    repeatable: method === 'GET' || keyed,
  }
}

/** Undefined: it is none. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
