/** Confined cgroups: policy for services of the host's user namespace, which need no token. */
import { ConflictError, NotFoundError } from '../errors.ts'
import { cgroupPaths, findCgroup } from './cgroup.ts'
import { bootTimeNs } from './clock.ts'
import { type RawDelegation, waitForPrograms } from './delegations.ts'
import {
  GUARD_CONFINEMENTS,
  guard_config,
  guard_delegation,
  guard_revocation,
  guard_usage,
} from './layout.ts'
import { sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { encodeLabel, type GuardTerms, NO_LIMIT64 } from './terms.ts'

const KEY_BYTES = 8

function idBytes(id: bigint): Uint8Array {
  const bytes = new Uint8Array(KEY_BYTES)
  new DataView(bytes.buffer).setBigUint64(0, id, true)
  return bytes
}

function idOf(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
}

interface Confined {
  readonly cgroup: bigint
  readonly id: bigint
}

function entries(maps: GuardMaps): Confined[] {
  return [...maps.map('confined').entries()].map(([key, value]) => ({ cgroup: idOf(key), id: idOf(value) }))
}

function record(maps: GuardMaps, id: bigint): RawDelegation {
  return guard_delegation.decode(maps.map('delegations').lookup(Number(id))!)
}

/**
 * Holds bpf(2) calls without a token of the tasks in this cgroup, and below it, to the policy: the
 * delegation's id. A cgroup that is confined already gets the new policy, and counting begins anew:
 * what was loaded under the old one counts no more. ConflictError: all 63 ids are in use.
 */
export function confine(
  maps: GuardMaps,
  directory: string,
  policy: GuardTerms & { readonly name: string },
): bigint {
  const cgroup = findCgroup(directory)
  sweep(maps)
  const id = freeId(maps)
  const before = entries(maps).find(entry => entry.cgroup === cgroup.id)
  const createdNs = bootTimeNs()
  const { lifetimeSec } = policy.limits
  maps.map('revocations').update(Number(id), guard_revocation.encode({}))
  maps.map('usages').update(Number(id), guard_usage.encode({ superblocks: 1 }))
  writeTerms(maps, policy, terms =>
    maps.map('delegations').update(
      Number(id),
      guard_delegation.encode({
        id,
        terms,
        created_ns: createdNs,
        expires_ns: lifetimeSec === undefined ? NO_LIMIT64 : createdNs + terms.lifetime_ns!,
        cgroup: cgroup.id,
        cgroup_level: cgroup.level,
        delegator: process.pid,
        policy: encodeLabel(policy.name),
      }),
    ),
  )
  maps.map('confined').update(idBytes(cgroup.id), idBytes(id))
  writeLevels(maps)
  if (before !== undefined) endRecord(maps, before.id)
  return id
}

/** What was loaded goes on. NotFoundError: no cgroup is confined by this id. */
export function unconfine(maps: GuardMaps, id: bigint): void {
  const entry = entries(maps).find(one => one.id === id)
  if (entry === undefined)
    throw new NotFoundError(`No cgroup is confined by delegation ${id}`, {
      context: { delegation: String(id) },
      reason: 'not-confined',
    })
  end(maps, [entry])
}

/** The id by which the cgroup is confined. NotFoundError: it is not, or it is not there. */
export function idOfCgroup(maps: GuardMaps, directory: string): bigint {
  const cgroup = findCgroup(directory)
  const entry = entries(maps).find(one => one.cgroup === cgroup.id)
  if (entry !== undefined) return entry.id
  throw new NotFoundError(`The cgroup ${directory} is not confined`, {
    context: { cgroup: directory },
    reason: 'not-confined',
  })
}

/** Cgroups that are gone: their ids do not come again. */
function sweep(maps: GuardMaps): void {
  const all = entries(maps)
  const there = cgroupPaths(new Set(all.map(({ cgroup }) => cgroup)))
  const gone = all.filter(({ cgroup }) => !there.has(cgroup))
  if (gone.length > 0) end(maps, gone)
}

function end(maps: GuardMaps, ended: readonly Confined[]): void {
  for (const { cgroup } of ended) maps.map('confined').delete(idBytes(cgroup))
  writeLevels(maps)
  for (const { id } of ended) endRecord(maps, id)
  sweepLists(maps)
}

/**
 * Nothing refers to it any more but programs that run now. What it counted goes on counting down.
 */
function endRecord(maps: GuardMaps, id: bigint): void {
  waitForPrograms()
  maps.map('delegations').update(Number(id), guard_delegation.encode({}))
}

/** At which levels programs look for a confined cgroup. */
function writeLevels(maps: GuardMaps): void {
  const levels = entries(maps).reduce((bits, { id }) => bits | (1 << record(maps, id).cgroup_level!), 0)
  const config = maps.map('config')
  const now = guard_config.decode(config.lookup(0)!) as Parameters<typeof guard_config.encode>[0]
  config.update(0, guard_config.encode({ ...now, confined_levels: levels >>> 0 }))
}

function freeId(maps: GuardMaps): bigint {
  const taken = new Set(entries(maps).map(({ id }) => id))
  for (let id = 1n; id < GUARD_CONFINEMENTS; id++) if (!taken.has(id) && !hasObjects(maps, id)) return id
  throw new ConflictError(
    `${GUARD_CONFINEMENTS - 1} cgroups are confined, or have objects of when they were`,
    { hint: 'End one first', reason: 'confinements-full' },
  )
}

function hasObjects(maps: GuardMaps, id: bigint): boolean {
  const { programs, maps: count, children } = guard_usage.decode(maps.map('usages').lookup(Number(id))!)
  return programs! + count! + children! > 0
}
