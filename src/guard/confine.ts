/** Confined cgroups: policy for services of the host's user namespace, which need no token. */
import { ConflictError, NotFoundError } from '../errors.ts'
import { cgroupPaths, findCgroup } from './cgroup.ts'
import { bootTimeNs } from './clock.ts'
import { waitForPrograms } from './delegations.ts'
import { type CgroupId, type DelegationId, delegationId } from './id.ts'
import { GUARD_CONFINEMENTS } from './layout.ts'
import { sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { forgetRenewal } from './renewals.ts'
import { encodeLabel, type GuardTerms, NO_LIMIT64 } from './terms.ts'

/**
 * Holds the tasks in this cgroup and below to the policy, for bpf(2) calls without a token. Gives
 * the delegation's id. A cgroup that is confined already gets the new policy, and counting begins
 * anew: objects that were loaded under the old one do not count any more. ConflictError: all 63 ids
 * are in use.
 */
export function confine(
  maps: GuardMaps,
  directory: string,
  policy: GuardTerms & { readonly name: string },
): DelegationId {
  const { confined, delegations, revocations, usages } = maps.tables
  const cgroup = findCgroup(directory)
  sweep(maps)
  const id = freeId(maps)
  const before = confined.get(cgroup.id)
  const createdNs = bootTimeNs()
  const { lifetimeSec } = policy.limits
  revocations.clear(id)
  forgetRenewal(maps, id)
  usages.set(id, { superblocks: 1 })
  writeTerms(maps, policy, terms =>
    delegations.set(id, {
      terms,
      created_ns: createdNs,
      expires_ns: lifetimeSec === undefined ? NO_LIMIT64 : createdNs + terms.lifetime_ns,
      cgroup: cgroup.id,
      cgroup_level: cgroup.level,
      delegator: process.pid,
      policy: encodeLabel(policy.name),
    }),
  )
  confined.set(cgroup.id, id)
  writeLevels(maps)
  if (before !== undefined) endRecord(maps, before)
  return id
}

/** Loaded programs go on. NotFoundError: no cgroup is confined by this id. */
export function unconfine(maps: GuardMaps, id: DelegationId): void {
  const entry = [...maps.tables.confined.entries()].find(([, one]) => one === id)
  if (entry === undefined)
    throw new NotFoundError(`No cgroup is confined by delegation ${id}`, {
      context: { delegation: String(id) },
      reason: 'not-confined',
    })
  end(maps, [entry])
}

/**
 * The id by which the cgroup is confined. NotFoundError: it is not confined, or there is no such
 * cgroup.
 */
export function idOfCgroup(maps: GuardMaps, directory: string): DelegationId {
  const id = maps.tables.confined.get(findCgroup(directory).id)
  if (id !== undefined) return id
  throw new NotFoundError(`The cgroup ${directory} is not confined`, {
    context: { cgroup: directory },
    reason: 'not-confined',
  })
}

/** Drops cgroups that are gone: the id of a cgroup is never used again. */
function sweep(maps: GuardMaps): void {
  const all = [...maps.tables.confined.entries()]
  const there = cgroupPaths(new Set(all.map(([cgroup]) => cgroup)))
  const gone = all.filter(([cgroup]) => !there.has(cgroup))
  if (gone.length > 0) end(maps, gone)
}

function end(maps: GuardMaps, ended: readonly [CgroupId, DelegationId][]): void {
  for (const [cgroup] of ended) maps.tables.confined.delete(cgroup)
  writeLevels(maps)
  for (const [, id] of ended) endRecord(maps, id)
  sweepLists(maps)
}

/** Only programs that run at this moment still refer to it. Its counts still go down. */
function endRecord(maps: GuardMaps, id: DelegationId): void {
  waitForPrograms()
  maps.tables.delegations.clear(id)
}

/** At which levels programs look for a confined cgroup. */
function writeLevels(maps: GuardMaps): void {
  const { config, confined, delegations } = maps.tables
  const records = [...confined.values()].map(id => delegations.get(id))
  const levels = records.reduce((bits, one) => (one === undefined ? bits : bits | (1 << one.cgroup_level)), 0)
  config.change({ confined_levels: levels >>> 0 })
}

function freeId(maps: GuardMaps): DelegationId {
  const taken = new Set(maps.tables.confined.values())
  for (let number = 1; number < GUARD_CONFINEMENTS; number++) {
    const id = delegationId(number)
    if (!taken.has(id) && !hasObjects(maps, id)) return id
  }
  throw new ConflictError(
    `${GUARD_CONFINEMENTS - 1} cgroups are confined, or have objects of when they were`,
    { hint: 'End one first', reason: 'confinements-full' },
  )
}

function hasObjects(maps: GuardMaps, id: DelegationId): boolean {
  const { programs, maps: count, children } = maps.tables.usages.get(id)
  return programs + count + children > 0
}
