/**
 * Who is delegated to: a process held by pidfd, and what the kernel says of it.
 *
 * Facts are read for that very process and read again after the last step (`assertUnchanged`): a
 * process can move to other namespaces in between, and then the loan would be for someone else.
 */
import { readdirSync, readlinkSync } from 'node:fs'
import { ConflictError } from '../errors.ts'
import type { Fd } from '../sys/fd.ts'
import { ownerUid, owningUserNamespace } from '../sys/namespace.ts'
import {
  type IdRange,
  namespaceOf,
  openNamespace,
  openProcess,
  openRoot,
  type ProcessHandle,
  parseIdMap,
  readProc,
  rootOf,
} from '../sys/process.ts'

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
  readonly root: Fd
  readonly facts: TargetFacts
}

function readFacts(process: ProcessHandle): TargetFacts {
  using userNamespace = openNamespace(process, 'user')
  const uids = parseIdMap(readProc(process, 'uid_map'))
  return {
    pid: process.pid,
    ownerUid: ownerUid(userNamespace),
    userNamespace: namespaceOf(process, 'user'),
    mountNamespace: namespaceOf(process, 'mnt'),
    rootUid: rootOf(uids),
    unmappedUid: unmappedIn(uids),
    rootGid: rootOf(parseIdMap(readProc(process, 'gid_map'))),
  }
}

/** Host root where it is not mapped, else the first id behind a range of the map that lies in no other. */
function unmappedIn(map: readonly IdRange[]): number | undefined {
  const isMapped = (id: number): boolean => map.some(r => id >= r.outside && id < r.outside + r.count)
  return [0, ...map.map(r => r.outside + r.count)].find(id => id < MAX_ID && !isMapped(id))
}

/** (uid_t)-1 is no id. */
const MAX_ID = 0xffff_ffff

/** Takes hold of process `pid`. NotFoundError: no such process. The caller disposes of it. */
export function openTarget(pid: number): Target {
  const process = openProcess(pid)
  try {
    const facts = readFacts(process)
    refuseForeignNamespaces(process, facts)
    const root = openRoot(process)
    return {
      process,
      root,
      facts,
      [Symbol.dispose]() {
        root.close()
        process[Symbol.dispose]()
      },
    }
  } catch (error) {
    process[Symbol.dispose]()
    throw error
  }
}

/** Where a token could never be made, or not by the target, say so before anything is touched. */
function refuseForeignNamespaces(process: ProcessHandle, facts: TargetFacts): void {
  const context = { pid: facts.pid, userNamespace: facts.userNamespace }
  if (facts.userNamespace === readlinkSync('/proc/self/ns/user'))
    throw new ConflictError(`Process ${facts.pid} is in the same user namespace as bpftoken`, {
      context,
      hint: 'A token works only inside a user namespace of its own: start the target in one, e.g. with bpftoken run',
    })
  using mountNamespace = openNamespace(process, 'mnt')
  using owner = owningUserNamespace(mountNamespace)
  const owning = readlinkSync(`/proc/self/fd/${owner.number}`)
  if (owning !== facts.userNamespace)
    throw new ConflictError(
      `The mount namespace of process ${facts.pid} belongs to ${owning}, not to its own ${facts.userNamespace}`,
      {
        context: { ...context, mountNamespaceOwner: owning },
        hint: 'Unshare the mount namespace together with or after the user namespace (systemd: DelegateNamespaces=mnt)',
      },
    )
}

/** Throws ConflictError when the process is no longer where it was, NotFoundError when it has exited. */
export function assertUnchanged(target: Target): void {
  const { pid, userNamespace, mountNamespace } = target.facts
  for (const [kind, was] of [
    ['user', userNamespace],
    ['mnt', mountNamespace],
  ] as const) {
    const is = namespaceOf(target.process, kind)
    if (is !== was)
      throw new ConflictError(`Process ${pid} moved from ${was} to ${is} meanwhile`, {
        context: { pid, was, is },
      })
  }
}

/** Whether the target sees our own network devices, as they are at this moment. */
export function sharesOurNetwork(target: Target): boolean {
  return namespaceOf(target.process, 'net') === readlinkSync('/proc/self/ns/net')
}

/** Any living process in the target's user and mount namespaces, or undefined. The caller disposes of it. */
export function openNeighbour(target: Target): ProcessHandle | undefined {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    let process: ProcessHandle | undefined
    try {
      process = openProcess(Number(name))
      const { userNamespace, mountNamespace } = target.facts
      if (namespaceOf(process, 'mnt') === mountNamespace && namespaceOf(process, 'user') === userNamespace)
        return process
    } catch {
      // Exited meanwhile, a thread, or not ours to see: not the one we look for.
    }
    process?.[Symbol.dispose]()
  }
  return undefined
}
