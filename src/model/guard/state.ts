/** What all parts of the guard have in common: its clock, its journal, and the verdict to begin with. */
import type { ErrnoName } from '../judge.ts'
import { type Actor, isInside } from './actor.ts'
import { type Delegation, liveness } from './delegation.ts'
import { ENFORCE, hasFlag, PERMISSIVE } from './terms.ts'
import { type GuardVerdict, Journal, type Judged, PASSED } from './verdict.ts'

export interface GuardSettings {
  /** Of what belongs to no delegation. */
  readonly mode?: 'enforce' | 'permissive'
  /** Events for what is allowed, too. */
  readonly audit?: boolean
}

export class GuardState {
  /** Of what belongs to no delegation. */
  readonly mode: number
  readonly journal: Journal
  /** Seconds since the story began. */
  now = 0

  constructor({ mode = 'enforce', audit = false }: GuardSettings) {
    this.mode = mode === 'enforce' ? ENFORCE : PERMISSIVE
    this.journal = new Journal(audit)
  }

  /** The delegation by which the call is judged, and a first verdict in `what`; false: there is none. */
  judgedBy(of: Delegation | undefined, what: Judged): of is Delegation {
    if (of === undefined || of.isGone) {
      what.mode = this.mode
      what.reason = 'unregistered'
      return false
    }
    what.under(of)
    what.reason = liveness(of, this.now)
    return true
  }

  say(what: Judged, errno: ErrnoName): GuardVerdict {
    return what.reason === 'none' ? PASSED : this.journal.judge(what, errno)
  }

  isStranger(actor: Actor, { terms, userNamespace }: Delegation): boolean {
    return !hasFlag(terms, 'passToken') && userNamespace !== undefined && !isInside(actor, userNamespace)
  }
}
