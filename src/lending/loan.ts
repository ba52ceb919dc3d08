/** The making of one loan, between `will` and `did`, of whatever kind it is. */
import { delegate, delegateContext } from '../delegation/delegate.ts'
import type { Target } from '../delegation/target.ts'
import type { Guard } from '../guard/guard.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { type Journal, type Journaled, journaled, type LendFacts, type Loan } from './journal.ts'

export interface LoanToMake {
  readonly facts: LendFacts
  readonly target: Target
  readonly vocabulary: Vocabulary
  readonly guard: Guard | undefined
  /** Rejects if the target would not be admitted any more. */
  readonly confirm?: (() => void | Promise<void>) | undefined
  /** See `LendRequest`. */
  readonly rootfs?: string | undefined
}

export interface Making extends Journaled {
  /** Aborting undoes what was done so far. It comes too late once the mount is being attached. */
  readonly signal?: AbortSignal | undefined
}

/** Makes it. On any failure nothing is left behind, or NotUndoneError says what is. */
export function makeLoan(loan: LoanToMake, how: Making): Promise<Loan> {
  const { facts, target, vocabulary, guard, confirm, rootfs } = loan
  const { policy, place, parent, cgroup } = facts
  return journaled(how, { do: 'lend', ...facts }, async did => {
    how.signal?.throwIfAborted()
    using lender = guard?.lend(policy, {
      executorOnly: true,
      ...(parent === undefined ? {} : { parent }),
      ...(cgroup === undefined ? {} : { cgroup }),
    })
    let made: Loan | undefined
    const options = {
      signal: how.signal,
      guard: lender,
      confirm: confirmed(confirm, how.journal),
      reached: (mount: Loan['mount']) => {
        made = { target: target.facts, place, mount, delegation: lender?.delegation() }
        return did(made)
      },
    }
    if ('path' in place) await delegate(policy, target, vocabulary, { ...options, path: place.path, rootfs })
    else await delegateContext(policy, target, place.contextFd, vocabulary, options)
    return made!
  })
}

/**
 * What is done when all is ready. The journal's part may wait for a disk, and whoever asks may be
 * another one after it: so they are looked at last. Undefined: nothing.
 */
export function confirmed(
  confirm: LoanToMake['confirm'],
  journal: Journal | undefined,
): LoanToMake['confirm'] {
  if (journal?.ready === undefined) return confirm
  return async () => {
    await journal.ready?.()
    await confirm?.()
  }
}
