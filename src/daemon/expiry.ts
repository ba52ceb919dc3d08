/** Loans end when their time has come, by the clock that nobody sets: one alarm, for the next. */
import type { LoanRecord } from '../registry/loan-record.ts'

/** What rings: src/sys/alarm.ts. */
export interface AlarmClock {
  set(atNs: bigint | undefined): void
}

interface Due {
  readonly id: number
  readonly atNs: bigint
}

export class Expiry {
  readonly #alarm: AlarmClock
  /** A heap: none is due before the one at half its place. */
  readonly #heap: Due[] = []
  /** What counts of each loan; others in the heap are old. */
  readonly #due = new Map<number, bigint>()

  constructor(alarm: AlarmClock) {
    this.#alarm = alarm
  }

  /** As the loan is by now. */
  follow({ id, state, expires }: LoanRecord): void {
    const atNs = state === 'live' && expires !== undefined ? BigInt(expires.bootNs) : undefined
    if (this.#due.get(id) === atNs) return
    if (atNs === undefined) this.#due.delete(id)
    else {
      this.#due.set(id, atNs)
      this.#push({ id, atNs })
    }
    this.#arm()
  }

  /** Those whose time has come. They are forgotten here. */
  take(nowNs: bigint): number[] {
    const ids: number[] = []
    for (let next = this.#next(); next !== undefined && next.atNs <= nowNs; next = this.#next()) {
      this.#pop()
      this.#due.delete(next.id)
      ids.push(next.id)
    }
    this.#arm()
    return ids
  }

  #arm(): void {
    this.#alarm.set(this.#next()?.atNs)
  }

  #next(): Due | undefined {
    for (;;) {
      const [first] = this.#heap
      if (first === undefined || this.#due.get(first.id) === first.atNs) return first
      this.#pop()
    }
  }

  #push(due: Due): void {
    const heap = this.#heap
    heap.push(due)
    for (let at = heap.length - 1; at > 0; ) {
      const above = (at - 1) >> 1
      if (heap[above]!.atNs <= due.atNs) break
      heap[at] = heap[above]!
      heap[above] = due
      at = above
    }
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && heap[below + 1]!.atNs < heap[below]!.atNs) below++
      if (last.atNs <= heap[below]!.atNs) break
      heap[at] = heap[below]!
      at = below
    }
    heap[at] = last
  }
}
