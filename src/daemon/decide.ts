/** Whether whoever asks would get a loan, and why; nothing is done. */

import type { RouteRequest } from '../api/routes.ts'
import { subjectInTime } from '../delegation/subject.ts'
import { DeniedError, NotFoundError } from '../errors.ts'
import { decide } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import type { SubjectFacts } from '../policy/subject.ts'
import { shareOf } from '../registry/asker-facts.ts'
import { type Asking, asking } from './lend.ts'
import type { Parts } from './parts.ts'
import type { Answered, Call } from './service.ts'

/** How long a recipient may have us wait. */
const TIMEOUT_MS = 1000

type Body = RouteRequest<'decide'>['body']

/** `POST /v1/decide` */
export async function decideRoute(
  parts: Parts,
  { asker }: Call,
  { body }: RouteRequest<'decide'>,
): Promise<Answered<'decide'>> {
  const { names, rate } = parts
  const who = await asking(asker)
  if (!who.isRoot) rate.take(shareOf(who.facts))
  const policies = meant(parts, body)
  await names.refresh(policies)
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

/** Those that others than root cannot have in any case say nothing to them. */
function meant({ policies }: Parts, { policy: name }: Body): Policy[] {
  if (name === undefined) return [...policies.all()].map(({ policy }) => policy)
  const found = policies.get(name)
  if (found === undefined)
    throw new NotFoundError(`There is no policy "${name}"`, { context: { policy: name } })
  return [found.policy]
}

/** Of root's recipient what the kernel says; of others what it says of them. DeniedError: not theirs. */
async function compared(
  { names }: Parts,
  { asker, isRoot }: Asking,
  { recipient }: Body,
  policies: readonly Policy[],
): Promise<SubjectFacts> {
  if (recipient === undefined) return asker.subject(policies)
  using target = await asker.recipient(recipient)
  asker.requireOwn(target)
  if (!isRoot) return asker.subject(policies)
  const subjects = policies.flatMap(policy => policy.subjects ?? [])
  return await subjectInTime(target.process, { subjects }, names.accounts, TIMEOUT_MS)
}
