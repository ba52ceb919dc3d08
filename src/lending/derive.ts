/** Deriving: a part of a delegation is lent on. The derived delegation ends with its origin. */
import { ConflictError, DeniedError } from '../errors.ts'
import { bootTimeNs } from '../guard/clock.ts'
import type { DelegationId, Guard, GuardDelegation } from '../guard/guard.ts'
import { attenuate, type Removal } from '../policy/attenuate.ts'
import { DEFAULT_LIMITS, type Limits, type Policy, type Terms } from '../policy/policy.ts'
import { MASK_DOMAINS, type Vocabulary } from '../policy/vocabulary.ts'
import { type LendRequest, type PreparedLoan, prepare } from './lend.ts'

const NS_PER_SEC = 1_000_000_000n

export interface DeriveRequest extends Omit<LendRequest, 'cgroup'> {
  readonly guard: Guard
  /** The number of the delegation to derive from. */
  readonly parent: DelegationId
  /** Refuse a policy that asks for more than there is, instead of lending what there is. */
  readonly exact?: boolean | undefined
}

export interface PreparedDerivation extends PreparedLoan {
  /** What the policy asks for and does not get. */
  readonly removed: readonly Removal[]
}

/**
 * As `prepareLoan`, for the part of the policy that is within the parent. NotFoundError: there is
 * no such delegation. ConflictError: nothing can be derived from it. DeniedError: the parent has
 * none of these rights left, or not all. The caller disposes of the loan; `lend` makes it.
 */
export async function prepareDerivation(request: DeriveRequest): Promise<PreparedDerivation> {
  const { guard, policy: asked, vocabulary, exact } = request
  const parent = guard.delegation(request.parent)
  requireDerivable(parent)
  const { policy, removed } = narrowed(parent, asked, vocabulary)
  if (exact === true && removed.length > 0)
    throw new DeniedError(
      `Policy "${asked.name}" is not within delegation ${parent.id}: ${removed.map(describeRemoval).join('; ')}`,
      {
        context: { delegation: Number(parent.id), policy: asked.name },
        reason: 'more-than-parent',
      },
    )
  return { ...(await prepare({ ...request, policy }, parent.id)), removed }
}

export function describeRemoval({ path, what, why }: Removal): string {
  return `${path}: ${what} (${why})`
}

/** Refuses in words, before anything is done, what the guard would refuse with an errno alone. */
function requireDerivable({ id, kind, revoked, expiresNs, terms }: GuardDelegation): void {
  const refuse = (why: string, text: string): never => {
    throw new ConflictError(`Nothing can be derived from delegation ${id}: ${text}`, {
      context: { delegation: String(id), why },
      reason: 'not-derivable',
    })
  }
  if (kind === 'cgroup') refuse('confined', 'it confines a cgroup')
  if (revoked) refuse('revoked', 'it is revoked')
  if (expiresNs !== undefined && expiresNs <= bootTimeNs()) refuse('expired', 'it has expired')
  if (!terms.derive.allowed) refuse('forbidden', 'its policy does not allow it')
}

/**
 * The part of the policy that is within what the parent has left. The guard asks the same again at
 * the moment of lending.
 */
function narrowed(
  parent: GuardDelegation,
  asked: Policy,
  vocabulary: Vocabulary,
): { policy: Policy; removed: Removal[] } {
  const { terms, removed } = attenuate(leftOf(parent, asked), asked, vocabulary)
  if (MASK_DOMAINS.every(domain => terms.rights.masks[domain] === 0n))
    throw new DeniedError(`Delegation ${parent.id} has nothing of policy "${asked.name}" to lend`, {
      context: { delegation: String(parent.id), policy: asked.name },
      reason: 'nothing-to-derive',
    })
  return { policy: { ...asked, ...terms }, removed }
}

/**
 * What the parent can lend on at this moment: its limits less what is in use, and one level less of
 * depth.
 */
function leftOf({ terms, live, expiresNs }: GuardDelegation, asked: Policy): Terms {
  const limits: { -readonly [Field in keyof Limits]: Limits[Field] } = { ...terms.limits }
  for (const field of ['tokens', 'programs', 'maps'] as const) {
    // If neither policy states a limit, both delegations share the parent's default.
    const limit = limits[field] ?? (asked.limits[field] === undefined ? undefined : DEFAULT_LIMITS[field])
    if (limit !== undefined) limits[field] = Math.max(0, limit - live[field])
  }
  if (limits.mapBytes !== undefined)
    limits.mapBytes = limits.mapBytes > live.mapBytes ? limits.mapBytes - live.mapBytes : 0n
  if (expiresNs !== undefined) limits.lifetimeSec = Number((expiresNs - bootTimeNs()) / NS_PER_SEC)
  const { maxDepth } = terms.derive
  return {
    ...terms,
    limits,
    // A policy that asks for no depth loses none. A guard is there, so it does not matter whether
    // one is required.
    derive: asked.derive.allowed
      ? { allowed: maxDepth > 1, maxDepth: Math.max(1, maxDepth - 1) }
      : asked.derive,
    guard: asked.guard,
  }
}
