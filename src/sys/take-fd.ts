/**
 * Descriptors of another process, taken beside the event loop.
 *
 * pidfd_getfd(2) waits for an execve(2) of that process, and this one can last: when it closes a
 * descriptor of a FUSE file, it waits for whoever serves that. No signal but SIGKILL ends the wait.
 * So a call that hangs is left behind, and keeps its thread until the process goes on or is killed.
 * Node has four threads, which also write files: these calls get two of them at most.
 */
import { ConflictError, TimeoutError } from '../errors.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'
import { openProcess, type ProcessHandle, stillAlive } from './process.ts'

const THREADS = 2

let running = 0
/** Who waits for a thread. */
const waiting = new Set<() => void>()

/**
 * Duplicates descriptor `fd` of the process. The caller closes it. EBADF: no such descriptor; EPERM:
 * no CAP_SYS_PTRACE over it; TimeoutError: it is in the middle of an execve(2); ConflictError:
 * others are, and no more are waited for; NotFoundError: it has exited. Since Linux 5.6.
 */
export async function takeFdInTime(process: ProcessHandle, fd: number, timeoutMs: number): Promise<Fd> {
  // One of our own, which is closed when the call has ended: the caller's number may be another's by then.
  const held = openProcess(process.pid)
  try {
    stillAlive(process)
  } catch (error) {
    held[Symbol.dispose]()
    throw error
  }
  const context = { pid: process.pid, descriptor: fd, timeoutMs }
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
  const taken = (async (): Promise<Fd> => {
    using _ = held
    await thread()
    try {
      if (abandoned) throw late
      late = new TimeoutError(`Process ${process.pid} is in the middle of an execve(2) that does not end`, {
        context,
        hint: 'A file system that it uses does not answer: look at what it has open',
      })
      const result = await native().later('pidfd_getfd', held.pidfd.number, fd, 0)
      const copy = new Fd(
        check('pidfd_getfd', 'pidfd_getfd', result, `descriptor ${fd} of process ${process.pid}`),
      )
      if (!abandoned) return copy
      copy.close()
      throw late
    } finally {
      running--
      const [next] = waiting
      if (next !== undefined) waiting.delete(next)
      next?.()
    }
  })()
  // Nobody waits for it any more when it is late.
  taken.catch(() => {})
  try {
    return await Promise.race([taken, timeout])
  } finally {
    clearTimeout(timer)
  }
}

/** Resolves when one of the threads is ours. */
async function thread(): Promise<void> {
  while (running >= THREADS) await new Promise<void>(resolve => waiting.add(resolve))
  running++
}
