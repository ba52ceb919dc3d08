/**
 * Who else is in the target's user namespace, or in one that it lies in, and in our own network at
 * this moment: with a token it may use our devices. From above it can enter at any time. All tasks of
 * this machine are looked at, on another thread.
 */
import { readFileSync } from 'node:fs'
import { isExecutorChild } from '../sys/executor/child.ts'
import { userNamespacesAbove } from '../sys/namespace.ts'
import { type ProcFields, procFields } from '../sys/proc-file.ts'
import { readProc } from '../sys/process.ts'
import { ownNamespace } from '../sys/self.ts'
import { type PlacedTask, taskNamespaces, unlessGone } from '../sys/tasks.ts'
import { SharedLook } from './shared-look.ts'
import type { Target } from './target.ts'

interface Neighbours {
  /** Those in our own network, or in one that we are not told, by their user namespace. */
  readonly known: ReadonlyMap<string, readonly PlacedTask[]>
  /** The same, in a user namespace that we are not told, with the map of ids that it has. */
  readonly unknown: readonly { readonly task: PlacedTask; readonly idMap: string }[]
}

const look = new SharedLook<Neighbours>(async () => {
  const ours = ownNamespace('net')
  const known = new Map<string, PlacedTask[]>()
  const unknown: { task: PlacedTask; idMap: string }[] = []
  for (const task of await taskNamespaces('net', ownNamespace('user'))) {
    if (task.namespace !== undefined && task.namespace !== ours) continue
    if (task.userNamespace === undefined) {
      // All threads of a process have the same map: one stands for all.
      if (unknown.at(-1)?.task.pid === task.pid) continue
      const idMap = idMapOf(task.tid)
      if (idMap !== undefined) unknown.push({ task, idMap })
      continue
    }
    const there = known.get(task.userNamespace)
    if (there === undefined) known.set(task.userNamespace, [task])
    else there.push(task)
  }
  return { known, unknown }
})

/** How often we look again for what was there, and has ended before it could be judged. */
const LOOKS = 32

/** As old may be what is seen by who asks again before it matters. */
const RECENT_MS = 1000

/**
 * A thread or process of the target's user namespace, or of one above it but ours, that is in our own
 * network. Undefined: there is none. One that cannot be judged counts. What is found is no older than the call; with `first`, that
 * there is none but what has ended may be a second old: it is for who asks again, without, before
 * anything can be reached.
 */
export async function inOurNetwork(
  { process, userNamespace, facts }: Target,
  { first = false }: { readonly first?: boolean } = {},
): Promise<string | undefined> {
  const above = userNamespacesAbove(userNamespace)
  const ours = readFileSync('/proc/self/uid_map', 'utf8')
  const seenIn = async (neighbours: Promise<Neighbours>): Promise<PlacedTask[]> => {
    const { known, unknown } = await neighbours
    const inside = mayBeIn({ known, unknown }, facts.userNamespace, readProc(process, 'uid_map'))
    if (above.length === 0) return inside
    // Of those that we are not told, any with another map than ours may be of one above.
    const others = unknown.filter(({ idMap }) => idMap !== ours).map(({ task }) => task)
    return [...inside, ...above.flatMap(name => known.get(name) ?? []), ...others]
  }
  if (first) {
    const before = await seenIn(look.recent(RECENT_MS))
    if (!before.some(({ tid, directory }) => !hasEnded(tid) && !isExecutorChild(directory))) return undefined
  }
  let seen: PlacedTask[] = []
  for (let looks = 0; looks < LOOKS; looks++) {
    seen = (await seenIn(look.take())).filter(({ directory }) => !isExecutorChild(directory))
    const [there] = seen.filter(({ tid }) => !hasEnded(tid))
    if (there !== undefined) return saying(there)
    if (seen.length === 0) return undefined
    // Mostly a child of an executor. Were it another, what it has started may have been missed.
  }
  return saying(seen[0]!)
}

function saying({ tid, namespace }: PlacedTask): string {
  return namespace === undefined
    ? `of process or thread ${tid}, which may be of the same user namespace, the kernel does not tell the network`
    : `process or thread ${tid} of the same user namespace, or of one above it, is in the host's network`
}

/** Those that are in this user namespace, or may be for all that the kernel tells us. */
function mayBeIn({ known, unknown }: Neighbours, userNamespace: string, idMap: string): PlacedTask[] {
  const there = known.get(userNamespace) ?? []
  return [
    ...there.filter(({ tid, namespace }) => namespace !== undefined || idMapOf(tid) === idMap),
    ...unknown.filter(one => one.idMap === idMap).map(({ task }) => task),
  ]
}

/**
 * The map of user ids of a task whose namespaces the kernel does not tell us. Undefined: it has ended,
 * or is about to: a task gives its memory up before its namespaces, and then runs nothing any more.
 */
function idMapOf(tid: number): string | undefined {
  if (statusOf(tid)?.has('VmSize') !== true) return undefined
  return unlessGone(() => readFileSync(`/proc/${tid}/uid_map`, 'utf8'))
}

function hasEnded(tid: number): boolean {
  return statusOf(tid) === undefined
}

/** Undefined: it has ended. */
function statusOf(tid: number): ProcFields | undefined {
  const status = unlessGone(() => procFields(readFileSync(`/proc/${tid}/status`, 'utf8')))
  return /^[ZX]/.test(status?.get('State') ?? '') ? undefined : status
}
