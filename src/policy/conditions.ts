/**
 * The conditions for using a policy, before anything is lent: a guard for terms that only the guard
 * can enforce, and a network of its own for rights that reach a network. Pure: the caller says what
 * is there.
 */
import { DeniedError, NotSupportedError } from '../errors.ts'
import { guardNeeds } from './guard-needs.ts'
import { PROGRAM_CLASSES } from './kernel-classes.ts'
import type { Policy, Terms } from './policy.ts'
import { bitsOf, type Vocabulary } from './vocabulary.ts'

/**
 * Refuses terms that only the guard can enforce where there is none, unless they say `guard:
 * optional`; gives the paths of those that then go unenforced. Fail closed: a limit that nobody
 * holds to is no limit.
 */
export function requireGuard(policy: Policy, guarded: boolean): string[] {
  // The guard holds to all that `guardNeeds` can name.
  const needs = guarded ? [] : guardNeeds(policy)
  if (needs.length === 0 || policy.guard === 'optional') return needs.map(need => need.path)
  const list = needs.map(need => `${need.path} (${need.reason})`).join(', ')
  throw new NotSupportedError(`Policy "${policy.name}" needs what no guard holds to here: ${list}`, {
    context: { policy: policy.name, fields: needs.map(need => need.path).join(',') },
    reason: 'guard-needed',
  })
}

/** Program types among the rights that reach the devices or sockets of a network namespace. */
export function networkRights(terms: Terms, vocabulary: Vocabulary): string[] {
  // Fail closed: a type that we have no class for may reach it too.
  return bitsOf(terms.rights.masks.progs)
    .map(bit => vocabulary.progs.nameOfBit.get(bit) ?? `bit ${bit}`)
    .filter(name => ['network', undefined].includes(PROGRAM_CLASSES[name]?.reach))
}

/** Whether it lends rights that reach a network, but not the host's network. */
export function needsOwnNetwork(policy: Policy, vocabulary: Vocabulary): boolean {
  return policy.network !== 'host' && networkRights(policy, vocabulary).length > 0
}

/**
 * Refuses rights that would reach the host's network, for a workload that shares it or may come to
 * share it: `why`. A token holder may attach to the host's devices with no capability at all, so
 * policy must say so.
 */
export function requireNetworkAllowed(policy: Policy, vocabulary: Vocabulary, why?: string): void {
  if (!needsOwnNetwork(policy, vocabulary)) return
  const reaching = networkRights(policy, vocabulary)
  throw new DeniedError(
    `Policy "${policy.name}" lends ${reaching.slice(0, 4).join(', ')}${reaching.length > 4 ? ', ...' : ''}, which reach the network, and says network: own${why === undefined ? '' : `: ${why}`}`,
    {
      context: { policy: policy.name, network: policy.network, progs: reaching.join(',') },
      reason: 'network-shared',
    },
  )
}
