/**
 * What was seen of the loans when the mounts were last looked at: see upkeep.ts. Between two looks
 * it is what is known, and costs no request anything.
 */
import type { LoanStatus } from './loan-view.ts'

export type Seen = Pick<LoanStatus, 'mounted' | 'processes' | 'drift'>

const NOTHING_ODD: readonly string[] = []

export class Sight {
  readonly #seen = new Map<number, Seen>()

  of(loan: number): Seen | undefined {
    return this.#seen.get(loan)
  }

  set(loan: number, { mounted, processes, drift }: Seen): void {
    // Most are as they were made: these share the list of nothing.
    this.#seen.set(loan, {
      mounted,
      processes,
      drift: drift.length === 0 ? (NOTHING_ODD as string[]) : drift,
    })
  }

  forget(loan: number): void {
    this.#seen.delete(loan)
  }
}
