/**
 * Lending to a process that runs. `prepareLoan` does nothing yet: it says whether the process may
 * have the loan, what would be done, and what may keep the process from using it. `lend` makes the
 * loan.
 */
import type { Action } from '../delegation/actions.ts'
import { planFor, planForContext } from '../delegation/delegate.ts'
import { type Concern, preflightTarget } from '../delegation/preflight.ts'
import type { Accounts } from '../delegation/subject.ts'
import { openTarget, type Target } from '../delegation/target.ts'
import { Owned } from '../ebpf/owned.ts'
import { NotSupportedError } from '../errors.ts'
import type { DelegationId, Guard } from '../guard/guard.ts'
import { requireGuard } from '../policy/conditions.ts'
import type { Policy } from '../policy/policy.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { type AdmissionOptions, admitTarget, type Comparison } from './admission.ts'
import type { LendFacts, Loan, Place } from './journal.ts'
import { type LoanToMake, type Making, makeLoan } from './loan.ts'

export interface LendRequest extends AdmissionOptions, Comparison {
  readonly policy: Policy
  readonly vocabulary: Vocabulary
  readonly accounts: Accounts
  /**
   * A process in the user namespace, as the caller holds it. Or the number of one that the caller has
   * started: any other could have us wait (`openTargetInTime`).
   */
  readonly recipient: number | Target
  readonly place: Place
  /**
   * The recipient is a container that is being made: this directory, as it sees it now, will be its
   * root, and the place is a path below that.
   */
  readonly rootfs?: string | undefined
  /**
   * What stands in its way, where it is not the process as it is now that will use the loan. Default:
   * what the kernel says of it.
   */
  readonly concerns?: readonly Concern[] | undefined
  /** Undefined: none is installed. */
  readonly guard: Guard | undefined
  /** Tokens can be made in this cgroup and below only. Needs the guard. */
  readonly cgroup?: string | undefined
  /** Refuse where the process may not be able to use the loan. */
  readonly onlyIfUsable?: boolean | undefined
}

/** A loan that may be made. It holds the target: the caller disposes of it. */
export interface PreparedLoan extends LoanToMake, Disposable {
  /** What may keep the target from using it. */
  readonly concerns: readonly Concern[]
  /** Fields of the policy that nothing enforces: there is no guard, and the policy allows that. */
  readonly unenforced: readonly string[]
}

/**
 * Judges, and does nothing. DeniedError: the policy is not for this process. NotSupportedError: it
 * needs a guard, or the process could not use it and that was asked for. NotFoundError,
 * ConflictError: there is no such process, or none that can be lent to.
 */
export function prepareLoan(request: LendRequest): Promise<PreparedLoan> {
  return prepare(request, undefined)
}

/** The same, with the delegation that it is derived from: see derive.ts. */
export async function prepare(request: LendRequest, parent: DelegationId | undefined): Promise<PreparedLoan> {
  const { policy, vocabulary, guard, cgroup, place, recipient, rootfs } = request
  const guarded = guard !== undefined
  const unenforced = requireTermsHeld(request)
  using begun = new Owned()
  const target = typeof recipient === 'number' ? begun.add(openTarget(recipient)) : recipient
  const { verdict, confirm } = await admitTarget(policy, target, { ...request, guarded })
  const concerns = request.concerns ?? preflightTarget(target, policy.rights, vocabulary)
  if (request.onlyIfUsable === true) refuseConcerns(target, concerns)
  const facts: LendFacts = { target: target.facts, place, policy, verdict, guarded, parent, cgroup }
  const held = new Owned()
  begun.moveTo(held)
  return {
    ...{ facts, target, vocabulary, guard, confirm, concerns, unenforced, rootfs },
    [Symbol.dispose]: () => held[Symbol.dispose](),
  }
}

/**
 * Judges what does not depend on the target. Gives the fields of the policy that nothing enforces.
 * NotSupportedError: the policy, or the cgroup, needs a guard.
 */
export function requireTermsHeld({
  policy,
  guard,
  cgroup,
}: Pick<LendRequest, 'policy' | 'guard' | 'cgroup'>): readonly string[] {
  if (cgroup !== undefined && guard === undefined)
    throw new NotSupportedError(
      'To bind tokens to a cgroup needs the guard: the kernel lets them be made in any',
      { context: { cgroup }, reason: 'guard-needed' },
    )
  return requireGuard(policy, guard !== undefined)
}

function refuseConcerns({ facts: { pid } }: Target, concerns: readonly Concern[]): void {
  if (concerns.length === 0) return
  const all = (field: 'what' | 'remedy', between: string): string =>
    concerns.map(concern => concern[field]).join(between)
  throw new NotSupportedError(`Process ${pid} could not use the loan: ${all('what', '; ')}`, {
    context: { pid, concerns: concerns.map(({ code }) => code).join(',') },
    hint: all('remedy', '. '),
  })
}

/** What `lend` would do, as data. */
export function actionsOf({ facts, target, guard, rootfs }: LoanToMake): Action[] {
  const { policy, place } = facts
  const known = guard && { ability: policy.name }
  return 'path' in place
    ? planFor(policy, target, place.path, known, rootfs)
    : planForContext(policy, target, place.contextFd, known)
}

/**
 * Makes the loan, if the target would still be admitted when all is ready. On any failure nothing
 * is left behind, or NotUndoneError says what is.
 */
export function lend(prepared: PreparedLoan, how: Making = {}): Promise<Loan> {
  return makeLoan(prepared, how)
}
