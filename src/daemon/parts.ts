/** What the daemon consists of, and what its use cases are given. */
import type { Guard } from '../guard/guard.ts'
import type { Loan } from '../lending/journal.ts'
import type { PreparedLoan } from '../lending/lend.ts'
import type { Making } from '../lending/loan.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import type { Audit } from '../registry/audit.ts'
import type { EventStore } from '../registry/event-store.ts'
import type { Approvals } from './approvals.ts'
import type { AuditForward } from './audit-forward.ts'
import type { Clock } from './clock.ts'
import type { KnownContainers } from './containers/known.ts'
import type { Idempotency } from './idempotency.ts'
import type { Launches } from './launches.ts'
import type { Limits, Rate, Slots } from './limits.ts'
import type { LoanBook } from './loan-book.ts'
import type { Meter } from './meter.ts'
import type { Names } from './names.ts'
import type { Owed } from './owed.ts'
import type { PolicyFiles } from './policies.ts'
import type { Recipients } from './recipients.ts'
import type { Sight } from './sight.ts'

/** As that of log.ts. Values are escaped by whoever writes them. */
export interface Log {
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
}

/** What the service counts. */
export type Counters = Pick<Meter, 'decided' | 'loanEnded' | 'guardEvents'>

export interface Parts {
  readonly book: LoanBook
  readonly audit: Audit
  /** For what is done whether it can be written down or not. */
  readonly owed: Owed
  readonly events: EventStore
  /** Undefined: the audit is handed on to nobody. */
  readonly forward: Pick<AuditForward, 'concern'> | undefined
  /** Undefined: none is installed. */
  readonly guard: Guard | undefined
  readonly policies: PolicyFiles
  readonly names: Names
  readonly vocabulary: Vocabulary
  readonly clock: Clock
  readonly limits: Limits
  readonly rate: Rate
  readonly slots: Slots
  readonly idempotency: Idempotency
  readonly approvals: Approvals
  readonly sight: Sight
  readonly recipients: Recipients
  readonly launches: Launches
  /** What plugins of runtimes have announced. */
  readonly containers: KnownContainers
  /** What there is of the loans is looked at within that time. */
  readonly lookWithin: (ms: number) => void
  readonly log: Log
  readonly counters: Counters
  /** Makes the loan: `lend` of src/lending/lend.ts. */
  readonly lend: (prepared: PreparedLoan, how: Making) => Promise<Loan>
}
