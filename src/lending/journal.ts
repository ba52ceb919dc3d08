/**
 * What a use case tells the keeper of records. The daemon hands in its registry; a command keeps no
 * records and hands in nothing.
 *
 * One journal serves one use case. `will` comes first, before anybody can reach anything. It has
 * all that a record needs to find the loan again, should we die. Then comes `did`, once the loan
 * can be reached, or `failed`. Both come only if a part that was told had to be given up again, and
 * then the last one counts.
 */
import type { DelegatedMount } from '../delegation/instances.ts'
import type { TargetFacts } from '../delegation/target.ts'
import type { DelegationId } from '../guard/guard.ts'
import type { Allowed } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'

/** Where the loan is to be. We mount it, or the workload mounts the context that it opened. */
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
  /** With the terms that are lent: a derived delegation gets what its origin had left. */
  readonly policy: Policy
  /** Why this subject may have it, with what was compared. */
  readonly verdict: Allowed
  /** Whether a guard enforces the terms that the kernel cannot. */
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

/** The result: the answer of the use case. */
export type Outcome = object

export interface Journal {
  /** If it throws, nothing is done, and the use case fails with that error. */
  will(operation: Operation): void | Promise<void>
  /**
   * Of a loan, when all is made and nothing can be reached yet: for what of `will` need not be waited
   * for before. If it throws, nothing has been lent, and `failed` is told.
   */
  ready?(): void | Promise<void>
  /**
   * Everything is done and can be reached. If this throws, a loan is undone; other results stay.
   */
  did(outcome: Outcome): void | Promise<void>
  /**
   * Nothing is left, unless the error says so: NotUndoneError, or an error whose context names
   * delegations as `revoked`.
   */
  failed(error: unknown): void | Promise<void>
}

/** Keeps nothing. */
export const NO_JOURNAL: Journal = { will() {}, did() {}, failed() {} }

export interface Journaled {
  readonly journal?: Journal | undefined
}

/**
 * Runs `act`, which calls `did` itself once its result can be reached. If a failure cannot be told
 * to the journal, both failures are thrown.
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
