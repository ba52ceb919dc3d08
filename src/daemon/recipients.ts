/**
 * Who was lent to, for each loan: a process, held so that we learn when it exits, and its user
 * namespace. When the process exits the loan is looked after, for the namespace may live on in
 * others. The namespace is held until the loan ends: as long as it is, no other one gets the number
 * of its inode, by which it is known.
 */
import type { Fd } from '../sys/fd.ts'
import { type Watch, watchReadable } from '../sys/poll.ts'

interface Watched {
  readonly pidfd: Fd
  readonly watch: Watch
}

export class Recipients implements Disposable {
  readonly #watched = new Map<number, Watched>()
  readonly #namespaces = new Map<number, Fd>()
  readonly #exited: (loan: number) => void

  constructor(exited: (loan: number) => void) {
    this.#exited = exited
  }

  /** Takes over both descriptors. */
  watch(loan: number, pidfd: Fd, userNamespace: Fd): void {
    this.forget(loan)
    const watch = watchReadable(pidfd, () => {
      this.#unwatch(loan)
      this.#exited(loan)
    })
    watch.keepAlive(false)
    this.#watched.set(loan, { pidfd, watch })
    this.#namespaces.set(loan, userNamespace)
  }

  isWatched(loan: number): boolean {
    return this.#watched.has(loan)
  }

  /** Whether the namespace is held, and so surely the one that was lent to. */
  isHeld(loan: number): boolean {
    return this.#namespaces.has(loan)
  }

  /** The loan has ended. */
  forget(loan: number): void {
    this.#unwatch(loan)
    this.#namespaces.get(loan)?.close()
    this.#namespaces.delete(loan)
  }

  [Symbol.dispose](): void {
    for (const loan of [...this.#namespaces.keys()]) this.forget(loan)
  }

  #unwatch(loan: number): void {
    const watched = this.#watched.get(loan)
    if (watched === undefined) return
    this.#watched.delete(loan)
    watched.watch[Symbol.dispose]()
    watched.pidfd.close()
  }
}
