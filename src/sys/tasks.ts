/**
 * Every thread of every process that /proc shows: each has namespaces of its own, and a process
 * whose first thread has ended goes on in the others.
 */
import { readdirSync } from 'node:fs'
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
  requireOwnProc()
  for (const pid of numbersIn('/proc'))
    for (const tid of numbersIn(`/proc/${pid}/task`))
      yield { pid, tid, directory: `/proc/${pid}/task/${tid}` }
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
    const { code, errnoName } = error as { code?: string; errnoName?: string }
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(errnoName ?? code ?? '')) return undefined
    throw error
  }
}
