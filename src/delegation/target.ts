/**
 * Who is delegated to: a process held by pidfd, and what the kernel says of it.
 *
 * Its namespaces and its root are held by descriptor from the first look on, because the process
 * can move to others, and then the loan would be for someone else. Every step, undoing included,
 * uses the namespaces that were looked at.
 */
import { Owned } from '../ebpf/owned.ts'
import { ConflictError } from '../errors.ts'
import type { Fd } from '../sys/fd.ts'
import { LOOK_MS, namespaceInTime, openInTime } from '../sys/in-time.ts'
import {
  heldNamespace,
  heldNamespaceName,
  ownerUid,
  ownerUids,
  owningUserNamespace,
} from '../sys/namespace.ts'
import { inodeOf } from '../sys/open.ts'
import {
  type IdRange,
  openProcess,
  openRoot,
  type ProcessHandle,
  parseIdMap,
  readProc,
  rootOf,
} from '../sys/process.ts'
import { ownNamespace } from '../sys/self.ts'

export interface TargetFacts {
  readonly pid: number
  readonly userNamespace: string
  readonly mountNamespace: string
  /** Host id of user 0 inside; undefined where it is not mapped. */
  readonly rootUid: number | undefined
  readonly rootGid: number | undefined
  /** Some host id that nobody has inside; undefined where all are mapped. */
  readonly unmappedUid: number | undefined
  /** Host id of the creator of the user namespace, who has all power over it. */
  readonly ownerUid: number
}

export interface Target extends Disposable {
  readonly process: ProcessHandle
  /** Where it was when we looked, wherever it is now. */
  readonly userNamespace: Fd
  readonly mountNamespace: Fd
  readonly root: Fd
  readonly facts: TargetFacts
}

function readFacts(process: ProcessHandle, userNamespace: Fd, mountNamespace: Fd): TargetFacts {
  const uids = parseIdMap(readProc(process, 'uid_map'))
  return {
    pid: process.pid,
    ownerUid: ownerUid(userNamespace),
    userNamespace: `user:[${inodeOf(userNamespace)}]`,
    mountNamespace: `mnt:[${inodeOf(mountNamespace)}]`,
    rootUid: rootOf(uids),
    unmappedUid: unmappedIn(uids),
    rootGid: rootOf(parseIdMap(readProc(process, 'gid_map'))),
  }
}

/**
 * Host root where it is not mapped, else the first id behind a range of the map that lies in no
 * other.
 */
function unmappedIn(map: readonly IdRange[]): number | undefined {
  const isMapped = (id: number): boolean => map.some(r => id >= r.outside && id < r.outside + r.count)
  return [0, ...map.map(r => r.outside + r.count)].find(id => id < MAX_ID && !isMapped(id))
}

/** (uid_t)-1 is no id. */
const MAX_ID = 0xffff_ffff

/**
 * Takes hold of process `pid`, which we started ourselves: any other could have us wait for as long
 * as it likes. NotFoundError: no such process. The caller disposes of it.
 */
export function openTarget(pid: number): Target {
  using begun = new Owned()
  const process = begun.add(openProcess(pid))
  const userNamespace = begun.add(heldNamespace(process, 'user'))
  const mountNamespace = begun.add(heldNamespace(process, 'mnt'))
  return targetOf({ process, userNamespace, mountNamespace }, begun, () => begun.add(openRoot(process)))
}

/**
 * The same of any process. It is held already, and then is the target's, also where this fails. It
 * is not waited for longer than that: TimeoutError, ConflictError, see src/sys/in-time.ts.
 */
export async function openTargetInTime(process: ProcessHandle, timeoutMs = LOOK_MS): Promise<Target> {
  using begun = new Owned()
  begun.add(process)
  const root = begun.add(await openInTime(process, 'root', timeoutMs))
  const userNamespace = begun.add(await namespaceInTime(process, 'user', timeoutMs))
  const mountNamespace = begun.add(await namespaceInTime(process, 'mnt', timeoutMs))
  return targetOf({ process, userNamespace, mountNamespace }, begun, () => root)
}

type Place = Pick<Target, 'process' | 'userNamespace' | 'mountNamespace'>

/** What has begun to be held is the target's, unless this fails. */
function targetOf(place: Place, begun: Owned, openRoot: () => Fd): Target {
  const { process, userNamespace, mountNamespace } = place
  const facts = readFacts(process, userNamespace, mountNamespace)
  refuseForeignNamespaces(mountNamespace, facts)
  const root = openRoot()
  const held = new Owned()
  begun.moveTo(held)
  return {
    process,
    userNamespace,
    mountNamespace,
    root,
    facts,
    [Symbol.dispose]: () => held[Symbol.dispose](),
  }
}

let ownUserNamespace: string | undefined

/** Refuses, before anything is touched, a target that could never make a token. */
function refuseForeignNamespaces(mountNamespace: Fd, facts: TargetFacts): void {
  const context = { pid: facts.pid, userNamespace: facts.userNamespace }
  // Node has threads, so that it cannot change it.
  ownUserNamespace ??= ownNamespace('user')
  if (facts.userNamespace === ownUserNamespace)
    throw new ConflictError(`Process ${facts.pid} is in the same user namespace as bpftoken`, {
      context,
      hint: 'A token works only inside a user namespace of its own: start the target in one',
      reason: 'no-user-namespace',
    })
  using owner = owningUserNamespace(mountNamespace)
  const owning = `user:[${inodeOf(owner)}]`
  if (owning !== facts.userNamespace)
    throw new ConflictError(
      `The mount namespace of process ${facts.pid} belongs to ${owning}, not to its own ${facts.userNamespace}`,
      {
        context: { ...context, mountNamespaceOwner: owning },
        hint: 'Unshare the mount namespace together with or after the user namespace (systemd: DelegateNamespaces=mnt)',
      },
    )
}

/** Says that the target is in our own network. Undefined: it is not. */
export function sharesOurNetwork({ process, facts }: Target): string | undefined {
  return heldNamespaceName(process, 'net') === ownNamespace('net')
    ? `process ${facts.pid} shares the host's network`
    : undefined
}

/**
 * The user other than root who can enter the user namespace from our own network at any time,
 * having made it or one above it. Undefined: nobody.
 */
export function foreignOwner(target: Target): number | undefined {
  return ownerUids(target.userNamespace).find(uid => uid !== 0)
}
