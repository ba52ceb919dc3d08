/**
 * All that is lent on this machine, as a tree: who has a delegation, and what was made with it.
 * Mounts are found in any case. Only the guard knows the numbers of delegations and what was loaded
 * under them.
 */
import { readFileSync } from 'node:fs'
import { type DelegatedInstance, listInstances } from '../delegation/instances.ts'
import type { Guard, GuardDelegation } from '../guard/guard.ts'
import {
  Inventory,
  type LiveLink,
  type LiveMap,
  type LiveObjects,
  type LiveProgram,
} from '../guard/inventory.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { cgroup2Path } from '../sys/proc-file.ts'
import { unlessGone } from '../sys/tasks.ts'
import { type Place, placeOfCgroup } from './place.ts'

export interface LentDelegation {
  readonly delegation: GuardDelegation
  readonly derived: readonly LentDelegation[]
  readonly programs: readonly (LiveProgram & { readonly links: readonly LiveLink[] })[]
  readonly maps: readonly LiveMap[]
  /** Of no program that is of this delegation. */
  readonly links: readonly LiveLink[]
}

/** A user namespace that has something, or a confined cgroup. */
export interface Lent {
  readonly place: Place
  /** Undefined: of a confined cgroup. */
  readonly userNamespace: string | undefined
  readonly mounts: readonly DelegatedInstance[]
  /** A delegation that is derived from a living one is listed below that one. */
  readonly delegations: readonly LentDelegation[]
}

/** By user namespace. Without a guard there are mounts only. */
export async function listLent(vocabulary: Vocabulary, guard: Guard | undefined): Promise<Lent[]> {
  const mounts = listInstances(vocabulary)
  const roots = guard === undefined ? [] : await delegationTrees(guard)
  const namespaces = new Set([
    ...mounts.map(({ userNamespace }) => userNamespace),
    ...roots.flatMap(({ delegation }) => namespaceOf(delegation) ?? []),
  ])
  const confined = roots.filter(({ delegation }) => delegation.kind === 'cgroup')
  return [
    ...[...namespaces].map(userNamespace => {
      const here = mounts.filter(one => one.userNamespace === userNamespace)
      const delegations = roots.filter(({ delegation }) => namespaceOf(delegation) === userNamespace)
      return { place: placeOf(here), userNamespace, mounts: here, delegations }
    }),
    ...confined.map(one => ({
      place: placeOfConfined(one.delegation),
      userNamespace: undefined,
      mounts: [],
      delegations: [one],
    })),
  ]
}

function namespaceOf({ kind, userNamespace }: GuardDelegation): string | undefined {
  return kind === 'bpffs' ? `user:[${userNamespace}]` : undefined
}

/** The cgroup of the first process that is still there. */
function placeOf(mounts: readonly DelegatedInstance[]): Place {
  for (const pid of mounts.flatMap(({ pids }) => pids)) {
    const path = unlessGone(() => cgroup2Path(readFileSync(`/proc/${pid}/cgroup`, 'utf8')))
    if (path !== undefined) return placeOfCgroup(path)
  }
  const why = mounts.length === 0 ? 'no process has it mounted' : 'its processes have no cgroup v2'
  return { kind: 'unknown', why }
}

function placeOfConfined({ cgroup }: GuardDelegation): Place {
  if (cgroup?.path === undefined) return { kind: 'unknown', why: 'its cgroup is gone' }
  return placeOfCgroup(cgroup.path.replace(/^\/sys\/fs\/cgroup(?=\/|$)/, ''))
}

async function delegationTrees(guard: Guard): Promise<LentDelegation[]> {
  const all = guard.delegations()
  if (all.length === 0) return []
  const ids = new Set(all.map(({ id }) => id))
  using inventory = await Inventory.open(guard)
  const objects = inventory.objects(ids)
  const below = (delegation: GuardDelegation): LentDelegation => ({
    delegation,
    derived: all.filter(({ parent }) => parent === delegation.id).map(below),
    ...objectsOf(objects, delegation),
  })
  return all.filter(({ parent }) => parent === undefined || !ids.has(parent)).map(below)
}

function objectsOf(
  { programs, maps, links }: LiveObjects,
  { id }: GuardDelegation,
): Pick<LentDelegation, 'programs' | 'maps' | 'links'> {
  const own = programs.filter(({ delegation }) => delegation === id)
  const ownLinks = links.filter(({ delegation }) => delegation === id)
  return {
    programs: own.map(program => ({
      ...program,
      links: ownLinks.filter(({ programId }) => programId === program.id),
    })),
    maps: maps.filter(({ delegation }) => delegation === id),
    links: ownLinks.filter(({ programId }) => !own.some(program => program.id === programId)),
  }
}
