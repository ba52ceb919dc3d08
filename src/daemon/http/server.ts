/**
 * The daemon's HTTP server: Node's own, on a Unix socket, with limits for all that a client can
 * make long, many or slow. Its timers are not Node's, which fire also when nobody is there: see
 * connections.ts.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { BpftokenError, RequestError, UnreachableError } from '../../errors.ts'
import type { Log } from '../../service/log.ts'
import type { MeteredRoute } from '../meter.ts'
import { answerProblem, refuse } from './answer.ts'
import { readBody } from './body.ts'
import {
  type Connection,
  type ConnectionLimits,
  Connections,
  type Deadlines,
  type Peer,
} from './connections.ts'
import type { EndpointOptions } from './endpoints.ts'
import type { Endpoint, Outcome } from './exchange.ts'
import { hasBody, readTarget, requireJson } from './head.ts'
import { defect } from './problem.ts'
import type { Table } from './table.ts'

const MAX_HEADER_BYTES = 8 * 1024
/** Node wants a time between two looks at its own deadlines, of which none is set. */
const NEVER_MS = 2 ** 31 - 1

export interface HttpOptions extends Omit<EndpointOptions, 'stopping' | 'defect'> {
  /**
   * Who the peer of a connection is, before a byte of it is read. Throws a coded error: it is
   * nobody who may ask. The server disposes of it when the connection is closed.
   */
  readonly peerOf: (socket: Socket) => Peer
  readonly connections: ConnectionLimits
  readonly deadlines: Deadlines
  readonly log: Log
}

export const DEADLINES: Deadlines = { headersMs: 5_000, requestMs: 10_000, idleMs: 60_000, answerMs: 10_000 }

interface Running {
  readonly done: Promise<void>
  readonly abort: AbortController
  /** It only waits, or streams: nothing is lost when it ends. */
  readonly reads: boolean
}

export class HttpServer {
  readonly #options: HttpOptions
  readonly #server: Server
  readonly #connections: Connections
  readonly #running = new Set<Running>()
  #table: Promise<Table<Endpoint>> | undefined
  #stopping = false

  constructor(options: HttpOptions) {
    this.#options = options
    this.#connections = new Connections(options.connections, options.deadlines, refuse)
    this.#server = createServer({
      insecureHTTPParser: false,
      requireHostHeader: true,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: 0,
      requestTimeout: 0,
      keepAliveTimeout: 0,
      connectionsCheckingInterval: NEVER_MS,
    })
    // All are counted by us; Node would leave some out, and say nothing.
    this.#server.maxHeadersCount = 0
    this.#server.on('connection', socket => this.#connected(socket))
    this.#server.on('request', (req, res) => this.#asked(req, res))
    this.#server.on('checkContinue', (req, res) => this.#asked(req, res, true))
    this.#server.on('checkExpectation', (req, res) =>
      this.#asked(req, res, false, new RequestError(417, 'the daemon expects nothing but 100-continue')),
    )
    this.#server.on('clientError', (error, socket) => this.#malformed(error, socket as Socket))
  }

  get connections(): number {
    return this.#connections.size
  }

  /** Takes connections; a descriptor is one that listens already. */
  listen(place: { readonly path: string } | { readonly fd: number }): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen({ ...place, exclusive: true }, () => {
        this.#server.off('error', reject)
        this.#server.on('error', error => this.#options.log.error({ error }, 'the socket failed'))
        resolve()
      })
    })
  }

  /** Loads what requests need, so that the first does not wait for it. */
  async warm(): Promise<void> {
    await this.#endpoints()
  }

  /**
   * Takes no more connections and requests. What waits or streams ends at once; what acts is waited
   * for, up to the time that is given, and then is told by its signal.
   */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    for (const { socket, inFlight } of this.#connections.all) if (inFlight === 0) socket.destroy()
    for (const { abort, reads } of this.#running) if (reads) abort.abort()
    const timer = setTimeout(() => {
      for (const { abort } of this.#running) abort.abort()
      for (const { socket } of this.#connections.all) socket.destroy()
    }, graceMs)
    await Promise.all([...this.#running].map(({ done }) => done))
    for (const { socket } of this.#connections.all) socket.destroySoon()
    await closed
    await this.#connections.allClosed()
    clearTimeout(timer)
    this.#connections.close()
  }

  #connected(socket: Socket): void {
    socket.on('error', () => socket.destroy())
    try {
      this.#connections.open(socket, this.#options.peerOf(socket))
    } catch (error) {
      this.#options.log.debug({ error }, 'a connection was refused')
      refuse(socket, error instanceof BpftokenError ? error : this.#defect('none', error))
    }
  }

  /** Of what the parser refused there is no request to answer to. */
  #malformed(error: NodeJS.ErrnoException, socket: Socket): void {
    const connection = this.#connections.of(socket)
    if (connection === undefined || error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    const wrong =
      error.code === 'HPE_HEADER_OVERFLOW'
        ? new RequestError(431, `the headers have more than ${MAX_HEADER_BYTES} bytes`)
        : new RequestError(
            400,
            `this is not HTTP/1.1: ${(error as { reason?: string }).reason ?? error.code}`,
          )
    if (connection.expects === 'body') connection.failBody(wrong)
    else if (connection.inFlight > 0) connection.last = true
    else refuse(socket, wrong)
  }

  #asked(req: IncomingMessage, res: ServerResponse, continues = false, wrong?: BpftokenError): void {
    const { socket } = req
    const connection = this.#connections.of(socket)
    // One that was refused; or one that goes on asking while it is told not to.
    if (connection === undefined || connection.inFlight > 1) {
      socket.destroy()
      return
    }
    // Of an answer that has ended we may hear later than the client that all of it was taken.
    const early = connection.answer !== undefined && !connection.answer.writableEnded
    connection.answer = res
    connection.inFlight++
    const abort = new AbortController()
    res.once('close', () => {
      connection.inFlight--
      if (!res.writableFinished) abort.abort()
      if (connection.inFlight > 0 || socket.destroyed) return
      if (connection.last) socket.destroySoon()
      else this.#connections.answered(connection)
    })
    const refused = early
      ? new RequestError(400, 'a request came before the answer to the one before it')
      : wrong
    const done = this.#serve(req, res, connection, abort.signal, continues, refused)
    const running = { done, abort, reads: req.method === 'GET' }
    this.#running.add(running)
    void done.finally(() => {
      this.#running.delete(running)
      if (!res.writableFinished) this.#connections.written(connection)
    })
  }

  /** Answers, whatever happens. */
  async #serve(
    req: IncomingMessage,
    res: ServerResponse,
    connection: Connection,
    signal: AbortSignal,
    continues: boolean,
    wrong: BpftokenError | undefined,
  ): Promise<void> {
    const began = performance.now()
    let endpoint: Endpoint | undefined
    let outcome: Outcome = { status: 0 }
    try {
      this.#connections.heard(connection, hasBody(req))
      if (wrong !== undefined) throw wrong
      if (this.#stopping) throw new UnreachableError('the daemon stops')
      const { path, query } = readTarget(req)
      const match = (await this.#endpoints()).match(req.method ?? '', path)
      endpoint = match.endpoint
      const body = async (): Promise<Uint8Array | undefined> => {
        if (!hasBody(req)) return undefined
        requireJson(req)
        if (continues) res.writeContinue()
        return readBody(req, connection, this.#connections)
      }
      const { peer, owner } = connection
      outcome = await endpoint.answer({ req, res, query, params: match.params, peer, owner, signal, body })
    } catch (error) {
      outcome = this.#fail(req, res, error, endpoint?.name ?? 'none')
    }
    this.#told(endpoint, outcome, connection.peer.uid, (performance.now() - began) / 1000)
  }

  #fail(req: IncomingMessage, res: ServerResponse, error: unknown, route: MeteredRoute): Outcome {
    const known = error instanceof BpftokenError ? error : this.#defect(route, error)
    if (res.headersSent || res.destroyed) {
      res.destroy()
      return { status: 0, facts: { code: known.code } }
    }
    // What comes next could be the rest of this body, and would be read as a request.
    if (!req.complete || known instanceof RequestError) res.setHeader('Connection', 'close')
    return { status: answerProblem(res, known), facts: { code: known.code } }
  }

  #defect(route: MeteredRoute, error: unknown): BpftokenError {
    this.#options.log.error({ route, error }, 'a defect of the daemon')
    return defect(error)
  }

  #told(endpoint: Endpoint | undefined, { status, facts }: Outcome, uid: number, seconds: number): void {
    const route = endpoint?.name ?? 'none'
    const { log, meter } = this.#options
    meter.request(route, status, seconds)
    // What is refused anybody can have as often as they like.
    const level = endpoint?.acts === true && (status < 400 || status >= 500) ? 'info' : 'debug'
    if (log.wants(level))
      log[level]({ route, status, uid, ms: Math.round(seconds * 1e5) / 100, ...facts }, `${route} ${status}`)
  }

  #endpoints(): Promise<Table<Endpoint>> {
    this.#table ??= import('./endpoints.ts').then(({ endpoints }) =>
      endpoints({
        ...this.#options,
        stopping: () => this.#stopping,
        defect: (route, error) => void this.#defect(route, error),
      }),
    )
    return this.#table
  }
}
