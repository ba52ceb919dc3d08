/** The daemon from its start to its end: when it answers, what makes it read anew, how it stops. */
import { type FSWatcher, watch } from 'node:fs'
import type { Log } from '../service/log.ts'
import { descriptorOf } from '../sys/peer.ts'
import type { Config } from './config.ts'
import { DEADLINES, HttpServer } from './http/server.ts'
import { LateMeter } from './meter.ts'
import { type OpenedService, openService } from './open-service.ts'
import type { Options } from './options.ts'
import { Peer } from './peer.ts'
import { openToAll, prepareSocket } from './socket-file.ts'

/** How long what runs may take when the daemon is to stop. */
const GRACE_MS = 20_000
const STREAM_TIMES = { heartbeatMs: 15_000, slowMs: 10_000 }
/** Editors write a file in several steps. */
const GATHER_MS = 300

export interface Surroundings {
  readonly options: Options
  readonly config: Config
  readonly version: string
  readonly log: Log
  /** A socket that the service manager listens on for us, by its descriptor. */
  readonly socket: number | undefined
  /** Told how it is, in a line for people, when it starts and when policies were read. */
  readonly tell: (status: string) => void
}

export class Daemon {
  readonly #log: Log
  readonly #opened: OpenedService
  readonly #server: HttpServer
  readonly #watcher: FSWatcher | undefined
  #gathering: NodeJS.Timeout | undefined

  /** Returns when it answers. */
  static async start({ options, config, version, log, socket, tell }: Surroundings): Promise<Daemon> {
    const meter = new LateMeter(async () => {
      const { Metrics } = await import('./metrics.ts')
      return new Metrics(
        version,
        () => opened.service.gauges(),
        () => server.connections,
      )
    })
    const opened = await openService({
      stateDirectory: options.state,
      policyDirectory: options.policies,
      launcher: options.launcher,
      limits: config.limits,
      auditToJournal: config.auditToJournal,
      recover: options.recover,
      version,
      log,
      counters: meter,
      policiesRead: ({ loaded, faults }) => tell(statusOf(loaded, faults.length)),
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
      peerOf: connection => Peer.of(descriptorOf(connection), opened.names.accounts),
    })
    try {
      if (socket !== undefined) await server.listen({ fd: socket })
      else {
        if (!(await prepareSocket(options.socket)))
          log.warn({ socket: options.socket }, 'others than root cannot reach the socket in its directory')
        await server.listen({ path: options.socket })
        openToAll(options.socket)
      }
    } catch (error) {
      await opened.close()
      throw error
    }
    return new Daemon(log, opened, server, options.policies)
  }

  private constructor(log: Log, opened: OpenedService, server: HttpServer, policies: string) {
    this.#log = log
    this.#opened = opened
    this.#server = server
    this.#watcher = this.#watch(policies)
  }

  /**
   * Loads what the first request would wait for; and of what is loaded only when it is needed all that
   * lends and takes back: should the package be replaced while this runs, these are of one version.
   * What reads policies was loaded with the first of them.
   */
  async warm(): Promise<void> {
    await this.#server.warm()
    await Promise.all([
      import('../delegation/token-support.ts'),
      import('../delegation/vocabulary.ts'),
      import('../guard/detach.ts'),
      import('../guard/guard.ts'),
      import('../guard/inventory.ts'),
    ])
  }

  get isHealthy(): boolean {
    return this.#opened.service.isHealthy()
  }

  /** Policies alone: limits are read when it starts. */
  async reload(): Promise<void> {
    try {
      await this.#opened.service.reload()
      const { policyFaults } = this.#opened.service.gauges()
      this.#log.notice({ policyFaults }, 'the policies were read again')
    } catch (error) {
      this.#log.error({ error }, 'the policies could not be read again')
    }
  }

  async stop(): Promise<void> {
    this.#watcher?.close()
    clearTimeout(this.#gathering)
    await this.#server.stop(GRACE_MS)
    await this.#opened.close()
  }

  /** A directory that is made later is found by SIGHUP, or by POST /v1/reload. */
  #watch(directory: string): FSWatcher | undefined {
    try {
      const watcher = watch(directory, { persistent: false }, () => {
        clearTimeout(this.#gathering)
        this.#gathering = setTimeout(() => void this.reload(), GATHER_MS).unref()
      })
      watcher.on('error', error => this.#log.warn({ error }, 'changes of policies are not seen any more'))
      return watcher
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      this.#log.info({ code, directory }, 'changes of policies are seen when they are read again')
      return undefined
    }
  }
}

/** Pure: for `systemctl status`. */
export function statusOf(policies: number, faults: number): string {
  const under = `Answering, with ${policies} ${policies === 1 ? 'policy' : 'policies'}`
  if (faults === 0) return under
  return `${under}. ${faults} ${faults === 1 ? 'file has a fault' : 'files have faults'}, see its status`
}
