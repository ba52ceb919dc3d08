/** The daemon from its start to its end: what it opens, when it is ready, how it stops. */
import type { Accounts } from '../delegation/subject.ts'
import type { Config } from './config.ts'
import { DEADLINES, HttpServer } from './http/server.ts'
import type { Log } from './log.ts'
import { type Gauges, LateMeter, type Meter } from './meter.ts'
import type { Options } from './options.ts'
import { Peer } from './peer.ts'
import type { Service } from './service.ts'
import { openToAll, prepareSocket } from './socket-file.ts'

/** How long what runs may take when the daemon is to stop. */
const GRACE_MS = 20_000
const STREAM_TIMES = { heartbeatMs: 15_000, slowMs: 10_000 }

/** What opens the service. */
export interface Given {
  readonly stateDirectory: string
  readonly policyDirectory: string
  readonly limits: Config['limits']
  readonly recover: boolean
  readonly version: string
  readonly log: Log
  readonly counters: Meter
}

export interface Opened {
  readonly service: Service
  readonly accounts: Accounts
  /** Of now; it costs nothing. */
  gauges(): Gauges
  /** Reads the policies again. */
  reload(): Promise<void>
  /** Nothing that is lent ends. */
  close(): Promise<void>
}

export interface Surroundings {
  readonly options: Options
  readonly config: Config
  readonly version: string
  readonly log: Log
  /** A socket that systemd listens on for us. */
  readonly socket: number | undefined
  readonly open: (given: Given) => Promise<Opened>
}

export class Daemon {
  readonly #log: Log
  readonly #opened: Opened
  readonly #server: HttpServer

  /** Returns when it answers. */
  static async start({ options, config, version, log, socket, open }: Surroundings): Promise<Daemon> {
    const meter = new LateMeter(async () => {
      const { Metrics } = await import('./metrics.ts')
      return new Metrics(
        version,
        () => opened.gauges(),
        () => server.connections,
      )
    })
    const opened = await open({
      stateDirectory: options.state,
      policyDirectory: options.policies,
      limits: config.limits,
      recover: options.recover,
      version,
      log,
      counters: meter,
    })
    const server = new HttpServer({
      service: opened.service,
      meter,
      metrics: async () => (await meter.loaded()).read(),
      version,
      streamTimes: STREAM_TIMES,
      metricsReaders: config.metricsReaders,
      checkAnswers: false,
      connections: config.connections,
      deadlines: DEADLINES,
      log,
      peerOf: connection => Peer.of(descriptorOf(connection), opened.accounts),
    })
    try {
      if (socket === undefined) {
        await prepareSocket(options.socket)
        await server.listen({ path: options.socket })
        openToAll(options.socket)
      } else await server.listen({ fd: socket })
    } catch (error) {
      await opened.close()
      throw error
    }
    return new Daemon(log, opened, server)
  }

  private constructor(log: Log, opened: Opened, server: HttpServer) {
    this.#log = log
    this.#opened = opened
    this.#server = server
  }

  /** Loads what the first request would wait for. */
  warm(): Promise<void> {
    return this.#server.warm()
  }

  async reload(): Promise<void> {
    await this.#opened.reload()
    this.#log.notice({}, 'the policies were read again')
  }

  async stop(): Promise<void> {
    await this.#server.stop(GRACE_MS)
    await this.#opened.close()
  }
}

/** Node tells it nowhere else. */
function descriptorOf(connection: object): number {
  const { _handle: handle } = connection as { _handle?: { fd?: number } | null }
  if (handle?.fd === undefined || handle.fd < 0) throw new TypeError('the connection has no descriptor')
  return handle.fd
}
