/**
 * Single system calls inside another process's user and mount namespace, by a short-lived child
 * that shares our memory and descriptors (within.c): for tests only.
 *
 * Needs CAP_SYS_ADMIN over the target's user namespace: a root delegator has it for every namespace
 * below its own. setns fails with EINVAL when the target is in our own user namespace.
 */
import path from 'node:path'
import { compiled } from '../../../scripts/compiled.ts'
import { TimeoutError } from '../../../src/errors.ts'
import { check } from '../../../src/sys/failure.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { openHow } from '../../../src/sys/open.ts'
import { CLONE_NEWNS, CLONE_NEWUSER, FSOPEN_CLOEXEC } from '../../../src/uapi/constants.ts'

/** How far a call inside other namespaces came: see within.c. */
const WITHIN_STAGES = ['clone', 'setns', 'capset', 'call'] as const

interface Within {
  /**
   * `[result, stage]`. Relative paths begin at the descriptor `directory`, or with -1 at the root
   * of the mount namespace.
   */
  withinNow(
    pidfd: number,
    namespaces: number,
    caps: bigint | null,
    directory: number,
    call: string,
    ...args: unknown[]
  ): [number, number]
  withinLater(
    pidfd: number,
    namespaces: number,
    caps: bigint | null,
    directory: number,
    call: string,
    ...args: unknown[]
  ): [Promise<[number, number]>, unknown]
  withinCancel(handle: unknown): void
}

let loaded: Within | undefined

function native(): Within {
  if (loaded === undefined) {
    const module = { exports: {} }
    process.dlopen(module, compiled(path.join(__dirname, 'within.c')))
    loaded = module.exports as Within
  }
  return loaded
}

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

/** Any system call of the addon: result or -errno. */
export function anyWithin(target: Fd, call: string, args: unknown[]): number {
  const outcome = native().withinNow(target.number, NAMESPACES, null, NO_DIRECTORY, call, ...args)
  return WITHIN_STAGES[outcome[1]] === 'call' ? outcome[0] : settle(outcome, call)
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
