/** The option --any-subject, and what is said aloud when it lets something through. */
import { requireNoSubjects as requireNone } from '../lending/admission.ts'
import type { Allowed } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import { note } from './output.ts'

export interface AdmissionOptions {
  /** Lends also to whom the policy does not name; that is said aloud. */
  anySubject?: boolean
}

/**
 * Says aloud that only --any-subject let a subject through. Gives what `--json` then prints of it.
 */
export function tellVerdict({ policy, because }: Allowed): { anySubject?: true } {
  if (because !== 'any-subject') return {}
  note(`policy "${policy}" does not name this subject: --any-subject lends to it all the same`)
  return { anySubject: true }
}

export function tellSubjectsIgnored(policy: string): void {
  note(`policy "${policy}" names subjects, which nobody compares here: --any-subject takes it all the same`)
}

/**
 * NotSupportedError: the policy has subjects, nobody compares them (`why`), and that is not wanted.
 */
export function requireNoSubjects(policy: Policy, why: string, options: AdmissionOptions): void {
  if (requireNone(policy, why, options)) tellSubjectsIgnored(policy.name)
}
