/** bpftoken derive: a narrower delegation out of one that lives, which falls with it. */
import { requireGuard } from '../../delegation/delegate.ts'
import { ConflictError, DeniedError } from '../../errors.ts'
import { bootTimeNs, Guard, type GuardDelegation } from '../../guard/guard.ts'
import { guardHolds } from '../../guard/terms.ts'
import { attenuate, type Removal } from '../../policy/attenuate.ts'
import { DEFAULT_LIMITS, type Limits, type Policy, type Terms } from '../../policy/policy.ts'
import { MASK_DOMAINS, type Vocabulary } from '../../policy/vocabulary.ts'
import { type AdmissionOptions, admitTarget } from '../admission.ts'
import { requirePath } from '../mount-path.ts'
import { note } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'
import { openRecipient, type RecipientOptions, recipientName } from '../recipient.ts'
import { deliver, lookAhead } from './delegate.ts'

const NS_PER_SEC = 1_000_000_000n

export interface DeriveOptions extends AdmissionOptions, RecipientOptions {
  policy: string
  path: string
  strict?: boolean
  json?: boolean
}

export async function derive(id: number, options: DeriveOptions): Promise<number> {
  recipientName(options)
  requireRoot('bpftoken derive')
  requirePath(options.path)
  const vocabulary = await loadVocabulary()
  const asked = await loadPolicy(options.policy, vocabulary)
  using guard = Guard.open()
  const parent = guard.delegation(BigInt(id))
  requireParent(parent)
  const { policy, removed } = narrowed(parent, asked, vocabulary)
  if (options.strict === true && removed.length > 0)
    throw new DeniedError(
      `Policy "${asked.name}" is not within delegation ${id}: ${removed.map(describeRemoval).join('; ')}`,
      {
        context: { delegation: id, policy: asked.name },
        hint: 'Ask for less, or leave out --strict to get what there is',
      },
    )
  for (const path of requireGuard(policy, guardHolds)) note(`the guard does not enforce ${path} yet`)
  using target = await openRecipient(options)
  const { record, confirm } = admitTarget(policy, target, { ...options, vocabulary, guarded: true })
  const preflight = lookAhead(target, policy, vocabulary, options)
  for (const removal of removed) note(`not in delegation ${id}: ${describeRemoval(removal)}`)
  using lender = guard.lend(policy, { parent: parent.id })
  const also = { parent: id, removed, preflight, ...record }
  return await deliver({ ...options, policy, target, vocabulary, lender, confirm, also })
}

/** Says before anything is done what the guard would refuse with an errno alone. */
function requireParent({ id, kind, revoked, expiresNs, terms }: GuardDelegation): void {
  const refuse = (why: string, hint: string): never => {
    throw new ConflictError(`Nothing can be derived from delegation ${id}: ${why}`, {
      context: { delegation: String(id) },
      hint,
    })
  }
  if (kind === 'cgroup') refuse('it confines a cgroup', 'Name one that was lent to a user namespace')
  if (revoked) refuse('it is revoked', 'Make a new delegation: bpftoken delegate')
  if (expiresNs !== undefined && expiresNs <= bootTimeNs())
    refuse('it has expired', 'Make a new delegation: bpftoken delegate')
  if (!terms.derive.allowed)
    refuse(
      'its policy does not allow it',
      'Say spec.derive.allowed: true, with a larger maxDepth, in its policy',
    )
}

/**
 * What of the policy is within what the parent has left; the guard asks the same again, at the
 * moment of lending.
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
      hint: `See bpftoken show ${parent.id} for what it has`,
    })
  return { policy: { ...asked, ...terms }, removed }
}

/** What the parent can lend on at this moment: without what is in use, and one level less deep. */
function leftOf({ terms, live, expiresNs }: GuardDelegation, asked: Policy): Terms {
  const limits: { -readonly [Field in keyof Limits]: Limits[Field] } = { ...terms.limits }
  for (const field of ['tokens', 'programs', 'maps'] as const) {
    // Where neither states one, both use the parent's default together.
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
    // Who asks for no depth loses none, and where there is a guard it does not matter whether one
    // is required.
    derive: asked.derive.allowed
      ? { allowed: maxDepth > 1, maxDepth: Math.max(1, maxDepth - 1) }
      : asked.derive,
    guard: asked.guard,
  }
}

function describeRemoval({ path, what, why }: Removal): string {
  return `${path}: ${what} (${why})`
}
