/**
 * Who else is in the target's user namespace, and in our own network at this moment: with a token it
 * may use our devices. All tasks of this machine are looked at, on another thread.
 */
import { readFileSync } from 'node:fs'
import { isExecutorChild } from '../sys/executor/child.ts'
import { procFields } from '../sys/proc-file.ts'
import { readProc } from '../sys/process.ts'
import { ownNamespace } from '../sys/self.ts'
import { type PlacedTask, taskNamespaces, unlessGone } from '../sys/tasks.ts'
import { SharedLook } from './shared-look.ts'
import type { Target } from './target.ts'

/** In no user namespace that the kernel tells us of. */
const UNKNOWN = 'unknown'

const look = new SharedLook(async () => {
  const ours = ownNamespace('net')
  const found = new Map<string, PlacedTask[]>()
  for (const task of await taskNamespaces('net', ownNamespace('user'))) {
    if (task.namespace !== undefined && task.namespace !== ours) continue
    const key = task.userNamespace ?? UNKNOWN
    const known = found.get(key)
    if (known === undefined) found.set(key, [task])
    else known.push(task)
  }
  return found
})

/** How often we look again for what was there, and has ended before it could be judged. */
const LOOKS = 32

/**
 * A thread or process of the target's user namespace that is in our own network. Undefined: there is
 * none. One that cannot be judged counts. What is found is no older than the call.
 */
export async function inOurNetwork({ process, facts }: Target): Promise<string | undefined> {
  let ended: PlacedTask | undefined
  for (let looks = 0; looks < LOOKS; looks++) {
    const found = await look.take()
    const idMap = readProc(process, 'uid_map')
    const known = found.get(facts.userNamespace) ?? []
    const may = [...known, ...(found.get(UNKNOWN) ?? [])].filter(
      ({ tid, userNamespace, namespace }) =>
        (userNamespace !== undefined && namespace !== undefined) || mayBeIn(tid, idMap),
    )
    const others = may.filter(({ directory }) => !isExecutorChild(directory))
    const [there] = others.filter(({ tid }) => !hasEnded(tid))
    if (there !== undefined)
      return saying(there)
      // Mostly a child of an executor. Were it another, what it has started may have been missed.
    ;[ended] = others
    if (ended === undefined) return undefined
  }
  return saying(ended!)
}

function saying({ tid, namespace }: PlacedTask): string {
  return namespace === undefined
    ? `of process or thread ${tid}, which may be of the same user namespace, the kernel does not tell the network`
    : `process or thread ${tid} of the same user namespace is in the host's network`
}

/**
 * Whether a task whose namespaces the kernel does not tell us can be in a user namespace with this
 * map. False: it has ended, or is about to: a task gives its memory up before its namespaces, and
 * then runs nothing any more.
 */
function mayBeIn(tid: number, idMap: string): boolean {
  const status = statusOf(tid)
  if (status?.has('VmSize') !== true) return false
  return unlessGone(() => readFileSync(`/proc/${tid}/uid_map`, 'utf8')) === idMap
}

function hasEnded(tid: number): boolean {
  return statusOf(tid) === undefined
}

/** Undefined: it has ended. */
function statusOf(tid: number): ReadonlyMap<string, string> | undefined {
  const status = unlessGone(() => procFields(readFileSync(`/proc/${tid}/status`, 'utf8')))
  return /^[ZX]/.test(status?.get('State') ?? '') ? undefined : status
}
