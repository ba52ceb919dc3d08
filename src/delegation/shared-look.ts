/**
 * A look that takes long, shared by all who want one at the same time. What is found is no older
 * than the question: whoever asks while one look goes on waits for the next, and all who wait share
 * that.
 */
export class SharedLook<T> {
  readonly #look: () => Promise<T>
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
      const found = this.#look()
      this.#running = found.catch(() => {})
      return found
    })
    return this.#next
  }
}
