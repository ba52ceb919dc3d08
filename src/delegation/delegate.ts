/** The live loan: delegate, and take it back. */
import { posix } from 'node:path'
import { bpffsMount, delegatedMounts } from '../ebpf/bpffs.ts'
import { ConflictError, NotFoundError, TimeoutError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import type { Executor } from '../sys/executor/executor.ts'
import type { SeenMount } from '../sys/executor/message.ts'
import type { Fd } from '../sys/fd.ts'
import { readProc } from '../sys/process.ts'
import { type Action, DEFAULT_PATH, planDelegation, planTakenContext, type Wish } from './actions.ts'
import { ask, mountsAt } from './ask.ts'
import { type Copies, pathOfMount, unmountCopies } from './copies.ts'
import { assertMasks, type ExecuteOptions, execute } from './execute.ts'
import { type DelegatedMount, delegatedMount } from './instances.ts'
import type { Target } from './target.ts'

/**
 * The guard's part, where it is installed: see src/guard. Whoever gives it has made the ability
 * known to the guard.
 */
export interface DelegateGuard {
  /** Name under which the guard knows the policy. */
  readonly ability: string
  /** Which of our executors the guard lets delegate. */
  readonly executor?: Executor
  /** Takes back what was lent last, if anything was: the ids. */
  revoke?(): readonly bigint[]
}

interface Guarded {
  readonly guard?: DelegateGuard | undefined
}

export interface DelegateOptions extends Omit<ExecuteOptions, 'executor' | 'revoke'>, Guarded {
  readonly path?: string
  /** The target is a container that is being made: this directory will be its root, and has `path`. */
  readonly rootfs?: string | undefined
}

function guardedBy(guard: DelegateGuard | undefined): Pick<ExecuteOptions, 'executor' | 'revoke'> {
  return { executor: guard?.executor, revoke: guard?.revoke && (() => guard.revoke!()) }
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
  rootfs?: string,
): Action[] {
  return planDelegation(wishFor(policy, target, guard), path, rootfs)
}

/** The actions that `delegateContext` runs. */
export function planForContext(policy: Lent, target: Target, fd: number, guard?: DelegateGuard): Action[] {
  return planTakenContext(wishFor(policy, target, guard), fd, target.facts.unmappedUid)
}

/** Loaded only when something fails: start-up is felt on each run. */
async function explained(error: unknown): Promise<unknown> {
  return (await import('./token-support.ts')).explainFailure(error)
}

/**
 * Mounts a bpffs with the policy's rights into the target's namespaces, and gives the mount as the
 * target has it.
 */
export async function delegate(
  policy: Lent,
  target: Target,
  vocabulary: Vocabulary,
  options: DelegateOptions = {},
): Promise<DelegatedMount> {
  const accept = (made: DelegatedMount): void => assertMasks(made, policy.rights.masks, vocabulary)
  const { rootfs, reached } = options
  // As the container will have it.
  const asInside = (made: DelegatedMount): DelegatedMount =>
    rootfs === undefined ? made : { ...made, path: options.path ?? DEFAULT_PATH }
  try {
    const plan = planFor(policy, target, options.path, options.guard, options.rootfs)
    const made = await execute(plan, target, vocabulary, {
      ...{ ...options, ...guardedBy(options.guard), accept },
      reached: reached && (mount => reached(mount && asInside(mount))),
    })
    return asInside(made!)
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
  options: Omit<DelegateOptions, 'path' | 'rootfs' | 'accept'> = {},
): Promise<void> {
  try {
    const plan = planForContext(policy, target, fd, options.guard)
    await execute(plan, target, vocabulary, { ...options, ...guardedBy(options.guard) })
  } catch (error) {
    throw await explained(error)
  }
}

export interface UndelegateOptions {
  readonly path?: string | undefined
  /** By its id instead, which `ls` shows; with `path`, that is where it is looked for first. */
  readonly mount?: number | undefined
  /** It is of this superblock, `major:minor`: the kernel uses the ids of mounts again at once. */
  readonly device?: string | undefined
  readonly timeoutMs?: number
  /**
   * Where there is a guard: revokes the delegation of which `root` is a directory. Gives the ids.
   */
  readonly revoke?: (root: Fd) => readonly bigint[]
  /** The same for all that are lent to the user namespace with this inode number. */
  readonly revokeIn?: (userNamespace: number) => readonly bigint[]
}

export interface Undelegated extends DelegatedMount {
  /** How many mounts lay upon it. They were lifted for a moment. */
  readonly covers: number
  /** Other mounts of the same, here and in other mount namespaces. */
  readonly copies: Copies
  readonly revoked: readonly bigint[]
}

/**
 * Unmounts the delegation at `path` in the target, and all other mounts of the same. No new token
 * can then be made at a path, but where `copies` says that it is still mounted. Tokens that were
 * made, and root directories that are held open, go on working, unless there is a guard to revoke
 * them. NotFoundError: there is no delegation. ConflictError: there is, but mounts lie upon it that
 * cannot be lifted.
 */
export async function undelegate(
  target: Target,
  vocabulary: Vocabulary,
  options: UndelegateOptions = {},
): Promise<Undelegated> {
  const { path, mount } = options
  if (path !== undefined && mount !== undefined) {
    // To find it by its id alone the kernel describes every mount that the target has.
    const gone = await takeAway(target, path, vocabulary, options).catch((error: Error) => {
      // What is slow at one path is not tried by another.
      if (error instanceof TimeoutError) throw hidden(target, path, options, vocabulary, error) ?? error
      return undefined
    })
    if (gone !== undefined) return gone
  }
  const place = placeOf(target, options)
  // Mounts come and go beside us, so that one look can miss what the next one finds.
  for (let turn = 1; ; turn++) {
    try {
      const gone = await takeAway(target, place, vocabulary, options)
      if (gone !== undefined) return gone
    } catch (error) {
      throw hidden(target, place, options, vocabulary, error as Error) ?? error
    }
    if (turn === LOOKS) break
  }
  throw hidden(target, place, options, vocabulary) ?? noDelegation(target, textOf(place))
}

/** How often we look before we say that no path leads to what is mounted there. */
const LOOKS = 3

/** Undefined: no delegation was found at this place. */
async function takeAway(
  target: Target,
  place: string | Uint8Array,
  vocabulary: Vocabulary,
  { timeoutMs, revoke = () => [], ...wanted }: UndelegateOptions,
): Promise<Undelegated | undefined> {
  const object = textOf(place)
  const { mounts, directory } = await mountsAt(target, place, timeoutMs)
  using top = directory
  const covers = mounts.findIndex(mount => isLent(mount, target) && isMeant(mount, wanted))
  const mount = mounts[covers]
  if (mount === undefined || !mount.atRoot || mount.root !== '/') return undefined
  const lent = delegatedMount({ ...bpffsMount(mount), delegated: true }, vocabulary)!
  if (covers === 0) {
    // First: whoever holds the root directory could go on in between.
    const revoked = revoke(top)
    await ask(target, [{ op: 'DETACH' }], { slots: { MOUNT: top }, timeoutMs, object })
    return { ...lent, covers, revoked, copies: await unmountCopies(lent.device, vocabulary, timeoutMs) }
  }
  const { given } = await ask(target, [{ op: 'DETACH_COVERED', number: covers, text: [place] }], {
    give: ['REACHED'],
    timeoutMs,
    object,
  })
  using root = given.REACHED!
  const revoked = revoke(root)
  return { ...lent, covers, revoked, copies: await unmountCopies(lent.device, vocabulary, timeoutMs) }
}

function textOf(place: string | Uint8Array): string {
  return Buffer.from(place).toString()
}

function isMeant(
  { mountId, device }: Pick<SeenMount, 'mountId' | 'device'>,
  wanted: Pick<UndelegateOptions, 'mount' | 'device'>,
): boolean {
  return (wanted.mount ?? mountId) === mountId && (wanted.device ?? device) === device
}

/** Where to look for it. NotFoundError: there is no mount with that id. */
function placeOf(target: Target, { path = DEFAULT_PATH, mount }: UndelegateOptions): string | Uint8Array {
  if (mount === undefined) return path
  const found = pathOfMount(target, mount)
  if (found !== undefined) return found
  throw new NotFoundError(`Process ${target.facts.pid} has no mount ${mount}`, {
    context: { pid: target.facts.pid, mount },
    reason: 'not-delegated',
  })
}

/**
 * Whether this mount is a loan. With rights, it says so. Without any that this kernel could show,
 * it is known by its root directory, which we give to the target's root.
 */
function isLent(mount: SeenMount, target: Target): boolean {
  if (mount.fsType !== 'bpf') return false
  const { delegated, uid, mode } = bpffsMount(mount)
  return delegated || (uid !== 0 && uid === target.facts.rootUid && (mode & 0o777) === 0o755)
}

function noDelegation(target: Target, path: string): NotFoundError {
  return new NotFoundError(`Process ${target.facts.pid} has no delegation at ${path}`, {
    context: { pid: target.facts.pid, path },
    reason: 'not-delegated',
  })
}

/**
 * What is said, and done in the guard, where a delegation is mounted at the place and we could not
 * take it away; undefined: by the kernel's own table there is none. The target decides what its
 * paths lead to and what its file systems answer, but not whether the loan is revoked. Fail closed:
 * which of its loans it is cannot be known without reaching it, so all of the user namespace are.
 */
function hidden(
  target: Target,
  place: string | Uint8Array,
  { revokeIn, ...wanted }: UndelegateOptions,
  vocabulary: Vocabulary,
  cause?: Error,
): ConflictError | undefined {
  const { pid, userNamespace } = target.facts
  const path = textOf(place)
  const there = delegatedMounts(readProc(target.process, 'mountinfo')).find(
    mount =>
      isMeant(mount, wanted) && (wanted.mount !== undefined || mount.path === posix.resolve('/', path)),
  )
  if (there === undefined) return undefined
  const revoked = revokeIn?.(Number(/\d+/.exec(userNamespace)![0])) ?? []
  const what = delegatedMount(there, vocabulary)!.options.join(' ')
  const why = cause === undefined ? 'no path leads to it, since something is mounted above it' : cause.message
  return new ConflictError(
    `Process ${pid} has a delegation at ${path} that cannot be unmounted: ${why}` +
      `${revoked.length > 0 ? `. It is revoked in the guard (delegation ${revoked.join(', ')}), but still mounted` : ` (${what})`}`,
    {
      context: { pid, path, revoked: revoked.join(',') },
      cause,
      hint: 'Unmount what hides it in the target (nsenter -t PID -U -m umount ...), then take it back again; or end the processes of that user namespace',
    },
  )
}
