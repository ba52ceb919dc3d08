/**
 * To end loans: with a guard at once, wherever they are mounted; then the mounts go. What is derived
 * from a loan ends with it. It waits for no disk: what cannot be written is written later.
 */

import { NotFoundError } from '../errors.ts'
import type { DetachResult } from '../guard/detach.ts'
import type { Guard, GuardDelegation } from '../guard/guard.ts'
import { delegationId } from '../guard/id.ts'
import { detach, isUndone, revoke } from '../lending/revoke.ts'
import type { EndRecord, LoanRecord } from '../registry/loan-record.ts'
import { loanFacts } from './audit-facts.ts'
import { loanName } from './loan-view.ts'
import type { Parts } from './parts.ts'
import { unmount } from './unmount.ts'

export interface Ending {
  readonly why: EndRecord['why']
  readonly by?: number | undefined
  readonly detail?: string | undefined
}

export interface TakenBack {
  /** It first, then what is derived from it; as they are by now. */
  readonly loans: readonly LoanRecord[]
  /** Nothing of them can be used any more. Never so without a guard: tokens stay. */
  readonly complete: boolean
}

/** Ends a loan, and all that is derived from it. Whoever asked first has ended it. */
export async function takeBack(parts: Parts, id: number, ending: Ending): Promise<TakenBack> {
  const { book } = parts
  const tree = book.treeOf(id)
  // The guard first, for the whole tree: from then on no token of it is of use.
  for (const loan of tree.slice(0, 1)) await revokeInGuard(parts, loan)
  const loans: LoanRecord[] = []
  let complete = parts.guard !== undefined
  for (const { id: one } of tree) {
    const ended = await book.inTurn(one, () => endOne(parts, one, one === id ? ending : ofOrigin(ending)))
    if (ended === undefined) continue
    loans.push(ended.loan)
    complete &&= ended.complete
  }
  return { loans, complete }
}

function ofOrigin({ by }: Ending): Ending {
  return { why: 'origin-ended', by }
}

/** Undefined: it has ended meanwhile. */
async function endOne(
  parts: Parts,
  id: number,
  { why, by, detail }: Ending,
): Promise<{ loan: LoanRecord; complete: boolean } | undefined> {
  const { book, clock, owed, counters, log } = parts
  const now = owed.loan(id) ?? book.loan(id)
  if (now === undefined || now.state === 'ended') return undefined
  const at = clock.wall()
  // Of one that is being ended already the first reason counts.
  const ended: EndRecord = now.ended ?? { at, why, by, detail }
  const ending = now.state === 'ending' ? now : await owed.putLoan({ ...now, state: 'ending', ended })
  const revoked = await revokeInGuard(parts, ending)
  const { gone, left } = await unmount(parts, ending)
  const complete = revoked && gone
  // Whatever stays mounted is looked after until it is gone.
  const text = [ended.detail, ...left]
    .filter(part => part !== undefined)
    .join('; ')
    .slice(0, 4000)
  const told: EndRecord = text === '' ? ended : { ...ended, detail: text }
  const loan = gone ? await owed.putLoan({ ...ending, state: 'ended', ended: told }) : ending
  if (gone) counters.loanEnded(ended.why)
  else log.warn({ loan: loanName(id), left }, 'a loan could not be unmounted wholly')
  const event = gone ? 'loan.ended' : 'loan.stays'
  await owed.note({ event, loan: id, facts: { ...loanFacts({ ...loan, ended: told }), complete } })
  return { loan, complete }
}

/** From then on no token of it is of use. False: there is no guard that could. */
export async function revokeInGuard({ guard }: Parts, loan: LoanRecord): Promise<boolean> {
  if (guard === undefined || loan.made?.delegation === undefined) return false
  const known = guardRecordOf(guard, loan)
  if (known !== undefined && !known.revoked) await revoke(guard, known.id)
  return true
}

/**
 * What the guard has of the loan. Undefined: it has ended there; another one has its number, where
 * the guard was removed and installed anew.
 */
export function guardRecordOf(guard: Guard, { made, recipient }: LoanRecord): GuardDelegation | undefined {
  if (made?.delegation === undefined) return undefined
  try {
    const found = guard.delegation(delegationId(made.delegation))
    return `user:[${found.userNamespace}]` === recipient?.userNamespace ? found : undefined
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    throw error
  }
}

export interface Undone {
  readonly result: DetachResult
  readonly complete: boolean
}

/** Undoes what was loaded under these. Undefined: no guard knows what that is. */
export async function undo(
  { guard }: Parts,
  loans: readonly LoanRecord[],
  kill: boolean,
): Promise<Undone | undefined> {
  const ids = loans.flatMap(({ made }) =>
    made?.delegation === undefined ? [] : delegationId(made.delegation),
  )
  if (guard === undefined || ids.length === 0) return undefined
  const result = await detach(guard, ids, { kill })
  return { result, complete: isUndone(result, { kill }) }
}
