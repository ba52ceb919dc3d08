/**
 * Threads of a process that are not like its first one: each has capabilities, users and a seccomp
 * filter of its own.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { parseTaskStatus, type TaskStatus } from '../../delegation/preflight.ts'
import { procFields } from '../../sys/proc-file.ts'
import type { ProcessHandle } from '../../sys/process.ts'

/** More are not looked at. */
const MOST = 256

/** Numbers of the threads that differ from this one, which has that `status`. */
export function otherThreads({ pid }: ProcessHandle, status: string): number[] {
  const own = keyOf(status)
  return readdirSync(`/proc/${pid}/task`)
    .map(Number)
    .filter(tid => tid !== pid)
    .slice(0, MOST)
    .filter(tid => {
      const text = statusOf(pid, tid)
      return text !== undefined && keyOf(text) !== own
    })
}

/** Undefined: it has ended. */
function statusOf(pid: number, tid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1')
  } catch {
    return undefined
  }
}

function keyOf(text: string): string {
  const { uids, seccomp, permitted }: TaskStatus = parseTaskStatus(text)
  const fields = procFields(text)
  return [uids, seccomp, permitted, fields.get('CapEff'), fields.get('Groups')].join(' ')
}

const SHOWN = 4

/** Undefined: there are none. Pure. */
export function threadsNote(threads: readonly number[]): string | undefined {
  if (threads.length === 0) return undefined
  const more = threads.length > SHOWN ? ' ...' : ''
  return `of its threads ${threads.slice(0, SHOWN).join(', ')}${more} ${threads.length === 1 ? 'has' : 'have'} other rights: ask of one by its number`
}

/** A thread that lives, of a process whose first one may have ended. Undefined: there is none. */
export function livingThread(pid: number): number | undefined {
  try {
    const all = readdirSync(`/proc/${pid}/task`).map(Number)
    return [pid, ...all.slice(0, MOST)].find(tid => isLiving(statusOf(pid, tid)))
  } catch {
    return undefined
  }
}

/** Not a zombie, nor dead. */
function isLiving(status: string | undefined): boolean {
  const state = status === undefined ? undefined : procFields(status).get('State')
  return state !== undefined && !/^[ZX]/.test(state)
}
