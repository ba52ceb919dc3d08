/** Whether a subject may have what a policy lends, before anything is done. */

import { inOurNetwork } from '../delegation/neighbours.ts'
import { type Accounts, shownInTime, subjectAgain, subjectOf } from '../delegation/subject.ts'
import { foreignOwner, sharesOurNetwork, type Target } from '../delegation/target.ts'
import { DeniedError, NotSupportedError } from '../errors.ts'
import { needsOwnNetwork, requireNetworkAllowed } from '../policy/conditions.ts'
import { type Allowed, decide, type Request } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import type { SubjectFacts } from '../policy/subject.ts'
import { verdictLines } from '../policy/verdict-text.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { LOOK_MS } from '../sys/in-time.ts'

export interface AdmissionOptions {
  /** Who named the policy. Default: an operator. */
  readonly by?: Request['by'] | undefined
  /**
   * An operator may lend to a subject that the policy does not name. The verdict then says so, and
   * the caller tells people.
   */
  readonly anySubject?: boolean | undefined
}

/**
 * The verdict that lets this subject have the policy. DeniedError, NotSupportedError: it may not,
 * and the error has the trace.
 */
export function admit(
  policy: Policy,
  subject: SubjectFacts,
  { by = 'operator', anySubject = false }: AdmissionOptions,
): Allowed {
  const verdict = decide(subject, { by, anySubject }, [policy], new Date())
  if (verdict.allowed) return verdict
  const message = verdictLines(verdict)
  const context = { policy: policy.name, refusal: verdict.because }
  if (verdict.because === 'unsupported')
    throw new NotSupportedError(message, { context, reason: 'subjects-unsupported' })
  throw new DeniedError(message, { context, trace: verdict.trace, reason: 'subject-refused' })
}

/** Says who is compared with the policy: of whoever asks for itself, that, not the process lent to. */
export interface Comparison {
  /**
   * Read anew at each call. Default: the process that is lent to, without what it could have us wait
   * for, which matches no policy then.
   */
  readonly subject?: (() => SubjectFacts) | undefined
}

/** The process that is lent to, with what it could have us wait for: that is read once, in time. */
export async function compareInTime(
  { process }: Target,
  policy: Policy,
  accounts: Accounts,
  timeoutMs = LOOK_MS,
): Promise<Comparison> {
  if (policy.subjects?.some(({ label }) => label !== undefined) !== true) return {}
  const before = await shownInTime(process, policy, timeoutMs)
  return { subject: () => subjectAgain(process, policy, accounts, before) }
}

export interface TargetAdmission extends AdmissionOptions, Comparison {
  readonly vocabulary: Vocabulary
  readonly accounts: Accounts
  /** There is a guard, which judges by the network too. */
  readonly guarded: boolean
}

/** What a delegation to a process that runs is bound to. */
export interface Admitted {
  readonly verdict: Allowed
  /**
   * Rejects as `admitTarget` does if the process has changed so that it would not be admitted now.
   */
  confirm(): Promise<void>
}

/**
 * Admits the target to the policy by what the kernel says of it now, and asks again in `confirm`.
 */
export async function admitTarget(
  policy: Policy,
  target: Target,
  options: TargetAdmission,
): Promise<Admitted> {
  const { vocabulary, guarded, accounts, by } = options
  const { subject = () => subjectOf(target.process, policy, accounts) } = options
  await requireOwnNetwork(target, policy, vocabulary, guarded, { first: true })
  const verdict = admit(policy, subject(), options)
  return {
    verdict,
    async confirm() {
      await requireOwnNetwork(target, policy, vocabulary, guarded)
      // If no subject was compared, no change can matter.
      if (verdict.because === 'subject') admit(policy, subject(), { by })
    },
  }
}

/**
 * Refuses a target from which the host's network can be reached. `guarded`: a guard judges each
 * attachment by its network, so it does not matter who else is in the namespace or may enter it
 * later. Without a guard all tasks of this machine are looked at, and the more there are the longer
 * that takes. `first`: it is asked again when all is ready.
 */
async function requireOwnNetwork(
  target: Target,
  policy: Policy,
  vocabulary: Vocabulary,
  guarded: boolean,
  asked: { readonly first?: boolean } = {},
): Promise<void> {
  if (!needsOwnNetwork(policy, vocabulary)) return
  const refuse = (there: string | undefined): void => {
    if (there !== undefined) requireNetworkAllowed(policy, vocabulary, there)
  }
  refuse(sharesOurNetwork(target))
  if (guarded && policy.mode === 'enforce') return
  const owner = foreignOwner(target)
  if (owner !== undefined)
    refuse(`user ${owner}, who made that user namespace, can enter it from the host's network`)
  refuse(await inOurNetwork(target, asked))
}

/**
 * Refuses a policy that root must approve each time, where root is not asked each time: `why`. Fail
 * closed: approval would be said, and not asked for.
 */
export function requireNoApproval({ name, approval }: Policy, why: string): void {
  if (approval === 'none') return
  throw new NotSupportedError(`Policy "${name}" must be approved each time, and ${why}`, {
    context: { policy: name },
    reason: 'approval-not-asked',
  })
}

/**
 * Refuses a policy with subjects where nobody can compare them, for the reason `why`. Fail closed:
 * otherwise the policy would name subjects that nothing enforces. True: the caller overrode them,
 * and tells people.
 */
export function requireNoSubjects(policy: Policy, why: string, { anySubject }: AdmissionOptions): boolean {
  if (policy.subjects === undefined) return false
  if (anySubject === true) return true
  throw new NotSupportedError(`Policy "${policy.name}" names subjects, and ${why}`, {
    context: { policy: policy.name },
    reason: 'subjects-not-compared',
  })
}
