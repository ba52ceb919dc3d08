/** What is lent, as the guard's records have it, and how it is taken back. */
import { BpfMap } from '../ebpf/map.ts'
import { nameFrom } from '../ebpf/object-name.ts'
import { NotFoundError } from '../errors.ts'
import { cgroupPaths } from './cgroup.ts'
import { bootTimeNs } from './clock.ts'
import { GUARD_CONFINEMENTS, GUARD_SLOTS, guard_delegation, guard_revocation, guard_usage } from './layout.ts'
import { readLists } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { decodeTerms, type GuardTerms, NO_LIMIT64 } from './terms.ts'

/** One live loan, or one confined cgroup, as the guard knows it. */
export interface GuardDelegation {
  readonly id: bigint
  readonly kind: 'bpffs' | 'cgroup'
  /**
   * The policy's name, or of several the first one's; of a program that knows nothing of policies,
   * its own; `''`: none.
   */
  readonly policy: string
  readonly terms: GuardTerms
  readonly createdNs: bigint
  /** Undefined: never. */
  readonly expiresNs: bigint | undefined
  readonly revoked: boolean
  /** Undefined: it is not revoked. */
  readonly revokedNs: bigint | undefined
  /** The delegation that it is derived from. */
  readonly parent: bigint | undefined
  /**
   * The confined one, or the only one, with those below, where tokens can be made. `path` is
   * undefined when it is gone.
   */
  readonly cgroup: { readonly id: bigint; readonly path: string | undefined } | undefined
  /** Inode number of the user namespace; undefined: of a confined cgroup. */
  readonly userNamespace: number | undefined
  readonly delegatorPid: number
  /** What is in use, with what was lent on. */
  readonly live: { tokens: number; programs: number; maps: number; mapBytes: bigint; children: number }
}

export type RawDelegation = ReturnType<typeof guard_delegation.decode>

export const slotOf = (id: bigint): number => Number(id % BigInt(GUARD_SLOTS))

/** Of the name that `lend` gives a policy for the time of lending: the process. */
const LENDER = /@\d+$/

export function rawDelegations(maps: GuardMaps): RawDelegation[] {
  return maps
    .map('delegations')
    .readAll()
    .filter(([, value]) => value.subarray(0, 8).some(byte => byte !== 0))
    .map(([, value]) => guard_delegation.decode(value))
}

/** Those that live, by id. */
export function listDelegations(maps: GuardMaps): GuardDelegation[] {
  const raw = rawDelegations(maps)
  const paths = cgroupPaths(new Set(raw.map(({ cgroup }) => cgroup!).filter(id => id !== 0n)))
  return raw.map(one => describe(maps, one, paths)).sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** NotFoundError: there is none with this id, or it has ended. */
export function findDelegation(maps: GuardMaps, id: bigint): GuardDelegation {
  const raw = rawDelegation(maps, id)
  return describe(maps, raw, cgroupPaths(new Set(raw.cgroup === 0n ? [] : [raw.cgroup!])))
}

export function rawDelegation(maps: GuardMaps, id: bigint): RawDelegation {
  const raw = id > 0n ? guard_delegation.decode(maps.map('delegations').lookup(slotOf(id))!) : undefined
  if (raw?.id === id) return raw
  throw new NotFoundError(`There is no delegation ${id}`, {
    context: { delegation: String(id) },
    reason: 'delegation-unknown',
  })
}

function describe(maps: GuardMaps, raw: RawDelegation, paths: ReadonlyMap<bigint, string>): GuardDelegation {
  const id = raw.id!
  const usage = guard_usage.decode(maps.map('usages').lookup(slotOf(id))!)
  const revocation = guard_revocation.decode(maps.map('revocations').lookup(slotOf(id))!)
  const isRevoked = revocation.id === id
  return {
    id,
    kind: id < GUARD_CONFINEMENTS ? 'cgroup' : 'bpffs',
    policy: nameFrom(raw.policy).replace(LENDER, ''),
    terms: decodeTerms(raw.terms!, readLists(maps, raw.terms!)),
    createdNs: raw.created_ns!,
    expiresNs: raw.expires_ns === NO_LIMIT64 ? undefined : raw.expires_ns!,
    revoked: isRevoked,
    revokedNs: isRevoked ? revocation.revoked_ns : undefined,
    parent: raw.parent === 0n ? undefined : raw.parent!,
    cgroup: raw.cgroup === 0n ? undefined : { id: raw.cgroup!, path: paths.get(raw.cgroup!) },
    userNamespace: raw.user_namespace === 0 ? undefined : raw.user_namespace!,
    delegatorPid: raw.delegator!,
    live: {
      tokens: usage.tokens!,
      programs: usage.programs!,
      maps: usage.maps!,
      mapBytes: usage.map_bytes!,
      children: usage.children!,
    },
  }
}

/**
 * Takes a delegation back, and what is derived from it: the ids of all, this one first. What was
 * loaded before stays. When this returns, no hook that had seen the old state is still running.
 * NotFoundError: no such delegation.
 */
export function revokeDelegation(maps: GuardMaps, id: bigint): bigint[] {
  rawDelegation(maps, id)
  const revoked = [id]
  for (let next = revoked; next.length > 0; ) {
    for (const one of next) {
      const value = guard_revocation.encode({ id: one, revoked_ns: bootTimeNs() })
      maps.map('revocations').update(slotOf(one), value)
    }
    // Whoever was being derived meanwhile is in the array after that.
    waitForPrograms()
    const parents = new Set(next)
    next = rawDelegations(maps)
      .filter(({ parent }) => parents.has(parent!))
      .map(child => child.id!)
    revoked.push(...next)
  }
  return revoked
}

/**
 * Waits until every BPF program that runs now has ended. The kernel does that itself whenever a map
 * within a map is replaced (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
 */
export function waitForPrograms(): void {
  const plain = { type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 1, token: null } as const
  using inner = BpfMap.create(plain)
  using outer = BpfMap.create({ ...plain, type: 'array_of_maps', innerMap: inner })
  outer.updateFd(0, inner)
  outer.updateFd(0, inner)
}
