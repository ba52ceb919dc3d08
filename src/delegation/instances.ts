/**
 * Delegated bpffs instances, whoever made them, found in the mount namespaces of all processes and
 * threads.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { type BpffsMount, bpffsMount, bpffsMounts } from '../ebpf/bpffs.ts'
import { parseMountValue } from '../policy/mask-text.ts'
import { ANY_MASK, MASK_DOMAINS, type MaskDomain, type Masks, type Vocabulary } from '../policy/vocabulary.ts'
import { coverage } from '../sys/covered.ts'
import type { Fd } from '../sys/fd.ts'
import { mountsOfType } from '../sys/mount-table.ts'
import { parsePlaces } from '../sys/mountinfo.ts'
import { ownerUid, owningUserNamespace } from '../sys/namespace.ts'
import { inodeOf, open } from '../sys/open.ts'
import { allTasks, type Task, unlessGone } from '../sys/tasks.ts'
import { BPF_FS_MAGIC, O_CLOEXEC, O_RDONLY } from '../uapi/constants.ts'
import { inSlices } from './slices.ts'

export interface DelegatedMount {
  readonly mountId: number
  /** `major:minor`: the same for all mounts of one instance. */
  readonly device: string
  readonly path: string
  readonly masks: Masks
  /** The kernel's own text, e.g. `delegate_cmds=map_create:prog_load`. */
  readonly options: readonly string[]
}

/** What this bpffs mount delegates, or undefined when it delegates nothing. Pure. */
export function delegatedMount(mount: BpffsMount, vocabulary: Vocabulary): DelegatedMount | undefined {
  if (!mount.delegated) return undefined
  const shown = MASK_DOMAINS.filter(domain => mount.delegation[domain] !== '')
  const masks: Record<MaskDomain, bigint> = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  for (const domain of shown) {
    const parsed = parseMountValue(vocabulary, domain, mount.delegation[domain])
    // Fail closed: text that we cannot read is taken for everything, never for nothing.
    masks[domain] = parsed.ok ? parsed.mask : ANY_MASK
  }
  const options = shown.map(domain => `delegate_${domain}=${mount.delegation[domain]}`)
  return { mountId: mount.mountId, device: mount.device, path: mount.path, masks, options }
}

export interface DelegatedInstance extends DelegatedMount {
  readonly mountNamespace: string
  /** The user namespace that owns the mount namespace: tokens can be made in it. */
  readonly userNamespace: string
  readonly ownerUid: number
  /**
   * Processes in that mount namespace, each by its first thread there; `command` is that of the
   * first.
   */
  readonly pids: readonly number[]
  readonly command: string
  /**
   * No path leads to it, because another mount covers it or its processes left it by chroot(2). A
   * process that holds it open can use it.
   */
  readonly covered: boolean
}

/** The path of a mount that lies outside of the root of all that we could ask. */
export const NO_PATH = '?'

/**
 * Every delegated bpffs that some process of this machine has mounted. Mount namespaces without a
 * process (held by a descriptor only) cannot be seen, nor can processes of other PID namespaces
 * above ours.
 */
export function listInstances(vocabulary: Vocabulary): DelegatedInstance[] {
  const looking = look(vocabulary)
  for (;;) {
    const { done, value } = looking.next()
    if (done) return value
  }
}

let looked: Promise<unknown> = Promise.resolve()
let next: { readonly vocabulary: Vocabulary; readonly found: Promise<DelegatedInstance[]> } | undefined

/**
 * As `listInstances`, without holding up the event loop. What is found is no older than the call:
 * whoever asks while one look goes on waits for the next, and all who wait share that.
 */
export function findInstances(vocabulary: Vocabulary): Promise<DelegatedInstance[]> {
  if (next?.vocabulary === vocabulary) return next.found
  const found = looked.then(() => {
    next = undefined
    return inSlices(look(vocabulary))
  })
  looked = found.catch(() => {})
  next = { vocabulary, found }
  return found
}

/** Rests after each step: a task, or a mount namespace. */
function* look(vocabulary: Vocabulary): Generator<undefined, DelegatedInstance[]> {
  const namespaces = new Map<string, Task[]>()
  for (const task of allTasks()) {
    yield
    const namespace = unlessGone(() => readlinkSync(`${task.directory}/ns/mnt`))
    if (namespace === undefined) continue // exited, or not ours to see
    const known = namespaces.get(namespace)
    if (known === undefined) namespaces.set(namespace, [task])
    // One thread stands for all threads of its process in the same namespace.
    else if (known.at(-1)!.pid !== task.pid) known.push(task)
  }
  const found: DelegatedInstance[] = []
  for (const [mountNamespace, tasks] of namespaces) {
    found.push(...inNamespace(mountNamespace, tasks, vocabulary))
    yield
  }
  return found
}

/**
 * Any of the tasks will do, and one that sees everything is best; the first may just have exited.
 */
function inNamespace(mountNamespace: string, tasks: Task[], vocabulary: Vocabulary): DelegatedInstance[] {
  for (const { directory } of inOrderOfSight(tasks)) {
    const found = unlessGone(() => delegatedMountsOf(directory, vocabulary))
    if (found === undefined) continue
    if (found.length === 0) return []
    // The number may have been reused since: then this was another namespace's table.
    if (unlessGone(() => readlinkSync(`${directory}/ns/mnt`)) !== mountNamespace) continue
    const command = unlessGone(() => readFileSync(`${directory}/comm`, 'utf8').replace(/\n$/, '')) ?? '?'
    const pids = tasks.map(({ tid }) => tid)
    return found.map(mount => ({ ...mount, mountNamespace, pids, command }))
  }
  return []
}

/** Tasks with another root than `/` see only a part. */
function* inOrderOfSight(tasks: readonly Task[]): Generator<Task> {
  const narrow: Task[] = []
  for (const task of tasks) {
    if (unlessGone(() => readlinkSync(`${task.directory}/root`)) === '/') yield task
    else narrow.push(task)
  }
  yield* narrow
}

type SeenMount = Omit<DelegatedInstance, 'mountNamespace' | 'pids' | 'command'>

/**
 * By the kernel's table of mounts, where it has one to ask, and by mountinfo, which has the paths
 * as the process sees them.
 */
function delegatedMountsOf(directory: string, vocabulary: Vocabulary): SeenMount[] {
  using namespace = open(`${directory}/ns/mnt`, O_RDONLY | O_CLOEXEC)
  // Undefined: this kernel does not tell (before Linux 6.11), or not us.
  const known = mountsOfType(namespace, BigInt(BPF_FS_MAGIC))
  if (known?.length === 0) return []
  const text = readFileSync(`${directory}/mountinfo`, 'utf8')
  const shown = bpffsMounts(text)
  const seen = shown.flatMap(mount => delegatedMount(mount, vocabulary) ?? [])
  const ids = new Set(shown.map(({ mountId }) => mountId))
  const unseen = (known ?? [])
    .filter(({ mountId }) => !ids.has(mountId))
    .flatMap(mount => mount.describe() ?? [])
    .flatMap(mount => delegatedMount(bpffsMount({ ...mount, path: mount.path ?? NO_PATH }), vocabulary) ?? [])
  if (seen.length + unseen.length === 0) return []
  const places = parsePlaces(text)
  const isCovered = coverage(places)
  const placeOf = new Map(places.map(place => [place.mountId, place]))
  const owner = ownerOf(namespace)
  return [
    ...seen.map(mount => ({ ...mount, ...owner, covered: isCovered(placeOf.get(mount.mountId)!) })),
    ...unseen.map(mount => ({ ...mount, ...owner, covered: true })),
  ]
}

function ownerOf(mountNamespace: Fd): { userNamespace: string; ownerUid: number } {
  using owner = owningUserNamespace(mountNamespace)
  return { userNamespace: `user:[${inodeOf(owner)}]`, ownerUid: ownerUid(owner) }
}
