/**
 * What a use case tells whoever keeps records of it. The daemon hands in its registry; a command
 * that keeps none hands in nothing.
 *
 * One journal is for one use case. `will` comes first, before anything that is to be done can be
 * reached by anybody, with all that a record needs to find it again, whatever becomes of us. Then
 * comes `did`, once it is reached, or `failed`; both only where a part that was told had to be
 * given up again, and then the last one counts.
 */
import type { DelegatedMount } from '../delegation/instances.ts'
import type { TargetFacts } from '../delegation/target.ts'
import type { DelegationId } from '../guard/guard.ts'
import type { Allowed } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'

/** Where the loan is to be: we mount it, or the workload does, with the context that it opened. */
export type Place = { readonly path: string } | { readonly contextFd: number }

/** A program that is started with a loan in place. Ids are the host's. */
export interface ProgramFacts {
  readonly command: readonly string[]
  readonly uid: number
  readonly gid: number
  readonly network: 'own' | 'host'
  readonly capabilities: readonly string[]
}

export interface LendFacts {
  readonly target: TargetFacts
  readonly place: Place
  /** Its terms are those that are lent: of what is derived, what its origin had left. */
  readonly policy: Policy
  /** Why this subject may have it, with what was compared. */
  readonly verdict: Allowed
  /** Whether a guard holds to the terms that the kernel cannot. */
  readonly guarded: boolean
  /** The delegation that it is derived from. */
  readonly parent?: DelegationId | undefined
  /** Tokens can be made in this cgroup and below only. */
  readonly cgroup?: string | undefined
  readonly program?: ProgramFacts | undefined
}

export interface Loan {
  readonly target: TargetFacts
  readonly place: Place
  /** As the target sees it; undefined: the workload mounts it. */
  readonly mount: DelegatedMount | undefined
  /** The guard's number for it; undefined: there is no guard. */
  readonly delegation: DelegationId | undefined
}

export type Operation =
  | ({ readonly do: 'lend' } & LendFacts)
  | {
      readonly do: 'undelegate'
      readonly target: TargetFacts
      readonly path: string
      readonly mount?: number | undefined
    }
  | { readonly do: 'revoke'; readonly delegation: DelegationId }
  | { readonly do: 'detach'; readonly delegations: readonly DelegationId[]; readonly kill: boolean }
  | { readonly do: 'confine'; readonly cgroup: string; readonly policy: Policy }
  | { readonly do: 'unconfine'; readonly delegation: DelegationId }

/** What came of it: the answer of the use case. */
export type Outcome = object

export interface Journal {
  /** When it throws, nothing is done, and the use case fails with that. */
  will(operation: Operation): void | Promise<void>
  /** It is done, and reached. When this throws, a loan is undone; all else stays done. */
  did(outcome: Outcome): void | Promise<void>
  /**
   * Nothing of it is left, unless the error says what is: NotUndoneError, or the delegations that
   * its context names as `revoked`.
   */
  failed(error: unknown): void | Promise<void>
}

/** Keeps nothing. */
export const NO_JOURNAL: Journal = { will() {}, did() {}, failed() {} }

export interface Journaled {
  readonly journal?: Journal | undefined
}

/**
 * Does what `act` does, which itself says when it is reached. Where a failure could not be told,
 * both failures are thrown.
 */
export async function journaled<T>(
  { journal = NO_JOURNAL }: Journaled,
  operation: Operation,
  act: (did: (outcome: Outcome) => Promise<void>) => T | Promise<T>,
): Promise<T> {
  await journal.will(operation)
  try {
    return await act(async outcome => journal.did(outcome))
  } catch (error) {
    try {
      await journal.failed(error)
    } catch (untold) {
      throw new AggregateError([error, untold], 'It failed, and the journal could not be told')
    }
    throw error
  }
}
