/**
 * To lend on a part of a loan: by who holds it, for its own namespace or one that lies in it, or by
 * root. What comes of it is never more than the loan has left, and falls with it.
 */

import type { RouteRequest } from '../api/routes.ts'
import { ConflictError, DeniedError, NotSupportedError } from '../errors.ts'
import { delegationId } from '../guard/id.ts'
import { prepareDerivation } from '../lending/derive.ts'
import { shareOf } from '../registry/asker-facts.ts'
import type { Keep } from './idempotency.ts'
import {
  type Asking,
  answeredAgain,
  asking,
  besidesOf,
  common,
  confirmedBy,
  keptWith,
  type LentAnswer,
  lifetimeOf,
  make,
  told,
  withLifetime,
} from './lend.ts'
import { ownLoan } from './listing.ts'
import type { Parts } from './parts.ts'
import { chosenPolicy } from './policy-choice.ts'
import type { Answered, Call } from './service.ts'
import { viewOf } from './status-of.ts'

type Request = RouteRequest<'derive'>

/** `POST /v1/loans/{id}/derive` */
export async function deriveRoute(parts: Parts, call: Call, request: Request): Promise<Answered<'derive'>> {
  const { rate, idempotency } = parts
  const who = await asking(call.asker)
  if (!who.isRoot) rate.take(shareOf(who.facts))
  const { params, body } = request
  return idempotency.once<{ status: number; body: LentAnswer }>(
    { who: who.facts, key: call.idempotencyKey, asked: ['derive', params.id, body] },
    keep => told(parts, who, body, () => deriveNow(parts, call, who, request, keep)),
    answer => answeredAgain(parts, who, answer),
  )
}

async function deriveNow(
  parts: Parts,
  { asker, signal }: Call,
  who: Asking,
  { params, body }: Request,
  keep: Keep,
): Promise<{ status: number; body: LentAnswer }> {
  const { clock, guard } = parts
  const askedAt = clock.wall()
  const parent = ownLoan(parts, who, params.id)
  if (guard === undefined || parent.made?.delegation === undefined)
    throw new NotSupportedError(
      `Nothing can be derived from ${params.id}: no guard ties what is derived to its origin`,
      { context: { loan: params.id }, reason: 'guard-needed' },
    )
  if (parent.state !== 'live')
    throw new ConflictError(`Nothing can be derived from ${params.id}: it is ${parent.state}`, {
      context: { loan: params.id, why: parent.state },
      reason: 'not-derivable',
    })
  const asked = await chosenPolicy(parts, body.policy, who.isRoot)
  // It is within what somebody has agreed to already; but this policy asks for agreement itself.
  if (asked.approval === 'required' && !who.isRoot)
    throw new DeniedError(`Policy "${asked.name}" must be approved each time: only root derives by it`, {
      context: { policy: asked.name },
      reason: 'approval-not-asked',
    })
  using target = await asker.recipient(body.recipient)
  asker.requireOwn(target)
  const policy = withLifetime(parts, asked, body.lifetimeSec)
  const prepared = await prepareDerivation({
    ...(await common(parts, who, policy, target)),
    guard,
    recipient: target,
    parent: delegationId(parent.made.delegation),
    place: body.place,
    exact: body.exact,
  })
  using confirmed = confirmedBy(prepared, asker, target)
  const besides = besidesOf(confirmed, prepared.removed)
  const loan = await make(parts, confirmed, {
    kind: 'derive',
    who,
    askedAt,
    parent: parent.id,
    lifetimeSec: lifetimeOf(prepared.facts.policy, body.lifetimeSec),
    noLaterNs: parent.expires === undefined ? undefined : BigInt(parent.expires.bootNs),
    also: keptWith(keep, besides),
    signal,
  })
  return { status: 201, body: { loan: viewOf(parts, loan), ...besides } }
}
