/** What the running kernel says of a process and of the machine, as far as bpf(2) asks for it. */
import { readFileSync } from 'node:fs'
import { type BpffsMount, delegatedMounts } from '../ebpf/bpffs.ts'
import { Owned } from '../ebpf/owned.ts'
import { NotFoundError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import { MODEL_CAPABILITIES, type ModelCapability } from '../model/task.ts'
import type { Fd } from '../sys/fd.ts'
import { bytesInTime, LOOK_MS, namespaceInTime } from '../sys/in-time.ts'
import { heldNamespaceName, ownerUid, owningUserNamespace, userNamespacesAbove } from '../sys/namespace.ts'
import { inodeOf } from '../sys/open.ts'
import { cgroup2Path, procFields } from '../sys/proc-file.ts'
import { openProcess, type ProcessHandle, readProc, readProcLines, stillAlive } from '../sys/process.ts'
import { INITIAL_USER_NAMESPACE, ownNamespace } from '../sys/self.ts'
import { CAPABILITIES, type CapabilityName } from '../uapi/constants.ts'
import { type BpffsPlace, type Identity, identityOf, openBpffs, placesOfBpffs } from './causes/bpffs-place.ts'
import { type GuardFacts, guardFactsOf, type Whereabouts } from './causes/guard.ts'
import { type Limits, limitsOf } from './causes/limits.ts'
import { type Loader, loaderOf } from './causes/loader.ts'
import { type SecurityModules, securityModules } from './causes/security-modules.ts'
import { cgroupRoot } from './recipient/cgroup.ts'

export interface Situation {
  readonly pid: number
  /** `user:[4026531837]` */
  readonly userNamespace: string
  readonly isInitial: boolean
  /** Of the user namespace; a user of the host. */
  readonly ownerUid: number
  /** The user namespace that owns its mount namespace; undefined: it cannot be told. */
  readonly mountOwner: string | undefined
  /** Effective, of the host. */
  readonly uid: number
  /** Effective, in its own user namespace; of those that bpf(2) asks for. */
  readonly capabilities: readonly ModelCapability[]
  /** Whether a seccomp filter is on. What it says is not known. */
  readonly filtered: boolean
  readonly noNewPrivileges: boolean
  /**
   * bpffs with a delegation that its mount namespace shows, whole; the one of which it would make a
   * token is the last.
   */
  readonly mounts: readonly BpffsMount[]
  /** Whether there are so many mounts of all kinds that only the first of them were looked at. */
  readonly mountsCut: boolean
  readonly unprivilegedBpfDisabled: 0 | 1 | 2
  readonly modules: SecurityModules
  /** Undefined of what follows: it could not be looked at. */
  readonly identity: Identity | undefined
  /** The last of `mounts`, as the process finds it. */
  readonly place: BpffsPlace | undefined
  readonly limits: Limits | undefined
  /** LIBBPF_BPF_TOKEN_PATH of its environment, as that was when its program began; undefined: none. */
  readonly tokenPath: string | undefined
  /** None that is known, too. */
  readonly loader: Loader | undefined
  /** No guard is installed, too. */
  readonly guard: GuardFacts | undefined
  readonly where: Whereabouts
}

/** The same by its number. NotFoundError: there is none. */
export async function situationOfPid(pid: number, guard?: Guard): Promise<Situation> {
  using process = openProcess(pid)
  return await situationOf(process, guard)
}

/**
 * NotFoundError: it has exited. TimeoutError: it kept us waiting. `guard`: the one that is installed,
 * of which this process is a keeper.
 */
export async function situationOf(process: ProcessHandle, guard?: Guard): Promise<Situation> {
  using userNamespace = await namespaceInTime(process, 'user', LOOK_MS)
  const name = `user:[${inodeOf(userNamespace)}]`
  const status = procFields(readProc(process, 'status'))
  const effective = BigInt(`0x${status.get('CapEff') ?? '0'}`)
  // At once, since the process may end soon; what is lost to that afterwards is not known.
  const { text: mountinfo, isWhole } = readProcLines(process, 'mountinfo', MOST_MOUNTINFO_BYTES)
  const atOnce = {
    mounts: delegatedMounts(mountinfo).slice(-MOST_MOUNTS),
    identity: identityOf(process, status),
    limits: limitsOf(process),
    where: {
      ...{ userNamespaces: [name, ...aboveOf(userNamespace)], cgroup: cgroupOf(process) },
      // Ours is the host's, since we see its guard and processes.
      inHostNetwork: heldNamespaceName(process, 'net') === ownNamespace('net'),
    },
  }
  stillAlive(process)
  using owned = new Owned()
  const found =
    (await unlessEnded(() => mountsFor(process, { mounts: atOnce.mounts, mountinfo }, name, owned))) ??
    atOnce.mounts.map((mount): FoundMount => ({ mount }))
  const last = found.at(-1)
  return {
    ...atOnce,
    pid: process.pid,
    userNamespace: name,
    isInitial: name === INITIAL_USER_NAMESPACE,
    ownerUid: ownerUid(userNamespace),
    mountOwner: await unlessEnded(() => ownerOfMounts(process)),
    uid: Number(status.get('Uid')?.split('\t')[1] ?? 0),
    capabilities: MODEL_CAPABILITIES.filter(one => {
      const bit = CAPABILITIES[`CAP_${one.toUpperCase()}` as CapabilityName]
      return ((effective >> BigInt(bit)) & 1n) === 1n
    }),
    filtered: status.get('Seccomp') === '2',
    noNewPrivileges: status.get('NoNewPrivs') === '1',
    mounts: found.map(({ mount }) => mount),
    mountsCut: !isWhole,
    unprivilegedBpfDisabled: sysctl(),
    modules: (await unlessEnded(() => securityModules(process))) ?? NO_MODULES,
    place: last?.place,
    tokenPath: await unlessEnded(() => tokenPathOf(process)),
    loader: await loaderOf(process, mountinfo),
    guard: guard && (await guardFacts(guard, last?.root)),
  }
}

const NO_MODULES: SecurityModules = { names: [], label: undefined, programs: [], lockdown: undefined }

async function unlessEnded<T>(look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look()
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    throw error
  }
}

async function guardFacts(guard: Guard, root: Fd | undefined): Promise<GuardFacts | undefined> {
  if (root === undefined) return undefined
  // Start-up is felt, and most machines have no guard.
  const { bootTimeNs } = await import('../guard/clock.ts')
  return guardFactsOf(guard, root, bootTimeNs())
}

interface FoundMount {
  readonly mount: BpffsMount
  /** Undefined: no path leads to it. */
  readonly root?: Fd
  readonly place?: BpffsPlace
}

/** A hundred thousand mounts, which is what a mount namespace may have, unless their paths are long. */
const MOST_MOUNTINFO_BYTES = 16 * 1024 * 1024

/** More are nobody's mistake any more. */
const MOST_MOUNTS = 64

/** In the order of the mounts, but one that belongs to the process's own user namespace last. */
async function mountsFor(
  process: ProcessHandle,
  { mounts, mountinfo }: { readonly mounts: readonly BpffsMount[]; readonly mountinfo: string },
  own: string,
  owned: Owned,
): Promise<FoundMount[]> {
  const found: FoundMount[] = []
  for (const mount of mounts) {
    const root = await openBpffs(process, mount, mountinfo)
    found.push(root === undefined ? { mount } : { mount, root: owned.add(root) })
  }
  const open = found.filter(({ root }) => root !== undefined)
  const places = await placesOfBpffs(open.map(({ root }) => root!))
  const placed = found.map(one => {
    const place = places[open.indexOf(one)]
    return place === undefined ? one : { ...one, place }
  })
  const best = placed.findLast(({ place }) => place?.userNamespace === own)
  return best === undefined ? placed : [...placed.filter(one => one !== best), best]
}

/** The kernel has room for more, and nobody has it. */
const MOST_ENVIRON_BYTES = 4 * 1024 * 1024
const TOKEN_PATH = 'LIBBPF_BPF_TOKEN_PATH='

async function tokenPathOf(process: ProcessHandle): Promise<string | undefined> {
  const environ = await bytesInTime(process, 'environ', MOST_ENVIRON_BYTES, LOOK_MS)
  const said = environ
    ?.toString('utf8')
    .split('\0')
    .find(one => one.startsWith(TOKEN_PATH))
  return said === undefined ? undefined : said.slice(TOKEN_PATH.length)
}

async function ownerOfMounts(process: ProcessHandle): Promise<string | undefined> {
  using mounts = await namespaceInTime(process, 'mnt', LOOK_MS)
  using owner = owningUserNamespace(mounts)
  return `user:[${inodeOf(owner)}]`
}

function aboveOf(userNamespace: Fd): string[] {
  return `user:[${inodeOf(userNamespace)}]` === INITIAL_USER_NAMESPACE
    ? []
    : userNamespacesAbove(userNamespace)
}

function cgroupOf(process: ProcessHandle): string | undefined {
  const path = cgroup2Path(readProc(process, 'cgroup'))
  const root = cgroupRoot()
  return path === undefined || root === undefined ? undefined : root + path
}

function sysctl(): 0 | 1 | 2 {
  const value = textOf('/proc/sys/kernel/unprivileged_bpf_disabled')
  // Fail closed: an unknown value is the strict one.
  return value === '0' ? 0 : value === '1' ? 1 : 2
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1').trim()
  } catch {
    return undefined
  }
}
