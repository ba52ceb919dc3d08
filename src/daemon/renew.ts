/** To let a loan live longer, from now, as its policy allows. */

import type { RouteRequest } from '../api/routes.ts'
import { ConflictError, DeniedError } from '../errors.ts'
import { admit } from '../lending/admission.ts'
import { attenuate } from '../policy/attenuate.ts'
import { LIMIT_PATHS, type Policy, policyFromJSON } from '../policy/policy.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { shareOf } from '../registry/asker-facts.ts'
import type { LoanRecord } from '../registry/loan-record.ts'
import { loanFacts } from './audit-facts.ts'
import { NS_PER_SEC, wallOf } from './clock.ts'
import { factsOfHolder } from './containers/facts.ts'
import { type Asking, asking } from './lend.ts'
import { ownLoan } from './listing.ts'
import type { Parts } from './parts.ts'
import { chosenPolicy } from './policy-choice.ts'
import type { Answered, Call } from './service.ts'
import { viewOf } from './status-of.ts'
import { guardRecordOf } from './take-back.ts'

/** `POST /v1/loans/{id}/renew` */
export async function renewRoute(
  parts: Parts,
  { asker }: Call,
  { params, body }: RouteRequest<'renew'>,
): Promise<Answered<'renew'>> {
  const { rate, book, clock, audit } = parts
  const who = await asking(asker)
  if (!who.isRoot) rate.take(shareOf(who.facts))
  const { id } = ownLoan(parts, who, params.id)
  const renewed = await book.inTurn(id, async () => {
    const loan = ownLoan(parts, who, params.id)
    requireRenewable(loan, clock.bootNs())
    const most = await mostFor(parts, who, loan)
    // That took time.
    requireRenewable(loan, clock.bootNs())
    const lifetimeSec = most === undefined ? body.lifetimeSec : Math.min(most, body.lifetimeSec)
    // The guard comes first: if we die here, it lets go no sooner than we take the loan back.
    const bootNs = heldUntil(parts, loan, clock.bootNs() + BigInt(lifetimeSec) * NS_PER_SEC)
    const put = await book.put({ ...loan, expires: { at: wallOf(clock, bootNs), bootNs: String(bootNs) } })
    await audit.append({ event: 'loan.renewed', loan: id, facts: { ...loanFacts(put), by: who.facts } })
    return put
  })
  return { status: 200, body: viewOf(parts, renewed) }
}

function requireRenewable({ id, state, kind, expires }: LoanRecord, nowNs: bigint): void {
  const context = { loan: id }
  const refuse = (why: string): never => {
    throw new ConflictError(`loan-${id} cannot be renewed: ${why}`, { context })
  }
  if (kind === 'adopted') refuse('it was not lent by this daemon')
  if (state !== 'live') refuse(`it is ${state}`)
  if (expires === undefined) refuse('it does not expire')
  if (BigInt(expires!.bootNs) <= nowNs) refuse('its time is over')
}

/** The end that holds, where a guard holds it: a derived loan ends with its origin. */
function heldUntil({ guard }: Parts, loan: LoanRecord, bootNs: bigint): bigint {
  if (loan.made?.delegation === undefined) return bootNs
  const known = guard === undefined ? undefined : guardRecordOf(guard, loan)
  if (known === undefined)
    throw new ConflictError(`loan-${loan.id} cannot be renewed: the guard knows it no more`, {
      context: { loan: loan.id },
    })
  return guard!.renew(known.id, bootNs)
}

/**
 * What a policy lends no more ends when it was to end. That its loans live shorter now is no reason:
 * so does what is renewed.
 */
function requireLentStill(policy: Policy, loan: LoanRecord, vocabulary: Vocabulary): void {
  const { removed } = attenuate(policy, policyFromJSON(loan.policy), vocabulary)
  const more = removed.find(({ path }) => path !== LIMIT_PATHS.lifetimeSec)
  if (more === undefined) return
  throw new DeniedError(
    `loan-${loan.id} has more than policy "${policy.name}" lends now: ${more.path} ${more.what}`,
    { context: { loan: loan.id, policy: policy.name, path: more.path }, hint: 'Ask for a new loan' },
  )
}

/** Seconds; undefined: as many as one likes. Of others than root the policy of now must let them. */
async function mostFor(parts: Parts, who: Asking, loan: LoanRecord): Promise<number | undefined> {
  const lent = loan.policy.limits.lifetimeSec
  if (who.isRoot) return lent
  const policy = await chosenPolicy(parts, { name: loan.policy.name }, false)
  if (policy.approval === 'required')
    throw new DeniedError(`Policy "${policy.name}" must be approved each time: only root renews`, {
      context: { policy: policy.name },
      reason: 'approval-not-asked',
    })
  const subject = { ...(await who.asker.subject([policy])), ...factsOfHolder(parts.containers, who, loan) }
  admit(policy, subject, { by: 'subject' })
  requireLentStill(policy, loan, parts.vocabulary)
  const now = policy.limits.lifetimeSec
  return lent === undefined || now === undefined ? (lent ?? now) : Math.min(lent, now)
}
