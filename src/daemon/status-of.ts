/** A loan with what the kernel says of it: as it was last seen mounted, and what the guard has now. */
import { exact } from '../lending/view.ts'
import { DEFAULT_LIMITS } from '../policy/policy.ts'
import type { LoanRecord } from '../registry/loan-record.ts'
import { type LoanStatus, type LoanView, loanView } from './loan-view.ts'
import type { Parts } from './parts.ts'
import { guardRecordOf } from './take-back.ts'

type Looking = Pick<Parts, 'sight' | 'guard' | 'clock' | 'owed'>

export function viewOf(parts: Looking, known: LoanRecord): LoanView {
  const owed = parts.owed.loan(known.id)
  const loan = owed === undefined ? known : untold(owed)
  return loanView(loan, parts.clock, loan.state === 'ended' ? undefined : statusOf(parts, loan))
}

/** What has ended, though the disk does not say so yet. */
function untold(loan: LoanRecord): LoanRecord {
  const detail = [loan.ended!.detail, 'this is not on the disk yet'].filter(part => part !== undefined)
  return { ...loan, ended: { ...loan.ended!, detail: detail.join('; ') } }
}

function statusOf({ sight, guard }: Looking, loan: LoanRecord): LoanStatus {
  // It was reached when it was made.
  const seen = sight.of(loan.id) ?? { mounted: loan.made?.device !== undefined, processes: 1, drift: [] }
  const { mounted, processes, drift } = seen
  if (guard === undefined || loan.made?.delegation === undefined)
    return { mounted, processes, drift: [...drift] }
  const known = guardRecordOf(guard, loan)
  if (known === undefined) return { mounted, processes, drift: [...drift, 'the guard has no record of it'] }
  const { tokens, programs, maps, mapBytes } = known.live
  const { limits } = known.terms
  return {
    mounted,
    processes,
    drift: known.revoked && loan.state === 'live' ? [...drift, 'it is revoked in the guard'] : [...drift],
    live: { tokens, programs, maps, mapBytes: exact(mapBytes) },
    limits: {
      tokens: limits.tokens ?? DEFAULT_LIMITS.tokens,
      programs: limits.programs ?? DEFAULT_LIMITS.programs,
      maps: limits.maps ?? DEFAULT_LIMITS.maps,
      ...(limits.mapBytes === undefined ? {} : { mapBytes: exact(limits.mapBytes) }),
    },
  }
}
