/**
 * Whether a process can make a token of a bpffs that it sees: it must be able to open its root, and
 * be in the user namespace of the bpffs.
 */
import { fstatSync } from 'node:fs'
import { posix } from 'node:path'
import type { BpffsMount } from '../../ebpf/bpffs.ts'
import { SyscallError } from '../../errors.ts'
import type { Inode } from '../../model/inode.ts'
import type { Fd } from '../../sys/fd.ts'
import { LOOK_MS, openInTime } from '../../sys/in-time.ts'
import { heldMountId } from '../../sys/open.ts'
import type { ProcFields } from '../../sys/proc-file.ts'
import { procNumbers } from '../../sys/proc-file.ts'
import { type IdRange, type ProcessHandle, parseIdMap, readProc } from '../../sys/process.ts'
import { answers, openAnswering } from './answering.ts'
import { ownersOfFileSystems } from './file-system-owner.ts'
import type { Finding } from './finding.ts'

/** Without the symbolic links that there may be. */
export function isSamePath(one: string, other: string): boolean {
  return posix.resolve('/', one) === posix.resolve('/', other)
}

/** A bpffs as a process finds it. */
export interface BpffsPlace {
  /** Which user namespace it belongs to, `user:[4026531837]`; undefined: it cannot be told. */
  readonly userNamespace: string | undefined
  /** Of the root directory; numbers of the host. */
  readonly uid: number
  readonly gid: number
  readonly mode: number
  /** The directories on the way to it that could be looked at. */
  readonly way: readonly WayDirectory[]
}

export interface WayDirectory {
  readonly path: string
  readonly inode: Inode
}

/** Whom permissions are about. Numbers of the host. */
export interface Identity {
  /** That which file systems ask. */
  readonly uid: number
  readonly gids: readonly number[]
  readonly uidMap: readonly IdRange[]
  readonly gidMap: readonly IdRange[]
}

export function identityOf(process: ProcessHandle, status: ProcFields): Identity {
  const last = (key: string): number => procNumbers(status.get(key) ?? '')?.at(-1) ?? 0
  return {
    uid: last('Uid'),
    gids: [last('Gid'), ...(procNumbers(status.get('Groups') ?? '') ?? [])],
    uidMap: parseIdMap(readProc(process, 'uid_map')),
    gidMap: parseIdMap(readProc(process, 'gid_map')),
  }
}

/** The root of a bpffs where a process sees it, O_PATH, and the directories on the way. */
export interface SeenBpffs {
  readonly root: Fd
  readonly way: readonly WayDirectory[]
}

/**
 * The bpffs, of which the caller closes the root. `hidden`: its path leads to something else, such as
 * what was mounted over it; `unknown`: it cannot be told. Of file systems on the way only those are
 * asked that always answer; `mountinfo` is the process's.
 */
export async function openBpffs(
  process: ProcessHandle,
  { path: where, mountId }: BpffsMount,
  mountinfo: string,
): Promise<SeenBpffs | 'hidden' | 'unknown'> {
  const way: WayDirectory[] = []
  const passes = (directory: Fd, path: string): void => {
    if (answers(directory, mountinfo)) way.push({ path, inode: inodeOf(directory) })
  }
  try {
    using directory = await openInTime(process, 'root', LOOK_MS)
    const root = openAnswering(directory, where, mountinfo, passes)
    if (heldMountId(root) === mountId) return { root, way }
    root.close()
    return 'hidden'
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return ['ENOENT', 'ENOTDIR'].includes(error.errnoName) ? 'hidden' : 'unknown'
  }
}

function inodeOf(directory: Fd): Inode {
  const { uid, gid, mode } = fstatSync(directory.number)
  return { uid, gid, mode: mode & 0o7777 }
}

/** What a process finds at the roots of these bpffs. */
export async function placesOfBpffs(all: readonly SeenBpffs[]): Promise<BpffsPlace[]> {
  const owners = all.length === 0 ? [] : await ownersOfFileSystems(all.map(({ root }) => root))
  return all.map(({ root, way }, i) => ({ userNamespace: owners[i], ...inodeOf(root), way }))
}

const MAY_READ = 4
const MAY_SEARCH = 1

/** Who may open the root directory for reading. */
export function opensRoot(place: BpffsPlace, identity: Identity, capabilities: readonly string[]): boolean {
  return mayUse(place, MAY_READ, identity, capabilities)
}

/** generic_permission(), of a directory that is read or searched: one bit of its mode. Pure. */
export function mayUse(
  of: { readonly uid: number; readonly gid: number; readonly mode: number },
  wanted: number,
  { uid, gids, uidMap, gidMap }: Identity,
  capabilities: readonly string[],
): boolean {
  const { mode } = of
  const bits = of.uid === uid ? mode >> 6 : gids.includes(of.gid) ? mode >> 3 : mode
  if ((bits & wanted) !== 0) return true
  // Of a capability the kernel wants besides that owner and group have a number inside.
  const isInside = isMapped(uidMap, of.uid) && isMapped(gidMap, of.gid)
  return isInside && capabilities.some(name => name === 'dac_override' || name === 'dac_read_search')
}

function isMapped(map: readonly IdRange[], id: number): boolean {
  return map.some(({ outside, count }) => id >= outside && id - outside < count)
}

/** Undefined: it can open the root. Pure. */
export function closedBpffs(
  where: string,
  place: BpffsPlace,
  identity: Identity,
  capabilities: readonly string[],
): Finding | undefined {
  const closed = place.way.find(({ inode }) => !mayUse(inode, MAY_SEARCH, identity, capabilities))
  if (closed !== undefined)
    return {
      ...{ cause: 'closed-directory', errno: 'EACCES', needed: `to search ${closed.path}, for ${where}` },
      found: ownerText(closed.inode, identity),
    }
  if (opensRoot(place, identity, capabilities)) return undefined
  return {
    cause: 'closed-bpffs',
    errno: 'EACCES',
    needed: `to open ${where} for reading`,
    found: ownerText(place, identity),
  }
}

/** Pure. */
export function ownerText({ uid, gid, mode }: Inode, identity: Identity): string {
  const bits = (mode & 0o777).toString(8).padStart(4, '0')
  return `it belongs to user ${uid} and group ${gid} of the host with mode ${bits}, and the process is user ${identity.uid}`
}

/** Undefined: it is in the user namespace of the bpffs, or that is not known. Pure. */
export function foreignBpffs(where: string, place: BpffsPlace, userNamespace: string): Finding | undefined {
  if (place.userNamespace === undefined || place.userNamespace === userNamespace) return undefined
  return {
    cause: 'foreign-bpffs',
    errno: 'EPERM',
    needed: 'a bpffs of the user namespace in which the process is',
    found: `${where} is of ${place.userNamespace}, and the process is in ${userNamespace}`,
  }
}
