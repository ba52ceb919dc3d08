/** Whether whoever asks would get a loan, and why; nothing is done. */

import type { RouteRequest } from '../api/routes.ts'
import { subjectInTime } from '../delegation/subject.ts'
import { DeniedError, NotFoundError } from '../errors.ts'
import { decide } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import { PolicyIndex } from '../policy/policy-index.ts'
import type { SubjectFacts } from '../policy/subject.ts'
import { shareOf } from '../registry/asker-facts.ts'
import { PATIENCE_MS } from './clock.ts'
import { type Asking, asking } from './lend.ts'
import { mayHave } from './listing.ts'
import type { Parts } from './parts.ts'
import type { Answered, Call } from './service.ts'

type Body = RouteRequest<'decide'>['body']

/** `POST /v1/decide` */
export async function decideRoute(
  parts: Parts,
  { asker }: Call,
  { body }: RouteRequest<'decide'>,
): Promise<Answered<'decide'>> {
  const { rate } = parts
  const who = await asking(asker)
  if (!who.isRoot) rate.take(shareOf(who.facts))
  const policies = await meant(parts, who, body)
  const at = new Date()
  let subject: SubjectFacts
  try {
    subject = await compared(parts, who, body, policies)
  } catch (error) {
    if (!(error instanceof DeniedError)) throw error
    return { status: 200, body: { allowed: false, because: error.message, at: at.toISOString() } }
  }
  const verdict = decide(subject, { by: who.isRoot ? 'operator' : 'subject' }, policies, at)
  return {
    status: 200,
    body: {
      allowed: verdict.allowed,
      ...(verdict.allowed ? { policy: verdict.policy } : {}),
      because: verdict.because,
      ...(verdict.allowed && verdict.entry !== undefined ? { entry: verdict.entry } : {}),
      at: verdict.at,
      trace: verdict.trace.map(policy => ({
        ...policy,
        entries: policy.entries.map(entry => ({
          ...entry,
          fields: entry.fields.map(field => ({ ...field })),
        })),
      })),
    },
  }
}

/**
 * What others than root could not have is none to them: whom it names is not theirs to know.
 * NotFoundError: there is none of that name.
 */
async function meant(
  { policies, names }: Parts,
  who: Asking,
  { policy: name }: Body,
): Promise<readonly Policy[] | PolicyIndex> {
  const named = name === undefined ? undefined : policies.get(name)
  const index =
    name === undefined ? policies.index : new PolicyIndex(named === undefined ? [] : [named.policy])
  await names.refresh([index])
  const allowed = await mayHave(who, index)
  if (name !== undefined && allowed.length === 0)
    throw new NotFoundError(`There is no policy "${name}"`, { context: { policy: name } })
  return who.isRoot ? index : allowed
}

/** Of root's recipient what the kernel says; of others what it says of them. DeniedError: not theirs. */
async function compared(
  { names }: Parts,
  { asker, isRoot }: Asking,
  { recipient }: Body,
  policies: readonly Policy[] | PolicyIndex,
): Promise<SubjectFacts> {
  const named = policies instanceof PolicyIndex ? [policies] : policies
  if (recipient === undefined) return asker.subject(named)
  using target = await asker.recipient(recipient)
  asker.requireOwn(target)
  if (!isRoot) return asker.subject(named)
  const subjects = named.flatMap(policy => policy.subjects ?? [])
  return await subjectInTime(target.process, { subjects }, names.accounts, PATIENCE_MS)
}
