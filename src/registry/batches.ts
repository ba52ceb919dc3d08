/**
 * Group commit: while one batch is being written, all that comes waits, and is the next one. So
 * many that wait share one write and one fdatasync(2). Pure.
 */

export interface Waiting<T> {
  readonly item: T
  /** For this one alone; the rest of the batch goes on. */
  refuse(error: unknown): void
}

interface Queued<T> extends Waiting<T> {
  done(): void
}

const MAX_BATCH = 1024

export class Batches<T> {
  readonly #write: (batch: readonly Waiting<T>[]) => Promise<void>
  #queue: Queued<T>[] = []
  #tasks: (() => Promise<void>)[] = []
  #running: Promise<void> | undefined
  #startedMs: number | undefined

  /** `write` is never called again before it is done. When it fails, all of the batch fail. */
  constructor(write: (batch: readonly Waiting<T>[]) => Promise<void>) {
    this.#write = write
  }

  push(item: T): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, refuse: reject, done: resolve })
      this.#start()
    })
  }

  /** Runs `task` while nothing is written. */
  alone<R>(task: () => Promise<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      this.#tasks.push(() => task().then(resolve, reject))
      this.#start()
    })
  }

  /** How long what is being written takes by now; 0: nothing is. */
  get writingMs(): number {
    return this.#startedMs === undefined ? 0 : performance.now() - this.#startedMs
  }

  /** Returns when nothing waits. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  #start(): void {
    this.#running ??= this.#run()
  }

  async #run(): Promise<void> {
    // What is pushed in the same turn of the event loop shares the first batch.
    await Promise.resolve()
    while (this.#queue.length > 0 || this.#tasks.length > 0) {
      this.#startedMs = performance.now()
      for (const task of this.#tasks.splice(0)) await task()
      const batch = this.#queue.splice(0, MAX_BATCH)
      if (batch.length === 0) continue
      this.#startedMs = performance.now()
      try {
        await this.#write(batch)
        for (const { done } of batch) done()
      } catch (error) {
        for (const { refuse } of batch) refuse(error)
      }
    }
    this.#startedMs = undefined
    // At once: whoever pushes in the next turn must start it again.
    this.#running = undefined
  }
}
