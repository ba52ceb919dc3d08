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
