/** To lend: judged by what the kernel says of who asks, and again right before it is kept. */

import type { RouteAnswer, RouteRequest } from '../api/routes.ts'
import { shownInTime, subjectAgain } from '../delegation/subject.ts'
import type { Target } from '../delegation/target.ts'
import { BpftokenError, ConflictError, DeniedError, InputError } from '../errors.ts'
import { admit } from '../lending/admission.ts'
import { actionsOf, type LendRequest, type PreparedLoan, prepareLoan } from '../lending/lend.ts'
import type { Removal } from '../policy/attenuate.ts'
import { requireNetworkAllowed } from '../policy/conditions.ts'
import type { Policy } from '../policy/policy.ts'
import { shareOf } from '../registry/asker-facts.ts'
import type { AnswerRecord, LoanRecord } from '../registry/loan-record.ts'
import { Fd } from '../sys/fd.ts'
import { uniqueNamespaceId } from '../sys/namespace.ts'
import { cgroup2Path } from '../sys/proc-file.ts'
import { readProc } from '../sys/process.ts'
import type { Asker } from './asker.ts'
import { errorFacts } from './audit-facts.ts'
import { PATIENCE_MS } from './clock.ts'
import type { Keep } from './idempotency.ts'
import { type Asked, LoanJournal } from './loan-journal.ts'
import { ownsLoan, type Who } from './ownership.ts'
import type { Parts } from './parts.ts'
import { chosenPolicy } from './policy-choice.ts'
import type { Answered, Call } from './service.ts'
import { viewOf } from './status-of.ts'

export type LendInput = RouteRequest<'lend'>['body']

/** Who asks, read at the beginning of the request. */
export interface Asking extends Who {
  readonly asker: Asker
}

export async function asking(asker: Asker): Promise<Asking> {
  return { asker, ...(await asker.who()) }
}

/**
 * The loan as it may be made, for this target. The caller disposes of it. DeniedError: the namespace
 * is not the asker's own, or the policy not for it; else as `prepareLoan`.
 */
export async function prepareFor(
  parts: Parts,
  { asker, isRoot }: Asking,
  {
    policy: asked,
    target,
    input,
  }: {
    policy: Policy
    target: Target
    input: Pick<LendInput, 'place' | 'anySubject' | 'cgroup' | 'strict' | 'lifetimeSec'>
  },
): Promise<PreparedLoan> {
  const { anySubject, place, cgroup, strict, lifetimeSec } = input
  refuseRootOnly({ anySubject }, isRoot)
  const own = (): void => requireOwn(parts, asker, asked, target)
  own()
  const policy = withLifetime(parts, asked, lifetimeSec)
  const request: LendRequest = {
    ...(await common(parts, { asker, isRoot }, policy, target)),
    recipient: target,
    place,
    cgroup,
    anySubject,
    onlyIfUsable: strict,
  }
  return confirmedBy(await prepareLoan(request), asker, target, own)
}

/**
 * Of root the recipient is compared, as root's own commands do; of others, they themselves. What can
 * be looked at only by waiting is looked at here, and the rest again at once when all is ready.
 */
export async function common(
  { vocabulary, names, guard }: Parts,
  { asker, isRoot }: Pick<Asking, 'asker' | 'isRoot'>,
  policy: Policy,
  { process }: Target,
): Promise<Pick<LendRequest, 'policy' | 'vocabulary' | 'accounts' | 'guard' | 'by' | 'subject'>> {
  const { accounts } = names
  const before = isRoot ? await shownInTime(process, policy, PATIENCE_MS) : await asker.shown([policy])
  return {
    ...{ policy, vocabulary, guard, accounts },
    by: isRoot ? 'operator' : 'subject',
    subject: () =>
      isRoot ? subjectAgain(process, policy, accounts, before) : asker.subjectAgain([policy], before),
  }
}

/**
 * The asker is still there, and the namespace is its own, or was made for it under this policy:
 * DeniedError.
 */
function requireOwn(parts: Parts, asker: Asker, policy: Policy, target: Target): void {
  if (parts.launches.isFor(asker, target)) {
    asker.confirm()
    requireLaunch(parts, policy)
  } else asker.requireOwn(target)
}

function requireLaunch({ guard, vocabulary }: Pick<Parts, 'guard' | 'vocabulary'>, policy: Policy): void {
  const { name, launch } = policy
  if (launch === 'allowed') {
    // As where the namespace is the user's own, unless the policy says that it does without a guard.
    const isHeld = (guard !== undefined && policy.mode === 'enforce') || policy.guard === 'optional'
    if (!isHeld)
      requireNetworkAllowed(
        policy,
        vocabulary,
        'what is loaded can be handed to another process of that user, which attaches it to the network that it is in',
      )
    return
  }
  throw new DeniedError(`Policy "${name}" does not let the launcher start programs`, {
    context: { policy: name },
    reason: 'launch-refused',
  })
}

/** When all is ready, the asker must still be there, and the namespace its own. */
export function confirmedBy<T extends PreparedLoan>(
  prepared: T,
  asker: Asker,
  target: Target,
  own: () => void = () => asker.requireOwn(target),
): T {
  return {
    ...prepared,
    confirm: async () => {
      await prepared.confirm?.()
      own()
    },
  }
}

export function refuseRootOnly(fields: Readonly<Record<string, unknown>>, isRoot: boolean): void {
  const [name] = Object.entries(fields).find(([, value]) => value !== undefined && value !== false) ?? []
  if (name === undefined || isRoot) return
  throw new DeniedError(`Only root may ask for ${name}`, { context: { field: name } })
}

/**
 * Where there is a guard it holds to the shorter one. Without one we end the loan ourselves, which
 * the tokens that were made outlive: so it is no term of it, which nobody would hold to.
 */
export function withLifetime({ guard }: Parts, policy: Policy, lifetimeSec: number | undefined): Policy {
  const { limits } = policy
  if (guard === undefined || lifetimeSec === undefined) return policy
  if (limits.lifetimeSec !== undefined && limits.lifetimeSec <= lifetimeSec) return policy
  return { ...policy, limits: { ...limits, lifetimeSec } }
}

/** After which we end it. */
export function lifetimeOf(policy: Policy, lifetimeSec: number | undefined): number | undefined {
  const own = policy.limits.lifetimeSec
  if (own === undefined || lifetimeSec === undefined) return own ?? lifetimeSec
  return Math.min(own, lifetimeSec)
}

export interface ToMake {
  readonly kind: Asked['kind']
  readonly who: Asking
  readonly askedAt: string
  readonly lifetimeSec: number | undefined
  readonly noLaterNs?: bigint | undefined
  readonly parent?: number | undefined
  readonly approvedBy?: number | undefined
  readonly comment?: string | undefined
  readonly container?: Asked['container']
  readonly also?: Asked['also']
  readonly signal?: AbortSignal | undefined
}

/** Makes it, counts it, and holds on to whom it was lent to. */
export async function make(parts: Parts, prepared: PreparedLoan, how: ToMake): Promise<LoanRecord> {
  const { book, slots, recipients, launches, counters } = parts
  const { signal, who, ...asked } = how
  using slot = who.isRoot ? undefined : slots.reserve(shareOf(who.facts))
  const id = book.registry.nextLoanId()
  const journal = new LoanJournal(parts, {
    ...asked,
    id,
    asker: who.facts,
    recipientCgroup: cgroup2Path(readProc(prepared.target.process, 'cgroup')),
    recipientNamespaceId: uniqueNamespaceId(prepared.target.userNamespace),
    begun: () => slot?.taken(),
  })
  counters.decided('allowed')
  await book.inTurn(id, () => book.making(id, () => parts.lend(prepared, { journal, signal })))
  // The target is done with; what is left of it to hold are the process and its user namespace.
  const { process, userNamespace } = prepared.target
  // It may have ended by now.
  if (book.loan(id)?.state !== 'ended')
    recipients.watch(id, new Fd(process.pidfd.release()), new Fd(userNamespace.release()))
  if (book.loan(id)?.state === 'live')
    launches.release(prepared.target, prepared.facts.policy.rights.capabilities)
  return journal.record!
}

/** What the answer has besides the loan. */
export type LentAnswer = RouteAnswer<'derive'>
export type Besides = Omit<LentAnswer, 'loan'>

export function besidesOf({ concerns, unenforced }: PreparedLoan, removed?: readonly Removal[]): Besides {
  return {
    preflight: concerns.map(({ code, certain, what, remedy }) => ({ code, certain, what, remedy })),
    unenforced: [...unenforced],
    ...(removed === undefined
      ? {}
      : { removed: removed.map(({ path, what, why }) => ({ path, what, why })) }),
  }
}

/** Undefined: it can be made again without. */
function keptText(besides: Besides): string | undefined {
  const { preflight, unenforced, removed = [] } = besides
  return preflight.length + unenforced.length + removed.length === 0 ? undefined : JSON.stringify(besides)
}

/** What is kept of the answer, together with the loan. */
export function keptWith(keep: Keep, besides: Besides): Asked['also'] {
  return loan => ({ answer: keep({ status: 201, loan: loan.id, body: keptText(besides) }) })
}

/**
 * The answer that was given before. Undefined: the daemon died before it was given, and the loan is
 * lost. ConflictError: it was another one's, or nobody knows it any more.
 */
export function answeredAgain(
  parts: Parts,
  who: Who,
  { body, loan: id }: AnswerRecord,
): { status: number; body: LentAnswer } | undefined {
  const loan = id === undefined ? undefined : parts.book.loan(id)
  if (loan === undefined || !ownsLoan(who, loan))
    throw new ConflictError('What came of the request with this Idempotency-Key is not known any more')
  if (loan.ended?.why === 'lost') return undefined
  const besides = body === undefined ? { preflight: [], unenforced: [] } : (JSON.parse(body) as Besides)
  return { status: 201, body: { loan: viewOf(parts, loan), ...besides } }
}

/** `POST /v1/loans` */
export async function lendRoute(
  parts: Parts,
  call: Call,
  { body: input }: RouteRequest<'lend'>,
): Promise<Answered<'lend'>> {
  const { rate, idempotency, approvals } = parts
  const who = await asking(call.asker)
  if (!who.isRoot) rate.take(shareOf(who.facts))
  return idempotency.once(
    { who: who.facts, key: call.idempotencyKey, asked: ['lend', input] },
    keep => told(parts, who, input, () => lendNow(parts, call, who, input, keep)),
    answer =>
      answer.request === undefined
        ? answeredAgain(parts, who, answer)
        : { status: 202, body: approvals.again(who, answer.request) },
  )
}

/** The caller disposes of it. A program that is to be started is started for nobody else. */
async function recipientOf(
  parts: Parts,
  { asker, isRoot }: Asking,
  policy: Policy,
  { recipient, place, dryRun }: LendInput,
): Promise<Target> {
  if (!('launch' in recipient)) return asker.recipient(recipient)
  if (isRoot || dryRun === true || !('path' in place))
    throw new InputError('The launcher starts programs for others than root, with a path to lend at')
  // Before anything is made; it is asked again when all is ready.
  admit(policy, await asker.subject([policy]), { by: 'subject' })
  requireLaunch(parts, policy)
  return parts.launches.start(asker, recipient.launch)
}

async function lendNow(
  parts: Parts,
  { signal }: Call,
  who: Asking,
  input: LendInput,
  keep: Keep,
): Promise<Answered<'lend'>> {
  const { clock, approvals } = parts
  const askedAt = clock.wall()
  const policy = await chosenPolicy(parts, input.policy, who.isRoot)
  using target = await recipientOf(parts, who, policy, input)
  using prepared = await prepareFor(parts, who, { policy, target, input })
  const besides = besidesOf(prepared)
  const approval = policy.approval === 'required' && !who.isRoot
  if (input.dryRun === true) {
    const { policy: name, because } = prepared.facts.verdict
    const actions = actionsOf(prepared).map(action => ({ ...action }))
    return { status: 200, body: { dryRun: true, policy: name, because, approval, actions, ...besides } }
  }
  if (approval)
    return { status: 202, body: await approvals.wait({ who, policy, target, input, askedAt, keep }) }
  const loan = await make(parts, prepared, {
    kind: 'delegate',
    who,
    askedAt,
    lifetimeSec: lifetimeOf(policy, input.lifetimeSec),
    comment: input.comment,
    also: keptWith(keep, besides),
    signal,
  })
  return { status: 201, body: { loan: viewOf(parts, loan), ...besides } }
}

/**
 * A refusal is written down, whatever it is for; of who is refused again and again, how often in each
 * minute. Of root each is.
 */
export async function told<T>(
  { audit, counters, log }: Parts,
  { facts, isRoot }: Asking,
  input: { readonly policy: unknown; readonly recipient: unknown },
  act: () => Promise<T>,
): Promise<T> {
  try {
    return await act()
  } catch (error) {
    const refused = error instanceof DeniedError
    if (refused) counters.decided('refused')
    const { policy, recipient } = input
    // The text of a document is no name, and long.
    const named = typeof policy === 'object' && policy !== null && 'name' in policy ? policy.name : undefined
    const entry = {
      event: refused ? 'lend.denied' : 'lend.refused',
      facts: { asker: facts, policy: named, recipient, error: errorFacts(error) },
    }
    // It is refused all the same.
    const written: Promise<unknown> = isRoot
      ? audit.append(entry)
      : audit.appendFolded(alike(facts, error), entry)
    await written.catch(untold => log.error({ error: untold }, 'a refusal could not be written down'))
    throw error
  }
}

/** Words of ours alone: nobody can make up new ones. */
function alike(facts: Asking['facts'], error: unknown): string {
  const { code, reason } = error instanceof BpftokenError ? error : { code: 'none', reason: undefined }
  return [shareOf(facts), code, reason].join(' ')
}
