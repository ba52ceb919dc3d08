/** Verdicts, and the events that tell of them. */
import type { VERDICTS } from '../../guard/layout.ts'
import type { ErrnoName } from '../judge.ts'
import type { Delegation } from './delegation.ts'
import { ENFORCE, PERMISSIVE, tellsAll, tellsNothing } from './terms.ts'
import type { GuardPoint, GuardReason } from './words.ts'

/** What the guard says: nothing against it, or a refusal. */
export type GuardVerdict =
  | { readonly refused: false }
  | {
      readonly refused: true
      readonly point: GuardPoint
      readonly reason: GuardReason
      readonly errno: ErrnoName
    }

export const PASSED: GuardVerdict = { refused: false }

export function refusal(point: GuardPoint, reason: GuardReason, errno: ErrnoName): GuardVerdict {
  return { refused: true, point, reason, errno }
}

/** What one record of the ring says, beside task and names. */
export interface GuardNote {
  readonly point: GuardPoint
  readonly reason: GuardReason
  readonly verdict: (typeof VERDICTS)[keyof typeof VERDICTS]
  readonly delegation?: Delegation
}

/** What is judged, and what its event says. */
export class Judged {
  point: GuardPoint
  reason: GuardReason = 'none'
  mode = PERMISSIVE
  /** Of enum guard_events. */
  events = 0
  quiet: boolean
  delegation: Delegation | undefined

  constructor(point: GuardPoint, { quiet = false } = {}) {
    this.point = point
    this.quiet = quiet
  }

  /** What holds of all that a delegation is judged by. */
  under(of: Delegation): void {
    this.delegation = of
    this.mode = of.terms.mode
    this.events = of.terms.events
  }

  /** What cannot be held to anything is refused, whatever the mode. */
  beyondMode(reason: GuardReason): void {
    this.mode = ENFORCE
    this.reason = reason
  }
}

export class Journal {
  readonly #audit: boolean
  readonly notes: GuardNote[] = []

  constructor(audit: boolean) {
    this.#audit = audit
  }

  /** The verdict for the reason, recorded. */
  judge(what: Judged, errno: ErrnoName): GuardVerdict {
    const { reason, point, delegation } = what
    const none = reason === 'none'
    if (none && (what.quiet || (!tellsAll(what.events) && !this.#audit))) return PASSED
    const refused = !none && what.mode !== PERMISSIVE
    if (none || !tellsNothing(what.events) || this.#audit)
      this.notes.push({
        point,
        reason,
        verdict: none ? 'allowed' : refused ? 'refused' : 'would-refuse',
        ...(delegation === undefined ? {} : { delegation }),
      })
    return refused ? refusal(point, reason, errno) : PASSED
  }

  /**
   * The same where the call may go on, because of a permissive policy: then it goes on as if nothing
   * had been wrong, and no event says that it was allowed.
   */
  pass(what: Judged, errno: ErrnoName): GuardVerdict {
    if (what.reason === 'none') return PASSED
    const verdict = this.judge(what, errno)
    what.quiet = true
    what.reason = 'none'
    return verdict
  }
}
