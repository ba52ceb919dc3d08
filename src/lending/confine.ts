/**
 * Confining: a service in the host's user namespace is held to a policy by its cgroup. And its end.
 */
import type { DelegationId, Guard } from '../guard/guard.ts'
import type { Policy } from '../policy/policy.ts'
import { type AdmissionOptions, requireNoSubjects } from './admission.ts'
import { type Journaled, journaled } from './journal.ts'

export interface ConfineRequest extends AdmissionOptions {
  readonly guard: Guard
  readonly policy: Policy
  /** Its directory; those below it are confined with it. */
  readonly cgroup: string
}

export interface Confined {
  readonly id: DelegationId
  readonly cgroup: string
  readonly policy: string
  /** The policy names subjects, and that was overridden. */
  readonly subjectsIgnored: boolean
}

/**
 * NotSupportedError: the policy names subjects. NotFoundError, InputError: there is no such cgroup.
 * ConflictError: too many are confined.
 */
export async function confine(request: ConfineRequest, how: Journaled = {}): Promise<Confined> {
  const { guard, policy, cgroup } = request
  const subjectsIgnored = requireNoSubjects(
    policy,
    'who comes into a cgroup later is not compared with them',
    request,
  )
  return await journaled(how, { do: 'confine', cgroup, policy }, async did => {
    const id = guard.confine(cgroup, policy)
    const confined = { id, cgroup, policy: policy.name, subjectsIgnored }
    await did(confined)
    return confined
  })
}

/**
 * Ends a confinement that is named by its number or by its directory, and gives the number.
 * NotFoundError: it is not confined.
 */
export async function unconfine(
  guard: Guard,
  which: DelegationId | { readonly cgroup: string },
  how: Journaled = {},
): Promise<DelegationId> {
  const id = typeof which === 'bigint' ? which : guard.idOfCgroup(which.cgroup)
  return await journaled(how, { do: 'unconfine', delegation: id }, async did => {
    guard.unconfine(id)
    await did({ id })
    return id
  })
}
