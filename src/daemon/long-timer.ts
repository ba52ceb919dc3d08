/** A timer for any time: Node's own takes more than 24.8 days for none at all. */

/** What setTimeout(3) takes at most: a signed number of 32 bits, in milliseconds. */
const MOST_MS = 2 ** 31 - 1

/** It does not keep Node alive. */
export class LongTimer implements Disposable {
  readonly #ring: () => void
  readonly #atMs: number
  #timer: NodeJS.Timeout

  constructor(afterMs: number, ring: () => void) {
    this.#ring = ring
    this.#atMs = performance.now() + afterMs
    this.#timer = this.#next(afterMs)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }

  #next(leftMs: number): NodeJS.Timeout {
    return setTimeout(() => this.#passed(), Math.min(Math.max(leftMs, 1), MOST_MS)).unref()
  }

  #passed(): void {
    const leftMs = this.#atMs - performance.now()
    if (leftMs > 1) this.#timer = this.#next(leftMs)
    else this.#ring()
  }
}
