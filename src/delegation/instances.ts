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
import {
  heldNamespace,
  namespaceOfTask,
  ownerUid,
  owningUserNamespace,
  userNamespacesAbove,
} from '../sys/namespace.ts'
import { inodeOf } from '../sys/open.ts'
import { openProcess } from '../sys/process.ts'
import { allTasks, type Task, taskNamespaces, unlessGone } from '../sys/tasks.ts'
import { BPF_FS_MAGIC } from '../uapi/constants.ts'
import { SharedLook } from './shared-look.ts'
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
  /** Those that this one lies in, below our own. Undefined: none. */
  readonly within?: readonly string[]
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
  const namespaces = new Namespaces()
  for (const task of allTasks()) namespaces.add(task, namespaceOfTask(task.tid, 'mnt'))
  const looking = look(namespaces, vocabulary)
  for (;;) {
    const { done, value } = looking.next()
    if (done) return value
  }
}

/**
 * As `listInstances`, without holding up the event loop, and shared by all who ask: see SharedLook.
 */
export function findInstances(vocabulary: Vocabulary): Promise<DelegatedInstance[]> {
  return looksFor(vocabulary).all.take()
}

/**
 * Those of the superblock with this device alone, for which the others need not be described: that
 * takes the kernel long, so that here it does not matter how many there are.
 */
export async function findMountsOf(device: string, vocabulary: Vocabulary): Promise<DelegatedInstance[]> {
  const looks = looksFor(vocabulary)
  looks.devices.add(device)
  return (await looks.ofDevices.take()).filter(one => one.device === device)
}

interface Looks {
  readonly vocabulary: Vocabulary
  readonly all: SharedLook<DelegatedInstance[]>
  readonly ofDevices: SharedLook<DelegatedInstance[]>
  /** What the next of these looks is to find. */
  readonly devices: Set<string>
}

let looks: Looks | undefined

function looksFor(vocabulary: Vocabulary): Looks {
  if (looks?.vocabulary === vocabulary) return looks
  const devices = new Set<string>()
  looks = {
    vocabulary,
    devices,
    all: new SharedLook(() => lookAside(vocabulary)),
    ofDevices: new SharedLook(() => {
      const wanted = new Set(devices)
      devices.clear()
      return lookAside(vocabulary, wanted)
    }),
  }
  return looks
}

async function lookAside(
  vocabulary: Vocabulary,
  devices?: ReadonlySet<string>,
): Promise<DelegatedInstance[]> {
  const namespaces = new Namespaces()
  for (const task of await taskNamespaces('mnt')) namespaces.add(task, task.namespace)
  return inSlices(look(namespaces, vocabulary, devices))
}

/** Mount namespaces with the tasks that are in them; one thread stands for all of its process. */
class Namespaces {
  readonly tasks = new Map<string, Task[]>()

  /** Undefined: it has exited, or is not ours to see. */
  add(task: Task, namespace: string | undefined): void {
    if (namespace === undefined) return
    const known = this.tasks.get(namespace)
    if (known === undefined) this.tasks.set(namespace, [task])
    else if (known.at(-1)!.pid !== task.pid) known.push(task)
  }
}

/** Rests after each mount namespace. With `devices`: of these alone. */
function* look(
  { tasks: namespaces }: Namespaces,
  vocabulary: Vocabulary,
  devices?: ReadonlySet<string>,
): Generator<undefined, DelegatedInstance[]> {
  const found: DelegatedInstance[] = []
  for (const [mountNamespace, tasks] of namespaces) {
    found.push(...inNamespace(mountNamespace, tasks, vocabulary, devices))
    yield
  }
  return found
}

/** By the first task that is still in it. Nothing here waits for one of them since Linux 6.11. */
function inNamespace(
  mountNamespace: string,
  tasks: Task[],
  vocabulary: Vocabulary,
  devices: ReadonlySet<string> | undefined,
): DelegatedInstance[] {
  for (const task of tasks) {
    const found = unlessGone(() => {
      using held = openProcess(task.tid)
      using namespace = heldNamespace(held, 'mnt')
      if (`mnt:[${inodeOf(namespace)}]` !== mountNamespace) return undefined
      return delegatedMountsOf(namespace, mountNamespace, tasks, vocabulary, devices)
    })
    if (found === undefined) continue
    const pids = tasks.map(({ tid }) => tid)
    return found.map(mount => ({ ...mount, mountNamespace, pids }))
  }
  return []
}

type SeenMount = Omit<DelegatedInstance, 'mountNamespace' | 'pids'>

/**
 * By the kernel's table of mounts, where it has one to ask, and by mountinfo, which has the paths
 * as a process sees them.
 */
function delegatedMountsOf(
  namespace: Fd,
  name: string,
  tasks: readonly Task[],
  vocabulary: Vocabulary,
  devices: ReadonlySet<string> | undefined,
): SeenMount[] | undefined {
  const isWanted = ({ device }: { readonly device: string }): boolean => devices?.has(device) !== false
  // Undefined: this kernel does not tell (before Linux 6.11), or not us.
  const known = mountsOfType(namespace, BigInt(BPF_FS_MAGIC))?.filter(isWanted)
  if (known?.length === 0) return []
  const sight = known === undefined ? ownSight(name, tasks) : bestSight(name, tasks, known)
  if (sight === undefined) return undefined
  const { text, command } = sight
  const shown = bpffsMounts(text).filter(isWanted)
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
  const common = { ...ownerOf(namespace), command }
  return [
    ...seen.map(mount => ({ ...mount, ...common, covered: isCovered(placeOf.get(mount.mountId)!) })),
    ...unseen.map(mount => ({ ...mount, ...common, covered: true })),
  ]
}

/** What one task of the namespace sees. */
interface Sight {
  /** Its mountinfo. */
  readonly text: string
  /** Its name. */
  readonly command: string
}

/** Undefined: it has ended, or is elsewhere. */
function sightOf({ tid, directory }: Task, mountNamespace: string): Sight | undefined {
  const sight = unlessGone(() => ({
    text: readFileSync(`${directory}/mountinfo`, 'utf8'),
    command: readFileSync(`${directory}/comm`, 'utf8').replace(/\n$/, ''),
  }))
  // It may have moved meanwhile, or the number been reused: then this was another namespace's table.
  return namespaceOfTask(tid, 'mnt') === mountNamespace ? sight : undefined
}

/** Of so many tasks we read the mountinfo. What none of them sees has the kernel's own path. */
const SIGHTS = 64

/** Of the task that sees the most; processes with another root than `/` see a part. */
function bestSight(
  mountNamespace: string,
  tasks: readonly Task[],
  known: readonly { readonly mountId: number }[],
): Sight | undefined {
  let best: Sight | undefined
  let most = -1
  let sights = 0
  for (const task of tasks) {
    const sight = sightOf(task, mountNamespace)
    if (sight === undefined) continue
    const ids = new Set(bpffsMounts(sight.text).map(({ mountId }) => mountId))
    const count = known.filter(({ mountId }) => ids.has(mountId)).length
    if (count > most) {
      best = sight
      most = count
    }
    if (most === known.length || ++sights === SIGHTS) break
  }
  return best
}

/** Where the kernel has no table to ask: of a task whose root is `/`, if there is one. */
function ownSight(mountNamespace: string, tasks: readonly Task[]): Sight | undefined {
  const rootIs = (task: Task): boolean => unlessGone(() => readlinkSync(`${task.directory}/root`)) === '/'
  const whole = tasks.find(rootIs)
  for (const task of whole === undefined ? tasks : [whole, ...tasks]) {
    const sight = sightOf(task, mountNamespace)
    if (sight !== undefined) return sight
  }
  return undefined
}

function ownerOf(mountNamespace: Fd): Pick<DelegatedInstance, 'userNamespace' | 'within' | 'ownerUid'> {
  using owner = owningUserNamespace(mountNamespace)
  const within = userNamespacesAbove(owner)
  return {
    userNamespace: `user:[${inodeOf(owner)}]`,
    ...(within.length === 0 ? {} : { within }),
    ownerUid: ownerUid(owner),
  }
}
