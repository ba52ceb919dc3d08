/** The live loan: delegate, take it back, and what stands in the way of it. */
import { DeniedError, NotFoundError, NotSupportedError } from '../errors.ts'
import { guardNeeds } from '../policy/guard-needs.ts'
import { PROGRAM_CLASSES } from '../policy/kernel-classes.ts'
import type { Policy, Terms } from '../policy/policy.ts'
import { bitsOf, type Vocabulary } from '../policy/vocabulary.ts'
import { umountWithin } from '../sys/within.ts'
import { MNT_DETACH } from '../uapi/constants.ts'
import { type DelegatedMount, delegatedMount } from './bpffs-instance.ts'
import { assertMasks, type ExecuteOptions, execute, mountOf, openMountPoint } from './execute.ts'
import { type Action, DEFAULT_PATH, planDelegation, planTakenContext, type Wish } from './plan.ts'
import { assertUnchanged, type Target } from './target.ts'

/** The guard's part, where it is installed: see src/guard. Whoever gives it has made the ability known to the guard. */
export interface DelegateGuard {
  /** Name under which the guard knows the policy. */
  readonly ability: string
}

interface Guarded {
  readonly guard?: DelegateGuard | undefined
}

export interface DelegateOptions extends ExecuteOptions, Guarded {
  readonly path?: string
  /** Called after the last step; when it throws, the delegation is undone as after any other failure. */
  readonly confirm?: (() => void) | undefined
}

/** What of a policy is lent; the rest says to whom, and what only the guard holds to. */
type Lent = Pick<Policy, 'rights'>

function wishFor(policy: Lent, target: Target, guard: DelegateGuard | undefined): Wish {
  return {
    masks: policy.rights.masks,
    rootUid: target.facts.rootUid,
    rootGid: target.facts.rootGid,
    ability: guard?.ability,
  }
}

/** The actions that `delegate` runs. */
export function planFor(
  policy: Lent,
  target: Target,
  path: string = DEFAULT_PATH,
  guard?: DelegateGuard,
): Action[] {
  return planDelegation(wishFor(policy, target, guard), path)
}

/** The actions that `delegateContext` runs. */
export function planForContext(policy: Lent, target: Target, fd: number, guard?: DelegateGuard): Action[] {
  return planTakenContext(wishFor(policy, target, guard), fd)
}

/** Loaded only when something fails: start-up is felt on each run. */
async function explained(error: unknown): Promise<unknown> {
  return (await import('./token-support.ts')).explainFailure(error)
}

/** Mounts a bpffs with the policy's rights into the target's namespaces, and gives the mount as the target has it. */
export async function delegate(
  policy: Lent,
  target: Target,
  vocabulary: Vocabulary,
  options: DelegateOptions = {},
): Promise<DelegatedMount> {
  const accept = (made: DelegatedMount): void => {
    assertMasks(made, policy.rights.masks, vocabulary)
    options.confirm?.()
  }
  try {
    const plan = planFor(policy, target, options.path, options.guard)
    return (await execute(plan, target, vocabulary, { ...options, accept }))!
  } catch (error) {
    throw await explained(error)
  }
}

/**
 * The other direction, as in the original proposal: the workload opened a bpffs context as its
 * descriptor `fd`; we set the rights and create the superblock; it mounts it where it likes.
 */
export async function delegateContext(
  policy: Lent,
  target: Target,
  fd: number,
  vocabulary: Vocabulary,
  options: ExecuteOptions & Guarded = {},
): Promise<void> {
  try {
    await execute(planForContext(policy, target, fd, options.guard), target, vocabulary, options)
  } catch (error) {
    throw await explained(error)
  }
}

/**
 * Unmounts the delegation at `path` in the target. No new token can then be made from that path. Tokens
 * that were made, and root directories that are held open, go on working: only the guard revokes those.
 */
export async function undelegate(
  target: Target,
  vocabulary: Vocabulary,
  options: DelegateOptions = {},
): Promise<DelegatedMount> {
  const path = options.path ?? DEFAULT_PATH
  using root = await openMountPoint(target, path, options.timeoutMs)
  const line = mountOf(root, target)
  const mount = line && delegatedMount(line, vocabulary)
  if (mount === undefined || line?.path !== path)
    throw new NotFoundError(`Process ${target.facts.pid} has no delegation at ${path}`, {
      context: { pid: target.facts.pid, path },
      hint: 'See bpftoken ls for what is delegated where',
    })
  assertUnchanged(target)
  umountWithin(target.process.pidfd, root, MNT_DETACH, path)
  return mount
}

/**
 * Refuses terms that only the guard can enforce, unless they say `guard: optional`; gives the paths of
 * those that then go unenforced. `held` tells of a path whether the guard that is installed holds to it; by default there is
 * none. Fail closed: a limit that nobody holds to is no limit.
 */
export function requireGuard(policy: Policy, held: (path: string) => boolean = () => false): string[] {
  const needs = guardNeeds(policy).filter(need => !held(need.path))
  if (needs.length === 0 || policy.guard === 'optional') return needs.map(need => need.path)
  const list = needs.map(need => `${need.path} (${need.reason})`).join(', ')
  throw new NotSupportedError(`Policy "${policy.name}" needs what no guard holds to here: ${list}`, {
    context: { policy: policy.name, fields: needs.map(need => need.path).join(',') },
    hint: 'Install the guard (bpftoken guard install), remove these fields, or say spec.guard: optional to go on without their being enforced',
  })
}

/** Program types among the rights that reach the devices or sockets of a network namespace. */
export function networkRights(terms: Terms, vocabulary: Vocabulary): string[] {
  // Fail closed: a type that we have no class for may reach it too.
  return bitsOf(terms.rights.masks.progs)
    .map(bit => vocabulary.progs.nameOfBit.get(bit) ?? `bit ${bit}`)
    .filter(name => ['network', undefined].includes(PROGRAM_CLASSES[name]?.reach))
}

/** A token holder may attach to the host's devices with no capability at all; so policy must say so. */
export function requireNetworkAllowed(policy: Policy, vocabulary: Vocabulary): void {
  const reaching = networkRights(policy, vocabulary)
  if (policy.network === 'host' || reaching.length === 0) return
  throw new DeniedError(
    `Policy "${policy.name}" lends ${reaching.slice(0, 4).join(', ')}${reaching.length > 4 ? ', ...' : ''}, which reach the network, and says network: own`,
    {
      context: { policy: policy.name, network: policy.network, progs: reaching.join(',') },
      hint: 'Give the workload its own network namespace (no --host-net), or say spec.network: host',
    },
  )
}
