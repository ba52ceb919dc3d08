/**
 * The connections: whose they are, how many there may be, and how long each may take to ask. One
 * timer looks after all of them, and runs only while one of them is expected to say something: a
 * daemon that nobody asks sleeps.
 */
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { BusyError, RequestError } from '../../errors.ts'
import type { Asker } from '../asker.ts'

export type Peer = Asker & Disposable

export interface ConnectionLimits {
  /** Of one user, by `Asker.owner`; root has as many as it likes. */
  readonly perUid: number
  /** Of all users but root, which comes in whatever the others do. */
  readonly inAll: number
}

export interface Deadlines {
  /** From the first byte of a request, or the connection's beginning, until its headers are there. */
  readonly headersMs: number
  /** From the same moment, until its body is there. */
  readonly requestMs: number
  /** Between two requests. */
  readonly idleMs: number
  /** How long a client may take nothing of an answer that is there. */
  readonly answerMs: number
}

const SWEEP_MS = 1000

export class Connection {
  readonly socket: Socket
  readonly peer: Peer
  /** Headers: of the next request. Body: of the one that runs. Answer: nothing is expected. */
  expects: 'headers' | 'body' | 'answer' = 'headers'
  /** Since when it expects that. */
  since: number
  /** Whether it has said something of the next request, or is to say it by now. */
  begun = true
  /** Whose share it takes; undefined: nobody's, or no more. */
  owner: string | undefined
  inFlight = 0
  /** To the newest request. */
  answer: ServerResponse | undefined
  /** What waited for the client to take it when that last changed, and when that was. */
  untaken = 0
  untakenSince: number
  /** It is closed when what runs is answered: what came behind it was no request. */
  last = false
  bytesSeen = 0
  /** What is told of a body that does not come, or is none. */
  #onBodyFailure: ((error: RequestError) => void) | undefined
  #bodyFailure: RequestError | undefined

  constructor(socket: Socket, peer: Peer, owner: string | undefined, now: number) {
    this.socket = socket
    this.owner = owner
    this.untakenSince = now
    this.peer = peer
    this.since = now
  }

  /** Also of one that nobody reads yet. */
  failBody(error: RequestError): void {
    this.#bodyFailure ??= error
    this.#onBodyFailure?.(this.#bodyFailure)
  }

  readsNoBody(): void {
    this.#onBodyFailure = undefined
    this.#bodyFailure = undefined
  }

  /** `failed` is called at once when it has failed already. */
  readsBody(failed: (error: RequestError) => void): void {
    this.#onBodyFailure = failed
    if (this.#bodyFailure !== undefined) failed(this.#bodyFailure)
  }
}

export class Connections {
  readonly #limits: ConnectionLimits
  readonly #deadlines: Deadlines
  readonly #all = new Map<Socket, Connection>()
  readonly #byOwner = new Map<string, number>()
  readonly #refuse: (socket: Socket, error: RequestError) => void
  #counted = 0
  #sweep: NodeJS.Timeout | undefined

  /** `refuse` tells a client that is too slow, and closes. */
  constructor(
    limits: ConnectionLimits,
    deadlines: Deadlines,
    refuse: (socket: Socket, error: RequestError) => void,
  ) {
    this.#limits = limits
    this.#deadlines = deadlines
    this.#refuse = refuse
  }

  get size(): number {
    return this.#all.size
  }

  get all(): Iterable<Connection> {
    return this.#all.values()
  }

  of(socket: Socket): Connection | undefined {
    return this.#all.get(socket)
  }

  /**
   * Takes the connection, and its peer with it. Where there is no room, the oldest connection of who
   * has most is ended for who has fewer. BusyError: there are too many.
   */
  open(socket: Socket, peer: Peer): void {
    let owner: string | undefined
    try {
      owner = peer.isRoot ? undefined : peer.owner
      if (owner !== undefined) this.#makeRoom(owner)
    } catch (error) {
      peer[Symbol.dispose]()
      throw error
    }
    const connection = new Connection(socket, peer, owner, performance.now())
    if (owner !== undefined) this.#count(owner, 1)
    this.#all.set(socket, connection)
    socket.once('close', () => {
      this.#all.delete(socket)
      this.#uncount(connection)
      peer[Symbol.dispose]()
    })
    this.#watch()
  }

  #uncount(connection: Connection): void {
    if (connection.owner !== undefined) this.#count(connection.owner, -1)
    connection.owner = undefined
  }

  #count(owner: string, more: number): void {
    this.#counted += more
    const count = (this.#byOwner.get(owner) ?? 0) + more
    if (count === 0) this.#byOwner.delete(owner)
    else this.#byOwner.set(owner, count)
  }

  #makeRoom(owner: string): void {
    const { perUid, inAll } = this.#limits
    const own = this.#byOwner.get(owner) ?? 0
    if (own >= perUid)
      throw new BusyError(`${owner} has ${perUid} connections to the daemon, which is all that it may`)
    if (this.#counted < inAll) return
    const [greediest, most] = [...this.#byOwner].reduce((a, b) => (b[1] > a[1] ? b : a))
    if (most <= own + 1)
      throw new BusyError(`the daemon has ${inAll} connections, which is all that it takes`)
    for (const connection of this.#all.values()) {
      if (connection.owner !== greediest) continue
      this.#uncount(connection)
      connection.socket.destroy()
      return
    }
  }

  /** The headers of a request are there. */
  heard(connection: Connection, hasBody: boolean): void {
    connection.expects = hasBody ? 'body' : 'answer'
  }

  bodyRead(connection: Connection): void {
    connection.expects = 'answer'
    connection.readsNoBody()
  }

  answered(connection: Connection): void {
    connection.expects = 'headers'
    connection.since = performance.now()
    connection.begun = false
    connection.bytesSeen = connection.socket.bytesRead
    this.#watch()
  }

  #watch(): void {
    this.#sweep ??= setInterval(() => this.#look(performance.now()), SWEEP_MS).unref()
  }

  /** Ends those that are late. */
  #look(now: number): void {
    let expecting = false
    for (const connection of this.#all.values()) {
      if (connection.socket.writableLength > 0) {
        expecting = true
        if (this.#isStuck(connection, now)) connection.socket.destroy()
      }
      if (connection.expects === 'answer') continue
      expecting = true
      this.#lookAt(connection, now)
    }
    if (expecting) return
    clearInterval(this.#sweep)
    this.#sweep = undefined
  }

  /** An answer is there, which the client need not have taken yet. */
  written(connection: Connection): void {
    connection.untaken = 0
    connection.untakenSince = performance.now()
    this.#watch()
  }

  #isStuck(connection: Connection, now: number): boolean {
    const untaken = connection.socket.writableLength + queued(connection.socket)
    if (untaken === connection.untaken) return now - connection.untakenSince > this.#deadlines.answerMs
    connection.untaken = untaken
    connection.untakenSince = now
    return false
  }

  #lookAt(connection: Connection, now: number): void {
    const { socket } = connection
    if (!connection.begun && socket.bytesRead !== connection.bytesSeen) {
      connection.begun = true
      connection.since = now
    }
    const { headersMs, requestMs, idleMs } = this.#deadlines
    const took = now - connection.since
    if (connection.expects === 'body') {
      if (took > requestMs) connection.failBody(late('request', requestMs))
    } else if (!connection.begun) {
      if (took > idleMs) socket.destroy()
    } else if (took > headersMs) {
      if (socket.bytesRead === connection.bytesSeen) socket.destroy()
      else this.#refuse(socket, late('headers', headersMs))
    }
  }

  /** Once each peer has been disposed of, which is later than Node's server says. */
  async allClosed(): Promise<void> {
    await Promise.all([...this.#all.keys()].map(socket => once(socket, 'close')))
  }

  close(): void {
    clearInterval(this.#sweep)
    this.#sweep = undefined
  }
}

/** Of what Node has given to the kernel's side, the bytes that it has not taken. */
function queued(socket: Socket): number {
  return (socket as { _handle?: { writeQueueSize?: number } | null })._handle?.writeQueueSize ?? 0
}

function late(what: string, ms: number): RequestError {
  return new RequestError(408, `the ${what} did not come within ${ms / 1000} s`)
}
