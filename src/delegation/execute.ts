/** The one interpreter of actions: runs them in order, and undoes them in reverse when one fails. */
import { type BpffsMount, bpffsMounts } from '../ebpf/bpffs.ts'
import { ConflictError, FormatError } from '../errors.ts'
import type { Masks, Vocabulary } from '../policy/vocabulary.ts'
import { MASK_DOMAINS } from '../policy/vocabulary.ts'
import type { Fd } from '../sys/fd.ts'
import { fsconfigCreate, fsconfigFlag, fsconfigString, fsmount } from '../sys/mount.ts'
import { mountId } from '../sys/open.ts'
import { readProc, takeFd } from '../sys/process.ts'
import { fsopenWithin, moveMountWithin, openWithin, spoilContextWithin, umountWithin } from '../sys/within.ts'
import {
  MNT_DETACH,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
} from '../uapi/constants.ts'
import { type DelegatedMount, delegatedMount } from './bpffs-instance.ts'
import type { Action } from './plan.ts'
import { assertUnchanged, openNeighbour, type Target } from './target.ts'

const ATTRIBUTES = { nosuid: MOUNT_ATTR_NOSUID, nodev: MOUNT_ATTR_NODEV, noexec: MOUNT_ATTR_NOEXEC }

export interface ExecuteOptions {
  /** Stops between two actions and undoes the done ones. */
  signal?: AbortSignal | undefined
  /** How long a file system of the target may take to answer. */
  timeoutMs?: number
  /** Judges the mount that was made; when it throws, the mount is undone as after any other failure. */
  accept?: (made: DelegatedMount) => void
}

/** Descriptors and undo steps of one run; closing it closes the descriptors. */
class Run implements Disposable {
  directory?: Fd
  context?: Fd
  mount?: Fd
  attached = false
  /** The context is the workload's, which keeps it when we close our descriptor. */
  taken = false
  created = false;

  [Symbol.dispose](): void {
    // The mount last: closing a mount that was never attached unmounts it.
    this.directory?.close()
    this.context?.close()
    this.mount?.close()
  }
}

/**
 * Runs the actions for `target`. Gives the mount as the target sees it, or undefined when the plan
 * leaves mounting to the workload. On any failure, an abort included, nothing is left behind.
 */
export async function execute(
  actions: readonly Action[],
  target: Target,
  vocabulary: Vocabulary,
  options: ExecuteOptions = {},
): Promise<DelegatedMount | undefined> {
  using run = new Run()
  try {
    for (const action of actions) {
      options.signal?.throwIfAborted()
      await perform(action, run, target, options)
    }
    options.signal?.throwIfAborted()
    assertUnchanged(target)
    if (!run.attached) return undefined
    const made = verify(run.mount!, target, vocabulary)
    options.accept?.(made)
    return made
  } catch (error) {
    undo(run, target, error)
    throw error
  }
}

async function perform(action: Action, run: Run, target: Target, options: ExecuteOptions): Promise<void> {
  switch (action.do) {
    case 'openDirectory':
      run.directory = await openMountPoint(target, action.path, options.timeoutMs)
      refuseSecondDelegation(run.directory, target, action.path)
      break
    case 'openContext':
      run.context = fsopenWithin(target.process.pidfd, action.type)
      break
    case 'takeContext':
      run.context = takeFd(target.process, action.fd)
      if (action.mark === true) markDelegatable(run.context)
      proveBpffsContext(run.context, target, action.fd)
      run.taken = true
      break
    case 'markDelegatable':
      fsconfigFlag(run.context!, 'delegate')
      break
    case 'setOption':
      fsconfigString(run.context!, action.key, action.value)
      break
    case 'createSuperblock':
      fsconfigCreate(run.context!)
      run.created = true
      break
    case 'makeMount':
      run.mount = fsmount(
        run.context!,
        action.attributes.reduce((flags, name) => flags | ATTRIBUTES[name], 0),
      )
      break
    case 'attachMount':
      moveMountWithin(target.process.pidfd, run.mount!, run.directory!, action.path)
      run.attached = true
      break
  }
}

/**
 * What outlives our descriptors is an attached mount, and a taken context with the rights that were set so far. A failing undo
 * is told with the failure, not instead of it.
 */
function undo(run: Run, target: Target, error: unknown): void {
  try {
    if (run.taken && !run.created) inTarget(target, pidfd => spoilContextWithin(pidfd, run.context!))
    if (run.attached) inTarget(target, pidfd => umountWithin(pidfd, run.mount!, MNT_DETACH))
  } catch (undoError) {
    throw new AggregateError([error, undoError], 'A delegation failed and could not be undone')
  }
}

/** Runs `step` in the target's namespaces; should it have exited, by any other process there. With none left, all is gone. */
function inTarget(target: Target, step: (pidfd: Fd) => void): void {
  try {
    step(target.process.pidfd)
  } catch (error) {
    if ((error as { errnoName?: string }).errnoName !== 'ESRCH') throw error
    using neighbour = openNeighbour(target)
    if (neighbour !== undefined) step(neighbour.pidfd)
  }
}

/** The directory inside the target, by a path that no symbolic link leads out of. */
export function openMountPoint(target: Target, path: string, timeoutMs = 5000): Promise<Fd> {
  const flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
  const resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
  return openWithin(target.process.pidfd, target.root, path, flags, resolve, timeoutMs)
}

/** The bpffs mount that `fd` lies in, as the target sees it; undefined where it is no bpffs, or out of the target's reach. */
export function mountOf(fd: Fd, target: Target): BpffsMount | undefined {
  const id = mountId(fd)
  return bpffsMounts(readProc(target.process, 'mountinfo')).find(mount => mount.mountId === id)
}

/** Two delegations on one path would hide each other. */
function refuseSecondDelegation(directory: Fd, target: Target, path: string): void {
  const mount = mountOf(directory, target)
  if (mount?.delegated)
    throw new ConflictError(`Process ${target.facts.pid} has a delegation at ${path} already`, {
      context: { pid: target.facts.pid, path },
      hint: `Remove it with bpftoken undelegate --pid ${target.facts.pid} --path ${path}, or name another --path`,
    })
}

/** The guard lets no right be set before. A context that does not take the mark is no bpffs: whoever proves that says so better. */
function markDelegatable(context: Fd): void {
  try {
    fsconfigFlag(context, 'delegate')
  } catch (error) {
    if ((error as { errnoName?: string }).errnoName !== 'EINVAL') throw error
  }
}

/**
 * The workload says that its descriptor is a bpffs context. Were it one of another file system, we would
 * create a superblock for it with our privilege, of a type that it may not mount. Only bpffs both
 * refuses a delegation that is no word of its grammar and accepts one that is empty.
 */
function proveBpffsContext(context: Fd, target: Target, number: number): void {
  const set = (key: string, value: string | number): string | undefined => {
    try {
      fsconfigString(context, key, String(value))
      return undefined
    } catch (error) {
      return (error as { errnoName?: string }).errnoName ?? String(error)
    }
  }
  const refuse = (what: string, hint: string): never => {
    throw new ConflictError(`Descriptor ${number} of process ${target.facts.pid} is not ${what}`, {
      context: { pid: target.facts.pid, fd: number },
      hint,
    })
  }
  if (set('delegate_cmds', 'no_such_command') !== 'EINVAL' || set('delegate_cmds', '0') !== undefined)
    refuse(
      'a new bpffs context',
      'Open it with fsopen("bpf", ...) in the workload and leave configuring to the delegator',
    )
  // The superblock will belong to the user namespace of whoever opened the context. The kernel does not say which
  // that is, but it takes as owner only ids that are mapped there: the target's root must be, a stranger must not.
  // Another namespace with the same root passes; only the guard can tell these two apart.
  const { rootUid, unmappedUid } = target.facts
  if (
    (rootUid !== undefined && set('uid', rootUid) !== undefined) ||
    (unmappedUid !== undefined && set('uid', unmappedUid) === undefined)
  )
    refuse(
      'a context of its own user namespace',
      'Let the workload itself call fsopen("bpf", ...), after it has entered its user namespace',
    )
}

/** What the target now has, by the kernel's own account. A mount that it cannot reach is a failure. */
function verify(mount: Fd, target: Target, vocabulary: Vocabulary): DelegatedMount {
  const line = mountOf(mount, target)
  const made = line && delegatedMount(line, vocabulary)
  if (made === undefined)
    throw new ConflictError(`The new bpffs cannot be reached by process ${target.facts.pid}`, {
      context: { pid: target.facts.pid },
      hint: 'The target changed its root or mounts meanwhile: delegate when it is set up',
    })
  return made
}

/** The kernel prints only bits that it knows; of those, what it made must be what was asked. */
export function assertMasks(made: DelegatedMount, wanted: Masks, vocabulary: Vocabulary): void {
  for (const domain of MASK_DOMAINS) {
    const known = vocabulary[domain].known
    if ((made.masks[domain] & known) !== (wanted[domain] & known))
      throw new FormatError('mountinfo', `delegate_${domain} is not what was set: ${made.options.join(',')}`)
  }
}
