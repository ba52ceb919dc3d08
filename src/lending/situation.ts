/** What the running kernel says of a process and of the machine, as far as bpf(2) asks for it. */
import { existsSync, readFileSync } from 'node:fs'
import { parseTaskStatus } from '../delegation/preflight.ts'
import { type BpffsMount, delegatedMounts } from '../ebpf/bpffs.ts'
import { Owned } from '../ebpf/owned.ts'
import { BpftokenError, NotFoundError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import type { ModelCapability } from '../model/task.ts'
import type { Fd } from '../sys/fd.ts'
import { bytesInTime, LOOK_MS, namespaceInTime } from '../sys/in-time.ts'
import { heldNamespaceName, ownerUid, owningUserNamespace, userNamespacesAbove } from '../sys/namespace.ts'
import { inodeOf } from '../sys/open.ts'
import { cgroup2Path, procFields } from '../sys/proc-file.ts'
import { openProcess, type ProcessHandle, readProc, readProcLines, stillAlive } from '../sys/process.ts'
import { INITIAL_USER_NAMESPACE, ownNamespace } from '../sys/self.ts'
import { DEFAULT_BPFFS } from '../uapi/kernel-paths.ts'
import {
  type BpffsPlace,
  type Identity,
  identityOf,
  isSamePath,
  openBpffs,
  placesOfBpffs,
} from './causes/bpffs-place.ts'
import { type GuardFacts, guardFactsOf, type Whereabouts } from './causes/guard.ts'
import { type Limits, limitsOf } from './causes/limits.ts'
import { type Loader, loaderOf } from './causes/loader.ts'
import { capabilitiesIn, keptByPrograms } from './causes/next-program.ts'
import { type SecurityModules, securityModules } from './causes/security-modules.ts'
import { otherThreads } from './causes/threads.ts'
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
  /** Those that a program has which it executes. */
  readonly kept: readonly ModelCapability[]
  /** Numbers of its threads that have other ones, or another user or filter. */
  readonly others: readonly number[]
  /** Whether a seccomp filter is on. What it says is not known. */
  readonly filtered: boolean
  /**
   * bpffs with a delegation that its mount namespace shows, whole; the one of which it would make a
   * token is the last.
   */
  readonly mounts: readonly BpffsMount[]
  /** Paths of others that no path leads to, since something else is mounted over them. */
  readonly hidden: readonly string[]
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
 * The same of one of its threads, which may have other capabilities, a seccomp filter of its own, or
 * other mounts. Before Linux 6.9, where threads cannot be held, of the process.
 */
export async function situationOfThread(pid: number, tid: number, guard?: Guard): Promise<Situation> {
  using thread = openThread(pid, tid)
  return await situationOf(thread, guard)
}

function openThread(pid: number, tid: number): ProcessHandle {
  try {
    return openProcess(tid)
  } catch (error) {
    if (error instanceof NotFoundError && existsSync(`/proc/${pid}/task/${tid}`)) return openProcess(pid)
    throw error
  }
}

/**
 * NotFoundError: it has exited. TimeoutError: it kept us waiting. `guard`: the one that is installed,
 * of which this process is a keeper.
 */
export async function situationOf(process: ProcessHandle, guard?: Guard): Promise<Situation> {
  using userNamespace = await namespaceInTime(process, 'user', LOOK_MS)
  const name = `user:[${inodeOf(userNamespace)}]`
  const statusText = readProc(process, 'status')
  const status = procFields(statusText)
  const identity = identityOf(process, status)
  const effective = BigInt(`0x${status.get('CapEff') ?? '0'}`)
  // At once, since the process may end soon; what is lost to that afterwards is not known.
  const { text: mountinfo, isWhole } = readProcLines(process, 'mountinfo', MOST_MOUNTINFO_BYTES)
  const atOnce = {
    mounts: delegatedMounts(mountinfo).slice(-MOST_MOUNTS),
    identity,
    others: otherThreads(process, statusText),
    limits: limitsOf(process),
    where: {
      ...{ userNamespaces: [name, ...aboveOf(userNamespace)], cgroup: cgroupOf(process) },
      // Ours is the host's, since we see its guard and processes.
      inHostNetwork: heldNamespaceName(process, 'net') === ownNamespace('net'),
    },
  }
  stillAlive(process)
  const tokenPath = await tokenPathOf(process)
  using owned = new Owned()
  const shown = { mounts: atOnce.mounts, mountinfo, tokenPath }
  const { found, hidden } = (await unlessEnded(() => mountsFor(process, shown, name, owned))) ?? {
    found: atOnce.mounts.map((mount): FoundMount => ({ mount })),
    hidden: [],
  }
  const last = found.at(-1)
  return {
    ...atOnce,
    pid: process.pid,
    userNamespace: name,
    isInitial: name === INITIAL_USER_NAMESPACE,
    ownerUid: ownerUid(userNamespace),
    mountOwner: await unlessEnded(() => ownerOfMounts(process)),
    uid: Number(status.get('Uid')?.split('\t')[1] ?? 0),
    capabilities: capabilitiesIn(effective),
    kept: keptByPrograms(parseTaskStatus(statusText), identity),
    filtered: status.get('Seccomp') === '2',
    mounts: found.map(({ mount }) => mount),
    hidden,
    mountsCut: !isWhole,
    unprivilegedBpfDisabled: sysctl(),
    modules: (await unlessEnded(() => securityModules(process))) ?? NO_MODULES,
    place: last?.place,
    tokenPath,
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
  /** Undefined of both: it could not be looked at. */
  readonly root?: Fd
  readonly place?: BpffsPlace
}

interface ShownMounts {
  readonly mounts: readonly BpffsMount[]
  readonly mountinfo: string
  readonly tokenPath: string | undefined
}

/** A hundred thousand mounts, which is what a mount namespace may have, unless their paths are long. */
const MOST_MOUNTINFO_BYTES = 16 * 1024 * 1024

/** More are nobody's mistake any more. */
const MOST_MOUNTS = 64

/**
 * In the order of the mounts, but last the one of which the process would make a token: of its own user
 * namespace, and there where it looks. `hidden`: those that it cannot come to.
 */
async function mountsFor(
  process: ProcessHandle,
  { mounts, mountinfo, tokenPath = DEFAULT_BPFFS }: ShownMounts,
  own: string,
  owned: Owned,
): Promise<{ readonly found: FoundMount[]; readonly hidden: string[] }> {
  const looks: { mount: BpffsMount; seen: Awaited<ReturnType<typeof openBpffs>> }[] = []
  for (const mount of mounts) {
    const seen = await openBpffs(process, mount, mountinfo)
    if (typeof seen === 'object') owned.add(seen.root)
    looks.push({ mount, seen })
  }
  const open = looks.flatMap(({ seen }) => (typeof seen === 'object' ? [seen] : []))
  const places = await placesOfBpffs(open)
  const found = looks
    .filter(({ seen }) => seen !== 'hidden')
    .map(({ mount, seen }): FoundMount => {
      const place = typeof seen === 'object' ? places[open.indexOf(seen)] : undefined
      return typeof seen === 'object' && place !== undefined ? { mount, root: seen.root, place } : { mount }
    })
  const rank = ({ mount, place }: FoundMount): number =>
    (place?.userNamespace === own ? 2 : 0) + (isSamePath(mount.path, tokenPath) ? 1 : 0)
  return {
    found: found.toSorted((a, b) => rank(a) - rank(b)),
    hidden: looks.filter(({ seen }) => seen === 'hidden').map(({ mount }) => mount.path),
  }
}

/** The kernel has room for more, and nobody has it. */
const MOST_ENVIRON_BYTES = 4 * 1024 * 1024
const TOKEN_PATH = 'LIBBPF_BPF_TOKEN_PATH='

async function tokenPathOf(process: ProcessHandle): Promise<string | undefined> {
  try {
    const environ = await bytesInTime(process, 'environ', MOST_ENVIRON_BYTES, LOOK_MS)
    const all = environ?.toString('utf8').split('\0') ?? []
    return all.find(one => one.startsWith(TOKEN_PATH))?.slice(TOKEN_PATH.length)
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
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
