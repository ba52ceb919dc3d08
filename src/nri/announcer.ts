/**
 * Keeps the daemon told of the containers: at once where a container waits for it, else soon. One
 * request runs at a time, so that none overtakes another. Where the daemon does not answer, or is
 * another one than before, it is told of all when it does.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from '../client/client.ts'
import { TimeoutError } from '../errors.ts'
import type { Inventory } from './inventory.ts'

export type Daemon = Pick<Client, 'announceContainers' | 'status'>

/** What becomes known of the daemon, for the log. */
export interface Told {
  /** It was told of all containers. */
  all(count: number): void
  /** It does not answer, or says no; once until it answers again. */
  not(error: Error): void
}

/** For what nobody waits for. */
const REQUEST_MS = 5000
const SOON_MS = 50
const FIRST_DELAY_MS = 100
const MAX_DELAY_MS = 5000
/** How long another daemon may be there before it is noticed. */
const LOOK_MS = 5000

export class Announcer implements AsyncDisposable {
  readonly #inventory: Inventory
  readonly #daemon: Daemon
  readonly #told: Told
  readonly #ending = new AbortController()
  #running: Promise<void> = Promise.resolve()
  /** Which daemon was told. */
  #startedAt: string | undefined
  #fails = false
  #later: Promise<void> | undefined
  readonly #looking: Promise<void>

  constructor(inventory: Inventory, daemon: Daemon, told: Told, lookMs = LOOK_MS) {
    this.#inventory = inventory
    this.#daemon = daemon
    this.#told = told
    this.#looking = this.#look(lookMs)
  }

  /**
   * The daemon knows all of it when this returns. Throws its error, or a TimeoutError; then it will
   * be told when it can be.
   */
  async now(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new TimeoutError(`The daemon did not answer within ${timeoutMs} ms`)),
        timeoutMs,
      )
    })
    try {
      await Promise.race([this.#inTurn(() => Math.max(1, Math.ceil(deadline - performance.now()))), late])
    } finally {
      clearTimeout(timer)
    }
  }

  /** It is told soon; what comes meanwhile goes along. */
  soon(): void {
    this.#later ??= this.#retry().finally(() => {
      this.#later = undefined
    })
  }

  /** Nothing is told any more when this returns. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort()
    await Promise.all([this.#later, this.#looking, this.#running.catch(() => {})])
  }

  async #retry(): Promise<void> {
    const { signal } = this.#ending
    let delay = SOON_MS
    for (let fails = false; ; fails = true) {
      await sleep(delay, undefined, { signal }).catch(() => {})
      if (signal.aborted || !this.#inventory.hasNews) return
      try {
        await this.#inTurn(() => REQUEST_MS)
        return
      } catch {
        // It was told to the log.
        delay = fails ? Math.min(2 * delay, MAX_DELAY_MS) : FIRST_DELAY_MS
      }
    }
  }

  #inTurn(timeoutMs: () => number): Promise<void> {
    this.#running = this.#running.catch(() => {}).then(() => this.#tell(timeoutMs))
    return this.#running
  }

  async #tell(timeoutMs: () => number): Promise<void> {
    const { signal } = this.#ending
    const news = this.#inventory.takeNews()
    try {
      for (const body of news)
        await this.#daemon.announceContainers({ body }, { signal, timeoutMs: timeoutMs() })
    } catch (error) {
      this.#failed(error as Error)
      throw error
    }
    this.#fails = false
    if (news[0]?.whole === true) this.#told.all(this.#inventory.size)
  }

  #failed(error: Error): void {
    this.#inventory.startAnew()
    if (this.#ending.signal.aborted) return
    if (!this.#fails) this.#told.not(error)
    this.#fails = true
    this.soon()
  }

  /** Another daemon knows nothing: it says by when it has started. */
  async #look(lookMs: number): Promise<void> {
    const { signal } = this.#ending
    while (!signal.aborted) {
      try {
        const { startedAt } = await this.#daemon.status({}, { signal, timeoutMs: REQUEST_MS })
        if (this.#startedAt !== undefined && this.#startedAt !== startedAt) {
          this.#inventory.startAnew()
          this.soon()
        }
        this.#startedAt = startedAt
      } catch (error) {
        if (this.#startedAt !== undefined) this.#failed(error as Error)
      }
      await sleep(lookMs, undefined, { signal }).catch(() => {})
    }
  }
}
