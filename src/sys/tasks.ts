/**
 * Every thread of every process that /proc shows: each has namespaces of its own, and a process
 * whose first thread has ended goes on in the others. Nothing here waits for a task, whatever it
 * does: see src/sys/in-time.ts.
 */
import { readdirSync } from 'node:fs'
import { NotFoundError } from '../errors.ts'
import { failure } from './failure.ts'
import { namespaceOfTask } from './namespace.ts'
import { native } from './native.ts'
import { requireOwnProc } from './process.ts'

export interface Task {
  readonly pid: number
  /** The number of the thread; /proc/TID is there, though it is not listed. */
  readonly tid: number
  /** Its directory in /proc. */
  readonly directory: string
}

/**
 * In order of processes, the first thread of each first. Some may have ended when they are given.
 */
export function* allTasks(): Generator<Task> {
  for (const pid of allProcesses()) yield* tasksOf(pid)
}

/** Their numbers. Some may have ended when they are given. */
export function* allProcesses(): Generator<number> {
  requireOwnProc()
  yield* numbersIn('/proc')
}

export interface PlacedTask extends Task {
  /** Undefined: it has ended, or we are not told; or it is asked for mount namespaces. */
  readonly userNamespace: string | undefined
  readonly namespace: string | undefined
}

/**
 * Every task of every process, with the namespace of that kind that it is in, from one look on a
 * worker thread. With `net`: its user namespace, too; and processes in the one `except` are left out.
 */
export async function taskNamespaces(kind: 'mnt'): Promise<PlacedTask[]>
export async function taskNamespaces(kind: 'net', except?: string): Promise<PlacedTask[]>
export async function taskNamespaces(kind: 'mnt' | 'net', except?: string): Promise<PlacedTask[]> {
  requireOwnProc()
  const left = except === undefined ? 0 : Number(/\d+/.exec(except)![0])
  const found = await native().taskNamespaces(kind, left)
  if (typeof found === 'number') throw failure('taskNamespaces', 'look at all tasks', found, '/proc')
  const users = new Names('user')
  const others = new Names(kind)
  const tasks: PlacedTask[] = []
  for (let at = 0; at < found.length; at += FIELDS) {
    const pid = found[at]!
    const tid = found[at + 1]!
    tasks.push({
      pid,
      tid,
      directory: `/proc/${pid}/task/${tid}`,
      userNamespace: users.of(found[at + 2]!),
      namespace: others.of(found[at + 3]!),
    })
  }
  return tasks
}

/** Many tasks are in the same few namespaces. */
class Names {
  readonly #kind: string
  readonly #known = new Map<number, string>()

  constructor(kind: string) {
    this.#kind = kind
  }

  of(inode: number): string | undefined {
    if (inode === 0) return undefined
    const known = this.#known.get(inode) ?? `${this.#kind}:[${inode}]`
    this.#known.set(inode, known)
    return known
  }
}

/** Of each task that the addon tells of. */
const FIELDS = 4

/** The threads of a process, the first one first. */
export function tasksOf(pid: number): Task[] {
  return numbersIn(`/proc/${pid}/task`).map(tid => ({ pid, tid, directory: `/proc/${pid}/task/${tid}` }))
}

/**
 * The user namespace of all threads of a process: the kernel lets only a process of one thread
 * change it. Undefined: it has ended, or is not ours to look at.
 */
export function userNamespaceOfProcess(pid: number): string | undefined {
  const first = namespaceOfTask(pid, 'user')
  if (first !== undefined) return first
  for (const { tid } of tasksOf(pid)) {
    const found = tid === pid ? undefined : namespaceOfTask(tid, 'user')
    if (found !== undefined) return found
  }
  return undefined
}

function numbersIn(directory: string): number[] {
  const names = unlessGone(() => readdirSync(directory)) ?? []
  return names.filter(name => /^\d+$/.test(name)).map(Number)
}

/** Undefined if the process has exited meanwhile, or if we may not look at it. */
export function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    const { code, errnoName } = error as { code?: string; errnoName?: string }
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(errnoName ?? code ?? '')) return undefined
    throw error
  }
}
