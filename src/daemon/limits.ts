/** How much one user may ask for: so that nobody takes what others need. Root may always. */
import { BusyError } from '../errors.ts'

export interface Limits {
  /** Loans of one user that live at one time. */
  readonly openLoans: number
  readonly requestsPerMinute: number
  /** Requests of one user that wait for approval. */
  readonly waitingRequests: number
  /** How long a request waits for approval. */
  readonly approvalSec: number
}

export const DEFAULT_LIMITS: Limits = {
  openLoans: 64,
  requestsPerMinute: 120,
  waitingRequests: 8,
  approvalSec: 3600,
}

interface Bucket {
  tokens: number
  at: number
}

const MINUTE_MS = 60_000
/** As many are remembered; one that has not asked for a minute is as one that never did. */
const MAX_OWNERS = 4096

/** A bucket for each owner (`Asker.owner`), which a minute fills. */
export class Rate {
  readonly #perMinute: number
  readonly #now: () => number
  readonly #buckets = new Map<string, Bucket>()

  constructor(perMinute: number, now: () => number = () => performance.now()) {
    this.#perMinute = perMinute
    this.#now = now
  }

  /** BusyError: it has asked for too much within the last minute. */
  take(owner: string): void {
    const now = this.#now()
    const bucket = this.#bucketOf(owner, now)
    const gained = ((now - bucket.at) * this.#perMinute) / MINUTE_MS
    bucket.tokens = Math.min(this.#perMinute, bucket.tokens + Math.max(0, gained))
    bucket.at = now
    if (bucket.tokens < 1) {
      const seconds = Math.ceil(((1 - bucket.tokens) * MINUTE_MS) / this.#perMinute / 1000)
      throw new BusyError(`${owner} may ask ${this.#perMinute} times in a minute`, {
        context: { owner, requestsPerMinute: this.#perMinute, retryAfterSec: seconds },
        hint: `Ask again in ${seconds} seconds`,
      })
    }
    bucket.tokens -= 1
  }

  #bucketOf(owner: string, now: number): Bucket {
    const known = this.#buckets.get(owner)
    if (known !== undefined) return known
    if (this.#buckets.size >= MAX_OWNERS) this.#forgetFullest(now)
    const bucket = { tokens: this.#perMinute, at: now }
    this.#buckets.set(owner, bucket)
    return bucket
  }

  /** An eighth of them, which lack the least: so that it is not done at each request. */
  #forgetFullest(now: number): void {
    const lacks = ({ tokens, at }: Bucket): number =>
      this.#perMinute - tokens - ((now - at) * this.#perMinute) / MINUTE_MS
    const fullest = [...this.#buckets].sort(([, a], [, b]) => lacks(a) - lacks(b))
    for (const [owner] of fullest.slice(0, MAX_OWNERS / 8)) this.#buckets.delete(owner)
  }
}

/** What is counted, for the refusal. */
interface Counted {
  readonly limit: 'openLoans' | 'waitingRequests'
  readonly words: string
  readonly hint: string
}

export const OPEN_LOANS: Counted = {
  limit: 'openLoans',
  words: 'open loans',
  hint: 'Give one back, or ask root for a higher limit',
}
export const WAITING_REQUESTS: Counted = {
  limit: 'waitingRequests',
  words: 'requests that wait for approval',
  hint: 'Withdraw one, or wait until root decides',
}

/** Who is about to have one more, before it is in the registry. */
export class Slots {
  readonly #most: number
  readonly #openOf: (owner: string) => number
  readonly #counted: Counted
  readonly #reserved = new Map<string, number>()

  constructor(most: number, openOf: (owner: string) => number, counted = OPEN_LOANS) {
    this.#counted = counted
    this.#most = most
    this.#openOf = openOf
  }

  /** Until it is disposed of, or `taken` is called. BusyError: the user has as many as it may. */
  reserve(owner: string): Disposable & { taken(): void } {
    const reserved = this.#reserved.get(owner) ?? 0
    const open = this.#openOf(owner) + reserved
    const { limit, words, hint } = this.#counted
    if (open >= this.#most)
      throw new BusyError(`${owner} has ${open} ${words}, which is all that it may have`, {
        context: { owner, [limit]: this.#most },
        hint,
      })
    this.#reserved.set(owner, reserved + 1)
    let held = true
    const taken = (): void => {
      if (!held) return
      held = false
      const left = this.#reserved.get(owner)! - 1
      if (left === 0) this.#reserved.delete(owner)
      else this.#reserved.set(owner, left)
    }
    return { taken, [Symbol.dispose]: taken }
  }
}
