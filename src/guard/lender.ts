/** This process, and an executor of its own, as a delegator of one policy. */
import { readFileSync } from 'node:fs'
import { nameFrom } from '../ebpf/object-name.ts'
import { NotFoundError } from '../errors.ts'
import type { Executor } from '../sys/executor/executor.ts'
import { returnExecutor, takeExecutor } from '../sys/executor/pool.ts'
import { procFields, procNumbers } from '../sys/proc-file.ts'
import { unlessGone } from '../sys/tasks.ts'
import { findCgroup } from './cgroup.ts'
import { startTicks } from './clock.ts'
import { rawDelegation, revokeDelegation } from './delegations.ts'
import { type DelegationId, delegationIn } from './id.ts'
import { GUARD_NAME_BYTES } from './layout.ts'
import { sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { sweepNamespaces } from './namespaces.ts'
import { encodeName, type GuardTerms, NO_CEILING } from './terms.ts'

/** Closing it takes back the right to delegate, not what was lent. */
export interface Lender extends Disposable {
  /** For the mount option `abilities`. */
  readonly ability: string
  /** The executor that may delegate. It executes all delegations of this lender. */
  readonly executor: Executor
  /** The delegation that was made last; undefined: none yet. */
  delegation(): DelegationId | undefined
  /**
   * Revokes the delegation that was made last, if there is one and it has not ended. Gives the ids
   * of all that were revoked.
   */
  revoke(): DelegationId[]
}

export interface LendOptions {
  /**
   * Delegations are derived from this one: they take from what it has left, and are revoked with
   * it.
   */
  readonly parent?: DelegationId
  /** Tokens are made in this cgroup, a directory below /sys/fs/cgroup, and below it only. */
  readonly cgroup?: string
  /** The executor alone may delegate: then several lenders of one process do not disturb each other. */
  readonly executorOnly?: boolean
}

/**
 * NotFoundError: there is no such parent, cgroup, or function. NotSupportedError: this kernel has
 * no such digests.
 */
export function lend(
  maps: GuardMaps,
  policy: GuardTerms & { readonly name: string },
  { parent, cgroup, executorOnly = false }: LendOptions,
): Lender {
  forgetDead(maps)
  sweepNamespaces(maps)
  if (parent !== undefined) rawDelegation(maps, parent)
  const place = cgroup === undefined ? undefined : findCgroup(cgroup)
  const { processes, policies } = maps.tables
  const executor = takeExecutor()
  const lenders = executorOnly ? [executor.pid] : [process.pid, executor.pid]
  const keys = lenders.map(tgid => ({ tgid, start_ticks: startTicks(tgid)! }))
  // The policy as we read it, and not the one that is installed under its name.
  const suffix = `@${lenders[0]}`
  const ability = `${cut(policy.name, GUARD_NAME_BYTES - 2 - suffix.length)}${suffix}`
  writeTerms(maps, policy, terms => policies.set(ability, terms))
  const delegator = {
    ceiling: NO_CEILING,
    parent: parent ?? 0n,
    cgroup: place?.id ?? 0n,
    cgroup_level: place?.level ?? 0,
    name: encodeName(ability),
  }
  for (const key of keys) processes.set(key, delegator)
  const delegation = (): DelegationId | undefined => {
    const ids = keys.map(key => processes.get(key)?.last_id ?? 0n)
    return delegationIn(ids.sort((a, b) => (a < b ? -1 : 1)).at(-1)!)
  }
  return {
    ability,
    executor,
    delegation,
    revoke: () => {
      const last = delegation()
      return last === undefined ? [] : revokeIfThere(maps, last)
    },
    [Symbol.dispose]: () => {
      for (const key of keys) processes.delete(key)
      policies.delete(ability)
      sweepLists(maps)
      returnExecutor(executor)
    },
  }
}

function revokeIfThere(maps: GuardMaps, id: DelegationId): DelegationId[] {
  try {
    return revokeDelegation(maps, id)
  } catch (error) {
    if (error instanceof NotFoundError) return [] // It has ended.
    throw error
  }
}

/** At most so many bytes of UTF-8. */
function cut(text: string, bytes: number): string {
  let short = text
  while (Buffer.byteLength(short) > bytes) short = short.slice(0, -1)
  return short
}

/** Delegators that were killed could not take themselves off the list. */
function forgetDead(maps: GuardMaps): void {
  const { processes, policies } = maps.tables
  for (const [key, { name }] of processes.entries()) {
    if (isOthers(key.tgid) || startTicks(key.tgid) === key.start_ticks) continue
    processes.delete(key)
    const ability = nameFrom(name)
    if (ability !== '') policies.delete(ability)
  }
}

/**
 * Whether the number is that of a process of another user by now: it is no delegator, and is not
 * looked at, since it could have us wait. The entry does no harm until that one has ended.
 */
function isOthers(pid: number): boolean {
  const status = unlessGone(() => procFields(readFileSync(`/proc/${pid}/status`, 'utf8')))
  const ids = procNumbers(status?.get('Uid') ?? '') ?? []
  return ids.some(id => id !== process.geteuid!())
}
