/** Whether the subjects of a policy name who is to get a delegation, before anything is done. */
import { requireOwnNetwork } from '../delegation/delegate.ts'
import { subjectOf } from '../delegation/subject.ts'
import type { Target } from '../delegation/target.ts'
import { DeniedError, NotSupportedError } from '../errors.ts'
import { type Allowed, decide } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import type { SubjectFacts } from '../policy/subject.ts'
import { verdictLines } from '../policy/verdict-text.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { accounts } from './accounts.ts'
import { note } from './output.ts'

export interface AdmissionOptions {
  /** Lends also to whom the policy does not name; that is said aloud. */
  anySubject?: boolean
}

/**
 * The verdict that lets this subject have the policy. DeniedError, NotSupportedError: with the
 * trace.
 */
export function admit(policy: Policy, subject: SubjectFacts, { anySubject }: AdmissionOptions): Allowed {
  const request = { by: 'operator', anySubject: anySubject === true } as const
  const verdict = decide(subject, request, [policy], new Date())
  if (verdict.allowed) {
    if (verdict.because === 'any-subject')
      note(`policy "${policy.name}" does not name this subject: --any-subject lends to it all the same`)
    return verdict
  }
  const message = verdictLines(verdict)
  const context = { policy: policy.name, refusal: verdict.because }
  if (verdict.because === 'unsupported')
    throw new NotSupportedError(message, {
      context,
      hint: `Name users, cgroups, units or labels, or ${OVERRIDE}`,
    })
  throw new DeniedError(message, {
    context,
    trace: verdict.trace,
    hint: `Add this subject to spec.subjects of the policy, or ${OVERRIDE}`,
  })
}

const OVERRIDE = 'say --any-subject to lend to it all the same'

/** What a delegation to a process that runs is bound to. */
export interface Admitted {
  /** For `--json`: present when only `--any-subject` let it through. */
  readonly record: { anySubject?: true }
  /** Throws as `admit` does when the process is no more what was let through. */
  confirm(): void
}

export interface TargetAdmissionOptions extends AdmissionOptions {
  readonly vocabulary: Vocabulary
  /** There is a guard, which judges by the network too. */
  readonly guarded: boolean
}

/** Lets the target have the policy, by what the kernel says of it now, and again in `confirm`. */
export function admitTarget(policy: Policy, target: Target, options: TargetAdmissionOptions): Admitted {
  const { vocabulary, guarded } = options
  requireOwnNetwork(target, policy, vocabulary, guarded)
  const verdict = admit(policy, subjectOf(target.process, policy, accounts), options)
  return {
    record: recordOf(verdict),
    confirm() {
      requireOwnNetwork(target, policy, vocabulary, guarded)
      // Where no subject was compared, none can have changed.
      if (verdict.because === 'subject') admit(policy, subjectOf(target.process, policy, accounts), {})
    },
  }
}

export function recordOf(verdict: Allowed): { anySubject?: true } {
  return verdict.because === 'any-subject' ? { anySubject: true } : {}
}

/**
 * Refuses a policy with subjects where nobody compares them. Fail closed: they would be said, and
 * not held.
 */
export function requireNoSubjects(policy: Policy, who: string, { anySubject }: AdmissionOptions): void {
  if (policy.subjects === undefined) return
  if (anySubject === true) {
    note(
      `policy "${policy.name}" names subjects, which nobody compares here: --any-subject takes it all the same`,
    )
    return
  }
  throw new NotSupportedError(`Policy "${policy.name}" names subjects, and ${who}`, {
    context: { policy: policy.name },
    hint: 'Leave out spec.subjects, or say --any-subject to do it all the same',
  })
}
