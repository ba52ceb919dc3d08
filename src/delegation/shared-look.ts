/**
 * A look that takes long, shared by all who want one at the same time. What is found is no older
 * than the question: whoever asks while one look goes on waits for the next, and all who wait share
 * that.
 */
export class SharedLook<T> {
  readonly #look: () => Promise<T>
  #last: { readonly begun: number; readonly found: Promise<T> } | undefined
  #running: Promise<unknown> = Promise.resolve()
  #next: Promise<T> | undefined

  /** `look` is never called again before it is done. */
  constructor(look: () => Promise<T>) {
    this.#look = look
  }

  /** What a look finds that begins after this call. */
  take(): Promise<T> {
    this.#next ??= this.#running.then(() => {
      this.#next = undefined
      const last = { begun: performance.now(), found: this.#look() }
      this.#last = last
      this.#running = last.found.catch(() => {
        if (this.#last === last) this.#last = undefined
      })
      return last.found
    })
    return this.#next
  }

  /**
   * What a look finds that began at most so long ago: for who asks again before it matters, and so
   * can do with less.
   */
  recent(maxAgeMs: number): Promise<T> {
    const last = this.#last
    return last !== undefined && performance.now() - last.begun <= maxAgeMs ? last.found : this.take()
  }
}
