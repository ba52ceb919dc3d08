/**
 * What parts of the daemon count, and by which words: words of ours alone, so that no client can
 * make more of them. `metrics.ts` keeps the numbers.
 */
import type { RouteName } from '../api/routes.ts'

export type MeteredRoute = RouteName | 'openapi' | 'metrics' | 'none'

export interface Meter {
  request(route: MeteredRoute, status: number, seconds: number): void
  decided(verdict: 'allowed' | 'refused' | 'waiting'): void
  /** `why`: one of LOAN_ENDS of src/policy/loan-words.ts. */
  loanEnded(why: string): void
  guardEvents(verdict: 'refused' | 'allowed', count: number): void
}

/** What is asked for when the numbers are read. */
export interface Gauges {
  readonly liveLoans: number
  readonly waitingRequests: number
  readonly policyFaults: number
  readonly lostEvents: number
}

/** Calls that are kept until the numbers are there: more than this are not, while a daemon starts. */
const MAX_KEPT = 10_000

/**
 * A meter from the first moment on, though what keeps the numbers is loaded later, once: when the
 * daemon is ready, or they are read.
 */
export class LateMeter<M extends Meter> implements Meter {
  readonly #load: () => Promise<M>
  #loading: Promise<M> | undefined
  #meter: M | undefined
  #kept: ((meter: M) => void)[] = []

  constructor(load: () => Promise<M>) {
    this.#load = load
  }

  loaded(): Promise<M> {
    this.#loading ??= this.#load().then(meter => {
      this.#meter = meter
      for (const call of this.#kept) call(meter)
      this.#kept = []
      return meter
    })
    return this.#loading
  }

  request(...facts: Parameters<Meter['request']>): void {
    this.#tell(meter => meter.request(...facts))
  }

  decided(...facts: Parameters<Meter['decided']>): void {
    this.#tell(meter => meter.decided(...facts))
  }

  loanEnded(...facts: Parameters<Meter['loanEnded']>): void {
    this.#tell(meter => meter.loanEnded(...facts))
  }

  guardEvents(...facts: Parameters<Meter['guardEvents']>): void {
    this.#tell(meter => meter.guardEvents(...facts))
  }

  #tell(call: (meter: M) => void): void {
    if (this.#meter !== undefined) call(this.#meter)
    else if (this.#kept.length < MAX_KEPT) this.#kept.push(call)
  }
}
