/**
 * Undoes what was loaded under revoked delegations: it detaches what the kernel can detach, and
 * kills the processes that hold the rest.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Link } from '../ebpf/link.ts'
import { BpfMap } from '../ebpf/map.ts'
import { Owned } from '../ebpf/owned.ts'
import { NotFoundError, SyscallError } from '../errors.ts'
import { kill, openProcess, type ProcessHandle } from '../sys/process.ts'
import type { DelegationId } from './id.ts'
import type { Holder, Inventory, LiveLink, LiveMap, LiveObjects } from './inventory.ts'

/**
 * How long an object may take to go after its last holder has ended: the kernel frees it when it
 * has time.
 */
const KILL_TIMEOUT_MS = 5000
const POLL_MS = 50
/**
 * How long an object may take to go if nobody holds it. If it takes longer, somebody has hidden it,
 * for example in a message under way.
 */
const UNHELD_MS = 2000
/** How often to look again for links, which calls under way may have made meanwhile. */
const MAX_ROUNDS = 8

/** What is asked of an inventory. */
export type LiveView = Pick<Inventory, 'links' | 'maps' | 'objects' | 'holders' | 'members'>

/** A link, or a struct_ops map, which can be registered without one. */
export type Attachment = ({ readonly kind: 'link' } & LiveLink) | ({ readonly kind: 'map' } & LiveMap)

/**
 * An attachment that goes on, and the errno that detaching it gave. EOPNOTSUPP: links of its type
 * cannot be detached. EAGAIN: it was made after we looked, by a process that goes on attaching.
 */
export type Staying = Attachment & { readonly errnoName: string }

export interface DetachResult {
  readonly detached: readonly Attachment[]
  readonly stays: readonly Staying[]
  /** The killed processes, with what each held, if anything. */
  readonly killed: readonly Holder[]
  /** What is still in the kernel; links that are detached, too. */
  readonly left: LiveObjects
  /**
   * The processes that have it open. If there are none, the object is pinned, in a map, in a
   * message under way, mapped into memory, or attached without a link.
   */
  readonly holders: readonly Holder[]
}

/**
 * Detaches what is attached under these delegations. They must be revoked, because a token that
 * works could make more meanwhile. Whoever holds a program can attach it again. So with `kill` the
 * holders in the delegations' user namespaces (or confined cgroups) are killed, and waited for at
 * most `killTimeoutMs`, or five seconds. If something is left then that no process has open, all other processes of
 * these user namespaces are killed, too, and waited for as long again. Processes elsewhere that
 * were passed an object are left alone.
 *
 * Of attachments without a link only struct_ops is looked for: the guard lets a revocable
 * delegation make no others with bpf(2).
 */
export async function detach(
  inventory: LiveView,
  delegations: ReadonlySet<DelegationId>,
  options: { kill?: boolean; killTimeoutMs?: number } = {},
): Promise<DetachResult> {
  const links = detachLinks(inventory, delegations)
  const maps = unregisterMaps(inventory, delegations)
  const { kill = false, killTimeoutMs = KILL_TIMEOUT_MS } = options
  const killed = kill ? await killHolders(inventory, delegations, killTimeoutMs) : []
  const left = inventory.objects(delegations)
  for (const link of left.links)
    if (!links.has(link.id))
      links.set(link.id, { attachment: { kind: 'link', ...link }, errnoName: 'EAGAIN' })
  const outcomes = [...links.values(), ...maps]
  const isLeft = ({ kind, id }: Attachment): boolean =>
    (kind === 'link' ? left.links : left.maps).some(one => one.id === id)
  return {
    detached: outcomes.flatMap(({ attachment, errnoName }) => (errnoName === undefined ? [attachment] : [])),
    stays: outcomes.flatMap(({ attachment, errnoName }) =>
      errnoName !== undefined && isLeft(attachment) ? [{ ...attachment, errnoName }] : [],
    ),
    killed,
    left,
    holders: inventory.holders(delegations),
  }
}

interface Outcome {
  readonly attachment: Attachment
  /** Undefined: it is detached. */
  readonly errnoName: string | undefined
}

/** By id of the link. */
function detachLinks(inventory: LiveView, delegations: ReadonlySet<DelegationId>): Map<number, Outcome> {
  const outcomes = new Map<number, Outcome>()
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const found = inventory.links(delegations).filter(({ id }) => !outcomes.has(id))
    if (found.length === 0) break
    for (const link of found)
      outcomes.set(link.id, {
        attachment: { kind: 'link', ...link },
        errnoName: failureOf(() => detachLink(link.id)),
      })
  }
  return outcomes
}

function unregisterMaps(inventory: LiveView, delegations: ReadonlySet<DelegationId>): Outcome[] {
  const outcomes: Outcome[] = []
  for (const map of inventory.maps(delegations)) {
    if (map.type !== 'struct_ops') continue
    let wasRegistered = false
    const errnoName = failureOf(() => {
      wasRegistered = unregister(map.id)
    })
    // EOPNOTSUPP: it is for a link.
    if (wasRegistered || (errnoName !== undefined && errnoName !== 'EOPNOTSUPP'))
      outcomes.push({ attachment: { kind: 'map', ...map }, errnoName })
  }
  return outcomes
}

function detachLink(id: number): void {
  using link = Link.fromId(id)
  link.detach()
}

function unregister(id: number): boolean {
  using map = BpfMap.fromId(id)
  return map.delete(0)
}

/** The errno's name. Undefined: it worked, or the attachment has gone by itself. */
function failureOf(action: () => void): string | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return error.errnoName === 'ENOENT' ? undefined : error.errnoName
  }
}

async function killHolders(
  inventory: LiveView,
  delegations: ReadonlySet<DelegationId>,
  timeoutMs: number,
): Promise<Holder[]> {
  const killed = new Map<number, Holder>()
  let deadlineMs = performance.now() + timeoutMs
  let unheldSinceMs: number | undefined
  let allEnded = false
  // One look may take longer than the pause after it.
  while (performance.now() < deadlineMs) {
    // Again and again: the holders may have children by now, or may have passed objects on.
    const now = killPresent(() => inventory.holders(delegations).filter(({ within }) => within))
    for (const holder of now) killed.set(holder.pid, holder)
    const left = inventory.objects(delegations)
    if (left.programs.length + left.maps.length + left.links.length === 0) break
    if (now.length > 0 || !hasUnheld(left, inventory.holders(delegations))) unheldSinceMs = undefined
    else unheldSinceMs ??= performance.now()
    if (unheldSinceMs !== undefined && performance.now() - unheldSinceMs > UNHELD_MS) {
      const others = killPresent(() => inventory.members(delegations))
      for (const other of others) if (!killed.has(other.pid)) killed.set(other.pid, other)
      // Only once: a workload that goes on making processes would keep us for ever.
      if (others.length > 0 && !allEnded) deadlineMs = performance.now() + timeoutMs
      allEnded = true
    }
    await sleep(POLL_MS)
  }
  return [...killed.values()]
}

/**
 * Whether an object is left that no remaining holder accounts for. A program does not say which
 * maps it has.
 */
function hasUnheld({ programs, links }: LiveObjects, holders: readonly Holder[]): boolean {
  if (holders.length === 0) return true
  const held = new Set(holders.flatMap(holder => holder.links))
  const isHeld = (link: LiveLink): boolean => held.has(link.id)
  const inUse = new Set([
    ...holders.flatMap(holder => holder.programs),
    ...links.filter(isHeld).map(({ programId }) => programId),
  ])
  return !links.every(isHeld) || programs.some(({ id }) => !inUse.has(id))
}

/**
 * Kills the processes that are there now. A confined cgroup may contain us, or the machine's first
 * process.
 */
function killPresent(look: () => Holder[]): Holder[] {
  using owned = new Owned()
  const present = (): Holder[] => look().filter(({ pid }) => pid !== 1 && pid !== process.pid)
  const processes = present().flatMap(({ pid }) => openIfThere(pid))
  for (const one of processes) owned.add(one)
  // The number may have gone to another process before we held this one. A process that is still in
  // the list when we look again is the right one.
  const again = new Map(present().map(holder => [holder.pid, holder]))
  return processes.flatMap(one => {
    const holder = again.get(one.pid)
    return holder !== undefined && kill(one) ? [holder] : []
  })
}

function openIfThere(pid: number): ProcessHandle[] {
  try {
    return [openProcess(pid)]
  } catch (error) {
    if (error instanceof NotFoundError) return []
    throw error
  }
}
