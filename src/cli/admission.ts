/** The option --any-subject, and the warning when it lets a subject through. */
import { requireNoSubjects as requireNone } from '../lending/admission.ts'
import type { Allowed } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import { note } from './output.ts'

export interface AdmissionOptions {
  /** Lends even if the policy does not name the subject, and warns of that. */
  anySubject?: boolean
}

/** Warns that only --any-subject let a subject through. Gives what `--json` prints of that. */
export function tellVerdict({ policy, because }: Allowed): { anySubject?: true } {
  if (because !== 'any-subject') return {}
  note(`policy "${policy}" does not name this subject: --any-subject lends to it all the same`)
  return { anySubject: true }
}

export function tellSubjectsIgnored(policy: string): void {
  note(`policy "${policy}" names subjects, which nobody compares here: --any-subject takes it all the same`)
}

/**
 * NotSupportedError: the policy has subjects, nothing compares them (`why` says the reason), and
 * --any-subject was not given.
 */
export function requireNoSubjects(policy: Policy, why: string, options: AdmissionOptions): void {
  if (requireNone(policy, why, options)) tellSubjectsIgnored(policy.name)
}
