/**
 * Undoing what was loaded under delegations that are revoked: detaching where the kernel can, and
 * ending those who hold the rest.
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
 * How long what was held may take to go after its last holder: the kernel frees it when it has
 * time.
 */
const KILL_TIMEOUT_MS = 5000
const POLL_MS = 50
/**
 * How long it may take to go when nobody holds it. After that somebody has hidden it: in a message
 * under way, for one.
 */
const UNHELD_MS = 2000
/** How often to look for links that calls under way have made meanwhile. */
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
  /** What they held when they were killed, if anything. */
  readonly killed: readonly Holder[]
  /** What is still in the kernel; links that are detached, too. */
  readonly left: LiveObjects
  /**
   * Who has that open. What nobody has is pinned, in a map, in a message under way, mapped into
   * memory, or attached without a link.
   */
  readonly holders: readonly Holder[]
}

/**
 * Detaches what is attached under these delegations, which must be revoked: tokens that work would
 * make more meanwhile. Whoever holds a program can attach it again; with `kill`, the processes in
 * the delegations' user namespaces (or confined cgroups) that hold any of it are killed, and waited
 * for: at most five seconds. While something is left that no process has open, all others of these
 * user namespaces are killed, too, and waited for as long again. Others who hold some of it,
 * because they were passed it, are left alone.
 *
 * Attachments without a link are not looked for, but struct_ops: the guard lets a revocable
 * delegation make none.
 */
export async function detach(
  inventory: LiveView,
  delegations: ReadonlySet<DelegationId>,
  options: { kill?: boolean } = {},
): Promise<DetachResult> {
  const links = detachLinks(inventory, delegations)
  const maps = unregisterMaps(inventory, delegations)
  const killed = options.kill === true ? await killHolders(inventory, delegations) : []
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

/** The errno's name; undefined: it worked, or what was to be undone has gone by itself. */
function failureOf(action: () => void): string | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return error.errnoName === 'ENOENT' ? undefined : error.errnoName
  }
}

async function killHolders(inventory: LiveView, delegations: ReadonlySet<DelegationId>): Promise<Holder[]> {
  const killed = new Map<number, Holder>()
  let unheldMs = 0
  let allEnded = false
  for (let waitedMs = 0; waitedMs < KILL_TIMEOUT_MS; waitedMs += POLL_MS) {
    // Again and again: they may have children by now, or have passed it on.
    const now = killPresent(() => inventory.holders(delegations).filter(({ within }) => within))
    for (const holder of now) killed.set(holder.pid, holder)
    const left = inventory.objects(delegations)
    if (left.programs.length + left.maps.length + left.links.length === 0) break
    unheldMs = now.length === 0 && hasUnheld(left, inventory.holders(delegations)) ? unheldMs + POLL_MS : 0
    if (unheldMs > UNHELD_MS) {
      const others = killPresent(() => inventory.members(delegations))
      for (const other of others) if (!killed.has(other.pid)) killed.set(other.pid, other)
      // Once, or who goes on making processes would keep us for ever.
      if (others.length > 0 && !allEnded) waitedMs = 0
      allEnded = true
    }
    await sleep(POLL_MS)
  }
  return [...killed.values()]
}

/**
 * Whether something is left that those who are left do not account for. Which maps a program has,
 * it does not say.
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
 * Kills those who are there now. A confined cgroup may have us in it, or the machine's first
 * process.
 */
function killPresent(look: () => Holder[]): Holder[] {
  using owned = new Owned()
  const present = (): Holder[] => look().filter(({ pid }) => pid !== 1 && pid !== process.pid)
  const processes = present().flatMap(({ pid }) => openIfThere(pid))
  for (const one of processes) owned.add(one)
  // A number may have gone to another process before we held this one. If it is there still, it was
  // there when we looked again.
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
