/**
 * Single system calls inside another process's user and mount namespace, by a short-lived child that
 * shares our memory and descriptors (native/within.c). About 60 us each.
 *
 * Needs CAP_SYS_ADMIN over the target's user namespace: a root delegator has it for every namespace
 * below its own. setns fails with EINVAL when the target is in our own user namespace.
 */
import { TimeoutError } from '../errors.ts'
import {
  CLONE_NEWNS,
  CLONE_NEWUSER,
  FSCONFIG_CMD_CREATE,
  FSOPEN_CLOEXEC,
  MOVE_MOUNT_F_EMPTY_PATH,
  MOVE_MOUNT_T_EMPTY_PATH,
} from '../uapi/constants.ts'
import { ERRNO } from '../uapi/errno.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native, WITHIN_STAGES } from './native.ts'
import { openHow } from './open.ts'

const NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS
/** The call has no relative path. */
const NO_DIRECTORY = -1

/** Names the step that failed: joining the namespaces, or the call itself. */
function settle([result, stage]: [number, number], call: string, object?: string): number {
  const name = WITHIN_STAGES[stage] === 'call' ? call : WITHIN_STAGES[stage]!
  return check(name, name, result, object)
}

/** A bpffs (or other) context that belongs to the target's user namespace. The caller closes it. */
export function fsopenWithin(target: Fd, type: string): Fd {
  const outcome = native().withinNow(
    target.number,
    NAMESPACES,
    null,
    NO_DIRECTORY,
    'fsopen',
    type,
    FSOPEN_CLOEXEC,
  )
  return new Fd(settle(outcome, 'fsopen', type))
}

/**
 * Makes a bpffs context useless for good. Creating its superblock without privilege outside the target fails
 * with EPERM, and a context that failed once takes no option and no command any more.
 */
export function spoilContextWithin(target: Fd, context: Fd): void {
  const args = [context.number, FSCONFIG_CMD_CREATE, null, null, 0] as const
  const outcome = native().withinNow(target.number, NAMESPACES, null, NO_DIRECTORY, 'fsconfig', ...args)
  const [result, stage] = outcome
  // EBUSY: it failed or was created before.
  if (WITHIN_STAGES[stage] === 'call' && [ERRNO['EPERM'], ERRNO['EBUSY']].includes(-result)) return
  settle(outcome, 'fsconfig')
}

/** Attaches a detached mount of ours on the directory `at`, which lies in the target's mount namespace. */
export function moveMountWithin(target: Fd, mount: Fd, at: Fd, object?: string): void {
  const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
  const args = [mount.number, '', at.number, '', flags] as const
  settle(
    native().withinNow(target.number, NAMESPACES, null, NO_DIRECTORY, 'move_mount', ...args),
    'move_mount',
    object,
  )
}

/** Unmounts the mount whose root directory `root` stands for: "." in it, whatever its name is by now. */
export function umountWithin(target: Fd, root: Fd, flags: number, object?: string): void {
  const outcome = native().withinNow(target.number, NAMESPACES, null, root.number, 'umount2', '.', flags)
  settle(outcome, 'umount2', object)
}

/**
 * Opens `path` in the target. Its file systems may not answer (FUSE), so this runs beside the event
 * loop and is given up after `timeoutMs`: TimeoutError. The caller closes the descriptor.
 */
export async function openWithin(
  target: Fd,
  dir: Fd,
  path: string,
  flags: number,
  resolve: number,
  timeoutMs: number,
): Promise<Fd> {
  const args = [dir.number, path, openHow(flags, resolve)] as const
  const [outcome, handle] = native().withinLater(
    target.number,
    NAMESPACES,
    null,
    NO_DIRECTORY,
    'openat2',
    ...args,
  )
  let timedOut = false
  const timer = setInterval(() => {
    timedOut = true
    native().withinCancel(handle)
  }, timeoutMs)
  try {
    const settled = await outcome
    if (timedOut && settled[0] < 0)
      throw new TimeoutError(`openat2 on ${path} did not finish within ${timeoutMs} ms`, {
        context: { path, timeoutMs },
        hint: 'A file system of the target does not answer: look at what is mounted there',
      })
    return new Fd(settle(settled, 'openat2', path))
  } finally {
    clearInterval(timer)
  }
}

/**
 * One bpf(2) command as root of the target's user namespace, with only `caps` (bit n: capability n)
 * or, without it, all of them. Gives the result or -errno of the command; joining failures throw.
 */
export function bpfWithin(
  target: Fd,
  cmd: number,
  attr: Uint8Array,
  options: { caps?: bigint; refs?: (Uint8Array | number | null)[] } = {},
): number {
  const outcome = native().withinNow(
    target.number,
    NAMESPACES,
    options.caps ?? null,
    NO_DIRECTORY,
    'bpf',
    cmd,
    attr,
    ...(options.refs ?? []),
  )
  return WITHIN_STAGES[outcome[1]] === 'call' ? outcome[0] : settle(outcome, 'bpf')
}
