/**
 * The processes that were lent to, one for each loan, held so that we learn when it exits: then the
 * loan is looked after, for its namespaces may live on in others.
 */
import type { Fd } from '../sys/fd.ts'
import { type Watch, watchReadable } from '../sys/poll.ts'

interface Held {
  readonly pidfd: Fd
  readonly watch: Watch
}

export class Recipients implements Disposable {
  readonly #held = new Map<number, Held>()
  readonly #exited: (loan: number) => void

  constructor(exited: (loan: number) => void) {
    this.#exited = exited
  }

  /** Takes over the pidfd. */
  watch(loan: number, pidfd: Fd): void {
    this.forget(loan)
    const watch = watchReadable(pidfd, () => {
      this.forget(loan)
      this.#exited(loan)
    })
    watch.keepAlive(false)
    this.#held.set(loan, { pidfd, watch })
  }

  isWatched(loan: number): boolean {
    return this.#held.has(loan)
  }

  forget(loan: number): void {
    const held = this.#held.get(loan)
    if (held === undefined) return
    this.#held.delete(loan)
    held.watch[Symbol.dispose]()
    held.pidfd.close()
  }

  [Symbol.dispose](): void {
    for (const loan of [...this.#held.keys()]) this.forget(loan)
  }
}
