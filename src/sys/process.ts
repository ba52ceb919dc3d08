/**
 * Processes by pidfd, never by bare number, and what /proc says of them.
 *
 * A number can be reused between two reads. Each fact read by number here is therefore followed by
 * `stillAlive`: a process that is alive now was alive, under this number, during the read.
 */
import { closeSync, openSync, readFileSync, readlinkSync, readSync, statfsSync } from 'node:fs'
import { NotFoundError, NotSupportedError } from '../errors.ts'
import { O_CLOEXEC, O_PATH, O_RDONLY, PID_FS_MAGIC, PROC_SUPER_MAGIC } from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'
import { inodeOf, open } from './open.ts'
import { procFields } from './proc-file.ts'

const SIGKILL = 9
/** include/uapi/linux/pidfd.h: the same as O_EXCL. */
export const PIDFD_THREAD = 0o200

export interface ProcessHandle extends Disposable {
  readonly pid: number
  readonly pidfd: Fd
}

/**
 * Holds on to process `pid`, or to the thread of that number (since Linux 6.9). NotFoundError when
 * there is none. The caller disposes of it. Since Linux 5.3.
 */
export function openProcess(pid: number): ProcessHandle {
  let result = native().pidfd_open(pid, 0)
  // A number of a thread that is not the first of its process: EINVAL, or of late ENOENT.
  if (result < 0) result = native().pidfd_open(pid, PIDFD_THREAD)
  if ([-3 /* ESRCH */, -2 /* ENOENT */, -22 /* EINVAL */].includes(result))
    throw new NotFoundError(`There is no process ${pid}`, {
      context: { pid },
      hint: 'Give the number of a running process, as this PID namespace sees it',
    })
  const pidfd = new Fd(check('pidfd_open', 'pidfd_open', result, `pid ${pid}`))
  return { pid, pidfd, [Symbol.dispose]: () => pidfd.close() }
}

/** The same process once more, held by a pidfd of its own. The caller disposes of it. */
export function openSame(process: ProcessHandle): ProcessHandle {
  const again = openProcess(process.pid)
  try {
    // It has kept its number if it lives now, after that was opened.
    stillAlive(process)
    return again
  } catch (error) {
    again[Symbol.dispose]()
    throw error
  }
}

/**
 * A number that no other process has before the next boot: the inode of its pidfds, on a pidfs.
 * NotSupportedError: this kernel is older than Linux 6.9, where all pidfds share one.
 */
export function uniqueIdOf({ pidfd }: ProcessHandle): bigint {
  if (statfsSync(`/proc/self/fd/${pidfd.number}`).type !== PID_FS_MAGIC)
    throw new NotSupportedError('This kernel has no numbers of processes that are not used again', {
      context: { since: '6.9' },
    })
  return inodeOf(pidfd)
}

/**
 * The process that has had this number, by `uniqueIdOf`. NotFoundError: it has exited, whoever has its
 * number now. The caller disposes of it.
 */
export function openProcessOf(pid: number, uniqueId: bigint): ProcessHandle {
  const process = openProcess(pid)
  try {
    if (uniqueIdOf(process) === uniqueId) {
      stillAlive(process)
      return process
    }
    throw new NotFoundError(`Process ${pid} has exited`, { context: { pid } })
  } catch (error) {
    process[Symbol.dispose]()
    throw error
  }
}

/** Throws NotFoundError once the process has exited. */
export function stillAlive(process: ProcessHandle): void {
  const result = native().pidfd_send_signal(process.pidfd.number, 0, null, 0)
  // EPERM means: it lives, and is not ours to signal.
  if (result === -3)
    throw new NotFoundError(`Process ${process.pid} has exited`, { context: { pid: process.pid } })
}

/** SIGKILL. False: it has exited. EPERM: it is not ours to signal. Since Linux 5.1. */
export function kill(process: ProcessHandle): boolean {
  const result = native().pidfd_send_signal(process.pidfd.number, SIGKILL, null, 0)
  if (result === -3 /* ESRCH */) return false
  check('pidfd_send_signal', 'pidfd_send_signal', result, `pid ${process.pid}`)
  return true
}

/**
 * Duplicates descriptor `fd` of the process. EBADF: no such descriptor; EPERM: no CAP_SYS_PTRACE
 * over it. Since Linux 5.6.
 */
export function takeFd(process: ProcessHandle, fd: number): Fd {
  const result = native().pidfd_getfd(process.pidfd.number, fd, 0)
  return new Fd(check('pidfd_getfd', 'pidfd_getfd', result, `descriptor ${fd} of process ${process.pid}`))
}

let procIsOurs = false

/**
 * Throws NotSupportedError unless /proc numbers processes as our system calls do. The /proc of
 * another PID namespace shows strangers under the numbers of our processes. Asked once: it is our
 * own mount namespace.
 */
export function requireOwnProc(): void {
  if (procIsOurs) return
  const wrong = foreignProc()
  if (wrong !== undefined)
    throw new NotSupportedError(`/proc is ${wrong}`, {
      context: { pid: process.pid },
      hint: 'Mount the one of this PID namespace: mount -t proc proc /proc, in a mount namespace of its own (unshare --mount)',
    })
  procIsOurs = true
}

/** What is wrong with /proc; undefined if nothing is. */
function foreignProc(): string | undefined {
  try {
    if (statfsSync('/proc').type !== PROC_SUPER_MAGIC) return 'no procfs'
    // A number can be the same in two namespaces by chance. NSpid lists ours from the namespace of
    // /proc inwards: only where that is our own is there but one.
    const numbers = procFields(readFileSync('/proc/self/status', 'utf8')).get('NSpid') ?? String(process.pid)
    const same = readlinkSync('/proc/self') === String(process.pid) && numbers === String(process.pid)
    return same ? undefined : 'of another PID namespace'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // /proc of a namespace that we are not in has no `self` for us.
    if (code === 'ENOENT') return 'of another PID namespace'
    if (code === 'EACCES' || code === 'EPERM') return 'closed to us'
    throw error
  }
}

/**
 * What `look` finds under /proc/PID, surely of this very process; `drop` gives it back should that
 * not be sure. NotFoundError once it has exited, also while nobody has waited for it yet: it can
 * then be signalled, but has no namespaces.
 */
function ofProcess<T>(process: ProcessHandle, look: () => T, drop?: (found: T) => void): T {
  requireOwnProc()
  let found: T
  try {
    found = look()
  } catch (cause) {
    stillAlive(process)
    const { code, errnoName } = cause as { code?: string; errnoName?: string }
    if (!['ENOENT', 'ESRCH', 'EINVAL'].includes(errnoName ?? code ?? '')) throw cause
    throw new NotFoundError(`Process ${process.pid} has exited`, { context: { pid: process.pid }, cause })
  }
  try {
    stillAlive(process)
    return found
  } catch (error) {
    drop?.(found)
    throw error
  }
}

/** Opens what is at `path` under /proc/PID. The caller closes it. */
function openOf(process: ProcessHandle, path: string, flags: number): Fd {
  const look = (): Fd => open(`/proc/${process.pid}/${path}`, flags | O_CLOEXEC)
  return ofProcess(process, look, fd => fd.close())
}

/** A file of /proc/PID. Which of them can have us wait says src/sys/in-time.ts. */
export function readProc(process: ProcessHandle, name: string): string {
  return ofProcess(process, () => readFileSync(`/proc/${process.pid}/${name}`, 'utf8'))
}

/**
 * The first lines of such a file, of `mostBytes` together at most. `isWhole`: there are no more. How
 * long mountinfo is, whoever may mount something there decides.
 */
export function readProcLines(
  process: ProcessHandle,
  name: 'mountinfo',
  mostBytes: number,
): { text: string; isWhole: boolean } {
  const bytes = Buffer.allocUnsafe(mostBytes + 1)
  const length = ofProcess(process, () => {
    const fd = openSync(`/proc/${process.pid}/${name}`, 'r')
    try {
      return readUpTo(fd, bytes)
    } finally {
      closeSync(fd)
    }
  })
  const isWhole = length <= mostBytes
  // The last line that was read may go on.
  const end = isWhole ? length : bytes.lastIndexOf(0x0a, mostBytes - 1) + 1
  return { text: bytes.toString('utf8', 0, end), isWhole }
}

/** How many bytes there were; `bytes` may have room for less. */
function readUpTo(fd: number, bytes: Uint8Array): number {
  let length = 0
  for (;;) {
    const count = readSync(fd, bytes, length, bytes.length - length, null)
    length += count
    if (count === 0 || length === bytes.length) return length
  }
}

export type NamespaceKind = 'user' | 'mnt' | 'net' | 'pid'

/** One of its namespaces. The caller closes it. */
export function openNamespace(process: ProcessHandle, kind: NamespaceKind): Fd {
  return openOf(process, `ns/${kind}`, O_RDONLY)
}

/** The process's root directory, O_PATH. The caller closes it. */
export function openRoot(process: ProcessHandle): Fd {
  return openOf(process, 'root', O_PATH)
}

export interface IdRange {
  inside: number
  outside: number
  count: number
}

/** The lines of a uid_map or gid_map, seen from our own user namespace. */
export function parseIdMap(text: string): IdRange[] {
  return text
    .split('\n')
    .filter(line => line.trim() !== '')
    .map(line => {
      const [inside, outside, count] = line.trim().split(/\s+/).map(Number)
      return { inside: inside!, outside: outside!, count: count! }
    })
}

/**
 * Our number for id 0 of that namespace, or for the only id where it has just one; undefined
 * otherwise: nobody there is in charge.
 */
export function rootOf(map: IdRange[]): number | undefined {
  const only = map.length === 1 && map[0]!.count === 1 ? map[0] : undefined
  return (map.find(r => r.inside === 0) ?? only)?.outside
}
