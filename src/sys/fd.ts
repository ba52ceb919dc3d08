/**
 * `Fd` owns one descriptor: whoever holds it closes it, once, best with `using`.
 *
 * Tests turn on tracing and fail on a descriptor that is still open at their end.
 */
import { native } from './native.ts'

const open = new Map<Fd, string>()
let tracing = false

export class Fd implements Disposable {
  #number: number

  /** Takes ownership of `number`. */
  constructor(number: number) {
    this.#number = number
    if (tracing) open.set(this, new Error().stack?.split('\n').slice(2, 7).join('\n') ?? '')
  }

  /** The descriptor's number, for one call; throws once closed. */
  get number(): number {
    if (this.#number < 0) throw new TypeError('this descriptor is closed')
    return this.#number
  }

  get closed(): boolean {
    return this.#number < 0
  }

  /** Gives ownership away: the caller closes the number from now on. */
  release(): number {
    const number = this.number
    this.#number = -1
    open.delete(this)
    return number
  }

  /** Closes it; a second call does nothing. Errors of close(2) leave nothing to act on. */
  close(): void {
    if (this.#number < 0) return
    native().close(this.release())
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** Tests: from now on remember where each descriptor was made. */
export function traceFds(): void {
  tracing = true
}

/** Tests: where the descriptors that are still open were made. */
export function openFds(): string[] {
  return [...open].map(([fd, stack]) => `fd ${fd.number} made\n${stack}`)
}
