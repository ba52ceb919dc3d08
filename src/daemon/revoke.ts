/** To take loans back: exactly those that the selector names, with what is derived from them. */

import { setImmediate as turn } from 'node:timers/promises'
import type { RouteRequest } from '../api/routes.ts'
import { NotFoundError } from '../errors.ts'
import type { DetachResult } from '../guard/detach.ts'
import { shareOf } from '../registry/asker-facts.ts'
import type { LoanRecord } from '../registry/loan-record.ts'
import { FairTurns } from './fair-turns.ts'
import { asking, refuseRootOnly } from './lend.ts'
import { isContainer, ownLoan } from './listing.ts'
import { ownsLoan, type Who } from './ownership.ts'
import type { Parts } from './parts.ts'
import type { Answered, Call } from './service.ts'
import { viewOf } from './status-of.ts'
import { revokeInGuard, takeBack, undo } from './take-back.ts'

type Body = RouteRequest<'revoke'>['body']
type What = Body['what']

/** So many are taken back at one time: each waits for file systems of its own. */
const AT_ONCE = 16

/** `POST /v1/revoke` */
export async function revokeRoute(
  parts: Parts,
  { asker }: Call,
  { body }: RouteRequest<'revoke'>,
): Promise<Answered<'revoke'>> {
  const { rate, owed } = parts
  const who = await asking(asker)
  if (!who.isRoot) rate.take(shareOf(who.facts))
  const { what, detach = false, kill = false, dryRun = false, comment } = body
  refuseRootOnly({ kill }, who.isRoot)
  const chosen = chosenBy(parts, who, what)
  if (dryRun) {
    const loans = withDerived(parts, chosen)
    return {
      status: 200,
      body: { dryRun, loans: loans.map(loan => viewOf(parts, loan)), complete: parts.guard !== undefined },
    }
  }
  await owed.note({
    event: 'revoke.asked',
    facts: { asker: who.facts, what, detach, kill, ...(comment === undefined ? {} : { comment }) },
  })
  await revokeAllInGuard(parts, chosen)
  const { uid } = who.facts
  const ended: LoanRecord[] = []
  let complete = true
  const turns = new FairTurns(AT_ONCE, AT_ONCE)
  // One that fails does not keep the others from being taken back.
  const outcomes = await Promise.allSettled(
    chosen.map(({ id }) =>
      turns.run(shareOf(who.facts), async () => {
        const taken = await takeBack(parts, id, { why: 'revoked', by: uid, detail: comment })
        ended.push(...taken.loans)
        complete &&= taken.complete
      }),
    ),
  )
  const failed = outcomes.filter(one => one.status === 'rejected')
  for (const { reason } of failed) {
    parts.log.error({ error: reason }, 'a loan could not be taken back')
    complete = false
  }
  if (failed.length > 0 && ended.length === 0) throw failed[0]!.reason
  const undone = detach || kill ? await undo(parts, ended, kill) : undefined
  if ((detach || kill) && ended.length > 0) complete &&= undone?.complete === true
  return {
    status: 200,
    body: {
      dryRun,
      loans: ended.sort((a, b) => a.id - b.id).map(loan => viewOf(parts, loan)),
      ...(undone === undefined ? {} : { undone: undoneView(undone.result) }),
      complete,
    },
  }
}

/**
 * All at first: to unmount waits for file systems of those who are lent to, and what one of them
 * holds up must not be of use to another meanwhile.
 */
async function revokeAllInGuard(parts: Parts, loans: readonly LoanRecord[]): Promise<void> {
  if (parts.guard === undefined) return
  for (const loan of loans) {
    // It is tried again when the loan is taken back, and told then.
    await revokeInGuard(parts, loan).catch(error =>
      parts.log.error({ error }, 'a loan could not be revoked in the guard'),
    )
    // Each waits for the programs that run.
    await turn()
  }
}

/**
 * Those that have not ended and that whoever asks owns. What others have lent is taken back where
 * it is named, and not with `all`, a policy or a user. NotFoundError: there is no such loan.
 */
function chosenBy(parts: Parts, who: Who, what: What): LoanRecord[] {
  const { book } = parts
  if ('loan' in what) {
    const loan = ownLoan(parts, who, what.loan)
    return loan.state === 'ended' ? [] : [loan]
  }
  if ('delegation' in what) {
    const loan = book.ofDelegation(what.delegation)
    if (loan === undefined || loan.state === 'ended' || !ownsLoan(who, loan))
      throw new NotFoundError(`There is no loan with delegation ${what.delegation}`, {
        context: { delegation: what.delegation },
        reason: 'delegation-unknown',
      })
    return [loan]
  }
  return [...book.open()].filter(loan => isMeant(loan, what) && ownsLoan(who, loan))
}

function isMeant(loan: LoanRecord, what: Exclude<What, { loan: string } | { delegation: number }>): boolean {
  const { kind, recipient, asker, policy } = loan
  if ('container' in what) return isContainer(loan, what.container)
  if ('unit' in what) return recipient?.unit === what.unit
  if (kind === 'adopted') return false
  if ('uid' in what) return asker.uid === what.uid || recipient?.ownerUid === what.uid
  return 'policy' in what ? policy.name === what.policy : true
}

function withDerived({ book }: Parts, chosen: readonly LoanRecord[]): LoanRecord[] {
  const all = new Map(chosen.flatMap(({ id }) => book.treeOf(id)).map(loan => [loan.id, loan]))
  return [...all.values()].sort((a, b) => a.id - b.id)
}

function undoneView({ detached, stays, killed, left }: DetachResult) {
  const object = ({ delegation, id, type, name }: DetachResult['detached'][number]) => ({
    delegation: Number(delegation),
    ...{ id, type, name },
  })
  return {
    detached: detached.map(object),
    stays: stays.map(object),
    killed: killed.map(({ pid, task }) => ({ pid, task })),
    left: { programs: left.programs.length, maps: left.maps.length, links: left.links.length },
  }
}
