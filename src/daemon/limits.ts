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
/** As many users are remembered; one that has not asked for a minute is as one that never did. */
const MAX_USERS = 4096

/** A bucket for each user, which a minute fills. */
export class Rate {
  readonly #perMinute: number
  readonly #now: () => number
  readonly #buckets = new Map<number, Bucket>()

  constructor(perMinute: number, now: () => number = () => performance.now()) {
    this.#perMinute = perMinute
    this.#now = now
  }

  /** BusyError: it has asked for too much within the last minute. */
  take(uid: number): void {
    const now = this.#now()
    const bucket = this.#bucketOf(uid, now)
    const gained = ((now - bucket.at) * this.#perMinute) / MINUTE_MS
    bucket.tokens = Math.min(this.#perMinute, bucket.tokens + Math.max(0, gained))
    bucket.at = now
    if (bucket.tokens < 1) {
      const seconds = Math.ceil(((1 - bucket.tokens) * MINUTE_MS) / this.#perMinute / 1000)
      throw new BusyError(`User ${uid} may ask ${this.#perMinute} times in a minute`, {
        context: { uid, requestsPerMinute: this.#perMinute, retryAfterSec: seconds },
        hint: `Ask again in ${seconds} seconds`,
      })
    }
    bucket.tokens -= 1
  }

  #bucketOf(uid: number, now: number): Bucket {
    const known = this.#buckets.get(uid)
    if (known !== undefined) return known
    if (this.#buckets.size >= MAX_USERS)
      for (const [one, { at }] of this.#buckets) if (now - at >= MINUTE_MS) this.#buckets.delete(one)
    // Whoever can be so many users at once is told to wait, rather than that we forget somebody.
    if (this.#buckets.size >= MAX_USERS)
      throw new BusyError('Too many users ask at once', { hint: 'Ask again in a minute' })
    const bucket = { tokens: this.#perMinute, at: now }
    this.#buckets.set(uid, bucket)
    return bucket
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
  readonly #openOf: (uid: number) => number
  readonly #counted: Counted
  readonly #reserved = new Map<number, number>()

  constructor(most: number, openOf: (uid: number) => number, counted = OPEN_LOANS) {
    this.#counted = counted
    this.#most = most
    this.#openOf = openOf
  }

  /** Until it is disposed of, or `taken` is called. BusyError: the user has as many as it may. */
  reserve(uid: number): Disposable & { taken(): void } {
    const reserved = this.#reserved.get(uid) ?? 0
    const open = this.#openOf(uid) + reserved
    const { limit, words, hint } = this.#counted
    if (open >= this.#most)
      throw new BusyError(`User ${uid} has ${open} ${words}, which is all that it may have`, {
        context: { uid, [limit]: this.#most },
        hint,
      })
    this.#reserved.set(uid, reserved + 1)
    let held = true
    const taken = (): void => {
      if (!held) return
      held = false
      const left = this.#reserved.get(uid)! - 1
      if (left === 0) this.#reserved.delete(uid)
      else this.#reserved.set(uid, left)
    }
    return { taken, [Symbol.dispose]: taken }
  }
}
