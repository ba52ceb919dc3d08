/**
 * What may wait for an execve(2) of another process, done beside the event loop and in time.
 *
 * A process executes a program, and this does not end: it closes a descriptor of a FUSE file, and
 * who serves that does not answer. Every ordinary user can have that for as long as they like.
 * Meanwhile whatever the kernel lets a debugger do waits too, and no signal but SIGKILL ends the
 * wait: pidfd_getfd(2); under /proc/PID the links of `ns`, `fd`, `exe`, `root`, `cwd`; attr/current,
 * stat, maps, environ, io (measured on Linux 6.18). `status`, `cgroup`, `loginuid`, `uid_map`,
 * `fdinfo`, `mountinfo` and `comm` do not wait, nor do ioctls of a pidfd or signals.
 *
 * A call that hangs is left behind, and keeps its thread until that process goes on or is killed.
 * Node has four threads, which also write files: these calls get two of them at most.
 */
import { ConflictError, TimeoutError } from '../errors.ts'
import { AT_FDCWD, O_CLOEXEC, O_PATH, O_RDONLY } from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'
import { openHow } from './open.ts'
import { openSame, type ProcessHandle, requireOwnProc, stillAlive } from './process.ts'

const THREADS = 2

let running = 0
/** Who waits for a thread. */
const waiting = new Set<() => void>()

/**
 * Duplicates descriptor `fd` of the process. The caller closes it. EBADF: no such descriptor; EPERM:
 * no CAP_SYS_PTRACE over it. Since Linux 5.6. As all of this file: TimeoutError: it is in the middle
 * of an execve(2); ConflictError: others are, and no more are waited for; NotFoundError: it has
 * exited.
 */
export function takeFdInTime(process: ProcessHandle, fd: number, timeoutMs: number): Promise<Fd> {
  const object = `descriptor ${fd} of process ${process.pid}`
  return inTime(process, timeoutMs, async ({ pidfd }) => {
    const result = await native().later('pidfd_getfd', pidfd.number, fd, 0)
    return new Fd(check('pidfd_getfd', 'pidfd_getfd', result, object))
  })
}

/** The root directory of the process, or the file that it executes, O_PATH. The caller closes it. */
export function openInTime(process: ProcessHandle, link: 'root' | 'exe', timeoutMs: number): Promise<Fd> {
  return inTime(process, timeoutMs, held => openLater(held, link, O_PATH))
}

const MAX_ATTRIBUTE_BYTES = 4096

/** The security label of the process, as /proc/PID/attr/current has it. */
export async function labelInTime(process: ProcessHandle, timeoutMs: number): Promise<string> {
  const bytes = new Uint8Array(MAX_ATTRIBUTE_BYTES)
  const read = await inTime(process, timeoutMs, async held => {
    using file = await openLater(held, 'attr/current', O_RDONLY)
    const length = check('read', 'read', await native().later('read', file.number, bytes), 'attr/current')
    stillAlive(held)
    return { length, close() {} }
  })
  return Buffer.from(bytes.subarray(0, read.length)).toString()
}

async function openLater(process: ProcessHandle, path: string, flags: number): Promise<Fd> {
  requireOwnProc()
  const file = `/proc/${process.pid}/${path}`
  const result = await native().later('openat2', AT_FDCWD, file, openHow(flags | O_CLOEXEC, 0))
  // A process that has exited, rather than that there is no such file.
  if (result < 0) stillAlive(process)
  const opened = new Fd(check('openat2', 'openat2', result, file))
  try {
    stillAlive(process)
    return opened
  } catch (error) {
    opened.close()
    throw error
  }
}

/** What `call` gives, which is closed should nobody wait for it any more. */
async function inTime<T extends { close(): void }>(
  process: ProcessHandle,
  timeoutMs: number,
  call: (held: ProcessHandle) => Promise<T>,
): Promise<T> {
  // One of our own, closed when the call has ended: the caller's number may be another's by then.
  const held = openSame(process)
  const context = { pid: process.pid, timeoutMs }
  let late: Error = new ConflictError(
    'Too many processes are in the middle of an execve(2) that does not end',
    {
      context,
      hint: 'Try again',
    },
  )
  let abandoned = false
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      abandoned = true
      reject(late)
    }, timeoutMs)
  })
  const called = (async (): Promise<T> => {
    using _ = held
    await thread()
    try {
      if (abandoned) throw late
      late = new TimeoutError(`Process ${process.pid} is in the middle of an execve(2) that does not end`, {
        context,
        hint: 'A file system that it uses does not answer: look at what it has open',
      })
      const found = await call(held)
      if (!abandoned) return found
      found.close()
      throw late
    } finally {
      running--
      const [next] = waiting
      if (next !== undefined) waiting.delete(next)
      next?.()
    }
  })()
  // Nobody waits for it any more when it is late.
  called.catch(() => {})
  try {
    return await Promise.race([called, timeout])
  } finally {
    clearTimeout(timer)
  }
}

/** Resolves when one of the threads is ours. */
async function thread(): Promise<void> {
  while (running >= THREADS) await new Promise<void>(resolve => waiting.add(resolve))
  running++
}
