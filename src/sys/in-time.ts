/**
 * Looks that may wait for an execve(2) of another process, done beside the event loop and in time.
 *
 * A process executes a program, and this does not end: it closes a descriptor of a FUSE file, and
 * who serves that does not answer. Every ordinary user can have that for as long as they like.
 * Meanwhile whatever the kernel lets a debugger do waits too, and no signal but SIGKILL ends the
 * wait: pidfd_getfd(2); under /proc/PID the links of `ns`, `fd`, `exe`, `root`, `cwd`; attr/current,
 * stat, maps, environ, auxv, io, wchan, stack (measured on Linux 6.18). `status`, `cgroup`,
 * `loginuid`, `uid_map`, `fdinfo`, `mountinfo` and `comm`, the lists of `task` and `fd`, the ioctls
 * of a pidfd, and signals do not wait. So namespaces are asked for by ioctl (namespace.ts), and only
 * what has no such way is here.
 *
 * A call that hangs is left behind, on a thread of its own, until that process goes on or is killed.
 * A process that has one is refused at once meanwhile. Each owner has a few threads, so that whoever
 * hangs keeps nobody waiting but their own.
 */
import { ConflictError, TimeoutError } from '../errors.ts'
import { AT_FDCWD, O_CLOEXEC, O_PATH, O_RDONLY } from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { askedNamespace, ownerOf } from './namespace.ts'
import { native } from './native.ts'
import { inodeOf, openHow } from './open.ts'
import { procFields } from './proc-file.ts'
import {
  type NamespaceKind,
  openSame,
  type ProcessHandle,
  readProc,
  requireOwnProc,
  stillAlive,
} from './process.ts'
import { Turns } from './turns.ts'

/** How long a look takes at most, for who has no better reason. */
export const LOOK_MS = 1000

const OWNERS_THREADS = 4
const ALL_THREADS = 256

const turns = new Turns(OWNERS_THREADS)
const FOREVER = new AbortController().signal
/** Processes with a look that was not in time and has not ended yet. */
const hanging = new Set<string>()
let threads = 0

/**
 * What another process has opened. To close it may wait for whoever serves its file (FUSE), or for
 * its peer (SO_LINGER), and so may to close a socket in which such descriptors lie. So it is closed
 * on a thread of its own, in a turn of that process's owner.
 */
class TakenFd extends Fd {
  readonly #owner: string

  constructor(number: number, owner: string) {
    super(number)
    this.#owner = owner
  }

  override close(): void {
    if (!this.closed) void closeAside(this.release(), this.#owner)
  }
}

/** Where the owner has too many that hang, it stays open until one of them does not any more. */
async function closeAside(number: number, owner: string): Promise<void> {
  using _ = await turns.take(owner, FOREVER)
  threads++
  try {
    await native().aside('close', number)
  } finally {
    threads--
  }
}

/**
 * Duplicates descriptor `fd` of the process. The caller closes it, which waits for nothing. EBADF: no
 * such descriptor; EPERM: no CAP_SYS_PTRACE over it. Since Linux 5.6. As all of this file:
 * TimeoutError: it is in the middle of an execve(2); ConflictError: others of its owner are, or
 * descriptors taken of these hang when they are closed, and no more are waited for; NotFoundError: it
 * has exited.
 */
export function takeFdInTime(process: ProcessHandle, fd: number, timeoutMs: number): Promise<Fd> {
  const object = `descriptor ${fd} of process ${process.pid}`
  return inTime(process, timeoutMs, async held => {
    const owner = hangerOf(held)
    const result = await native().aside('pidfd_getfd', held.pidfd.number, fd, 0)
    return new TakenFd(check('pidfd_getfd', 'pidfd_getfd', result, object), owner)
  })
}

/** The root directory of the process, or the file that it executes, O_PATH. The caller closes it. */
export function openInTime(process: ProcessHandle, link: 'root' | 'exe', timeoutMs: number): Promise<Fd> {
  return inTime(process, timeoutMs, held => openAside(held, link, O_PATH))
}

/** The namespace that it is in, which since Linux 6.11 waits for nothing. The caller closes it. */
export async function namespaceInTime(
  process: ProcessHandle,
  kind: NamespaceKind,
  timeoutMs: number,
): Promise<Fd> {
  return (
    askedNamespace(process, kind) ??
    (await inTime(process, timeoutMs, held => openAside(held, `ns/${kind}`, O_RDONLY)))
  )
}

const CHUNK_BYTES = 1024 * 1024

/**
 * All of a file at a path below /proc/PID; undefined: it is longer than `mostBytes`. What lies in a
 * file system of the process's own could have us wait for ever, and SIGKILL would not help: of a link
 * to such a file `may` says, by an O_PATH descriptor of it, whether it is read. Undefined, if not.
 */
export async function bytesInTime(
  process: ProcessHandle,
  path: string,
  mostBytes: number,
  timeoutMs: number,
  may?: (file: Fd) => boolean,
): Promise<Buffer | undefined> {
  const { bytes } = await inTime(process, timeoutMs, async held => {
    using place = may && (await openAside(held, path, O_PATH))
    if (place !== undefined && !may!(place)) return { bytes: undefined, close() {} }
    using file = await openAside(held, path, O_RDONLY, place)
    const chunks: Uint8Array[] = []
    for (let total = 0; ; ) {
      const chunk = new Uint8Array(CHUNK_BYTES)
      const length = check('read', 'read', await native().aside('read', file.number, chunk), path)
      if (length === 0) return { bytes: Buffer.concat(chunks), close() {} }
      chunks.push(chunk.subarray(0, length))
      total += length
      if (total > mostBytes) return { bytes: undefined, close() {} }
    }
  })
  return bytes
}

const MAX_BYTES = 4096

/** A file of /proc/PID of up to 4 KiB: its security label, or what `stat` says. */
export async function readInTime(
  process: ProcessHandle,
  name: 'attr/current' | 'stat',
  timeoutMs: number,
): Promise<string> {
  const bytes = new Uint8Array(MAX_BYTES)
  const read = await inTime(process, timeoutMs, async held => {
    using file = await openAside(held, name, O_RDONLY)
    const length = check('read', 'read', await native().aside('read', file.number, bytes), name)
    stillAlive(held)
    return { length, close() {} }
  })
  return Buffer.from(bytes.subarray(0, read.length)).toString()
}

/** `held`: what lies at the path, which is what is opened, whatever lies there by then. */
async function openAside(process: ProcessHandle, path: string, flags: number, held?: Fd): Promise<Fd> {
  requireOwnProc()
  const file = held === undefined ? `/proc/${process.pid}/${path}` : `/proc/self/fd/${held.number}`
  const result = await native().aside('openat2', AT_FDCWD, file, openHow(flags | O_CLOEXEC, 0))
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
  const name = nameOf(process)
  if (hanging.has(name)) throw hangs(process, timeoutMs)
  if (threads >= ALL_THREADS) throw tooMany(process, timeoutMs)
  // One of our own, closed when the call has ended: the caller's number may be another's by then.
  const held = openSame(process)
  const late = new AbortController()
  let begun = false
  const called = (async (): Promise<T> => {
    using _ = held
    using turn = await turns.take(hangerOf(held), late.signal)
    if (turn === undefined) throw tooMany(process, timeoutMs)
    begun = true
    threads++
    try {
      const found = await call(held)
      if (!late.signal.aborted) return found
      found.close()
      throw hangs(process, timeoutMs)
    } finally {
      threads--
      hanging.delete(name)
    }
  })()
  // Nobody waits for it any more when it is late.
  called.catch(() => {})
  let timer: NodeJS.Timeout | undefined
  let isOver = false
  const timeout = new Promise<never>((_, reject) => {
    const isLate = (): void => {
      if (isOver) return
      if (begun) hanging.add(name)
      late.abort()
      reject(begun ? hangs(process, timeoutMs) : tooMany(process, timeoutMs))
    }
    // Where it was we who were held up, an answer may be there that nobody has taken yet.
    timer = setTimeout(() => setImmediate(isLate), timeoutMs)
  })
  try {
    return await Promise.race([called, timeout])
  } finally {
    isOver = true
    clearTimeout(timer)
  }
}

/** Since Linux 6.9 a pidfd has an inode that no other process ever has. */
function nameOf({ pid, pidfd }: ProcessHandle): string {
  return `${pid} ${inodeOf(pidfd)}`
}

/**
 * Who can have it hang: its user; or who made the outermost user namespace that it lies in, whatever
 * users there are in there; or of those that root made, that namespace itself.
 */
function hangerOf(process: ProcessHandle): string {
  using namespace = askedNamespace(process, 'user')
  return (
    (namespace && ownerOf(namespace)) ??
    `user ${procFields(readProc(process, 'status')).get('Uid')?.split(/\s/)[0]}`
  )
}

function hangs({ pid }: ProcessHandle, timeoutMs: number): TimeoutError {
  return new TimeoutError(`Process ${pid} is in the middle of an execve(2) that does not end`, {
    context: { pid, timeoutMs },
    hint: 'A file system that it uses does not answer: look at what it has open',
  })
}

function tooMany({ pid }: ProcessHandle, timeoutMs: number): ConflictError {
  return new ConflictError('Too many processes are in the middle of an execve(2) that does not end', {
    context: { pid, timeoutMs },
    hint: 'Try again',
  })
}
