/** Live delegations by the guard's records, and how one is revoked. */
import { BpfMap } from '../ebpf/map.ts'
import { nameFrom } from '../ebpf/object-name.ts'
import { NotFoundError } from '../errors.ts'
import { cgroupPaths } from './cgroup.ts'
import { bootTimeNs } from './clock.ts'
import { type CgroupId, cgroupIn, type DelegationId, delegationIn } from './id.ts'
import { GUARD_CONFINEMENTS, type guard_delegation } from './layout.ts'
import { readLists } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { endOf } from './renewals.ts'
import type { Row } from './table.ts'
import { decodeTerms, type GuardTerms } from './terms.ts'

/** One live loan, or one confined cgroup, as the guard knows it. */
export interface GuardDelegation {
  readonly id: DelegationId
  readonly kind: 'bpffs' | 'cgroup'
  /**
   * The policy's name; of several policies the first one's. A program that knows nothing of
   * policies gives its own name. `''`: none.
   */
  readonly policy: string
  readonly terms: GuardTerms
  readonly createdNs: bigint
  /** As it was renewed last. Undefined: never. */
  readonly expiresNs: bigint | undefined
  readonly revoked: boolean
  /** Undefined: it is not revoked. */
  readonly revokedNs: bigint | undefined
  /** The delegation that it is derived from. */
  readonly parent: DelegationId | undefined
  /**
   * The confined cgroup, or the only one in which (and below which) tokens can be made. `path` is
   * undefined when it is gone.
   */
  readonly cgroup: { readonly id: CgroupId; readonly path: string | undefined } | undefined
  /** Inode number of the user namespace; undefined: of a confined cgroup. */
  readonly userNamespace: number | undefined
  readonly delegatorPid: number
  /** What is in use, including what was lent on by deriving. */
  readonly live: { tokens: number; programs: number; maps: number; mapBytes: bigint; children: number }
}

export type RawDelegation = Row<typeof guard_delegation.fields>

/** Of the name that `lend` gives a policy for the time of lending: the process. */
const LENDER = /@\d+$/

/** The live delegations, by id. */
export function listDelegations(maps: GuardMaps): GuardDelegation[] {
  const raw = maps.tables.delegations.all()
  const paths = cgroupPaths(cgroupsOf(raw))
  return raw.map(one => describe(maps, one, paths)).sort((a, b) => (a.id < b.id ? -1 : 1))
}

/** NotFoundError: there is none with this id, or it has ended. */
export function findDelegation(maps: GuardMaps, id: DelegationId): GuardDelegation {
  const raw = rawDelegation(maps, id)
  return describe(maps, raw, cgroupPaths(cgroupsOf([raw])))
}

function cgroupsOf(raw: readonly RawDelegation[]): Set<CgroupId> {
  return new Set(raw.flatMap(({ cgroup }) => cgroupIn(cgroup) ?? []))
}

/** As `findDelegation`. */
export function rawDelegation(maps: GuardMaps, id: DelegationId): RawDelegation {
  const raw = maps.tables.delegations.get(id)
  if (raw !== undefined) return raw
  throw new NotFoundError(`There is no delegation ${id}`, {
    context: { delegation: String(id) },
    reason: 'delegation-unknown',
  })
}

function describe(
  maps: GuardMaps,
  raw: RawDelegation,
  paths: ReadonlyMap<CgroupId, string>,
): GuardDelegation {
  const id = delegationIn(raw.id)!
  const cgroup = cgroupIn(raw.cgroup)
  const usage = maps.tables.usages.get(id)
  const revocation = maps.tables.revocations.get(id)
  return {
    id,
    kind: id < GUARD_CONFINEMENTS ? 'cgroup' : 'bpffs',
    policy: nameFrom(raw.policy).replace(LENDER, ''),
    terms: decodeTerms(raw.terms, readLists(maps, raw.terms)),
    createdNs: raw.created_ns,
    expiresNs: endOf(maps, raw),
    revoked: revocation !== undefined,
    revokedNs: revocation?.revoked_ns,
    parent: delegationIn(raw.parent),
    cgroup: cgroup && { id: cgroup, path: paths.get(cgroup) },
    userNamespace: raw.user_namespace === 0 ? undefined : raw.user_namespace,
    delegatorPid: raw.delegator,
    live: {
      tokens: usage.tokens,
      programs: usage.programs,
      maps: usage.maps,
      mapBytes: usage.map_bytes,
      children: usage.children,
    },
  }
}

/**
 * Revokes a delegation and all that are derived from it. Gives the ids of all, this one first.
 * Objects that were loaded before stay. When this returns, no hook that saw the old state is still
 * running. NotFoundError: no such delegation.
 */
export function revokeDelegation(maps: GuardMaps, id: DelegationId): DelegationId[] {
  const { delegations, revocations } = maps.tables
  rawDelegation(maps, id)
  const revoked = [id]
  for (let next = revoked; next.length > 0; ) {
    for (const one of next) revocations.set(one, { revoked_ns: bootTimeNs() })
    // A delegation that was being derived meanwhile is in the array after that.
    waitForPrograms()
    const parents = new Set<bigint>(next)
    next = delegations
      .all()
      .filter(({ parent }) => parents.has(parent))
      .flatMap(child => delegationIn(child.id) ?? [])
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
