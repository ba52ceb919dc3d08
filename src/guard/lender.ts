/** This process, and an executor of its own, as a delegator of one policy. */

import { NotFoundError } from '../errors.ts'
import { type Executor, returnExecutor, takeExecutor } from '../sys/executor.ts'
import { findCgroup } from './cgroup.ts'
import { startTicks } from './clock.ts'
import { rawDelegation, revokeDelegation } from './delegations.ts'
import { GUARD_NAME_BYTES, guard_delegator, guard_process, guard_terms } from './layout.ts'
import { sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { sweepNamespaces } from './namespaces.ts'
import { encodeName, type GuardTerms, NO_CEILING } from './terms.ts'

/** Closing it takes back the right to delegate, not what was lent. */
export interface Lender extends Disposable {
  /** For the mount option `abilities`. */
  readonly ability: string
  /** The one that may delegate; all delegations of this lender are executed by it. */
  readonly executor: Executor
  /** The delegation that was made last; undefined: none yet. */
  delegation(): bigint | undefined
  /**
   * Revokes the delegation that was made last, if one was and it has not ended: the ids of all that
   * fell with it.
   */
  revoke(): bigint[]
}

export interface LendOptions {
  /**
   * What is lent is derived from this delegation: it takes from what that has left, and is revoked
   * with it.
   */
  readonly parent?: bigint
  /** Tokens are made in this cgroup, a directory below /sys/fs/cgroup, and below it only. */
  readonly cgroup?: string
}

/**
 * NotFoundError: there is no such parent, cgroup, or function. NotSupportedError: this kernel has
 * no such digests.
 */
export function lend(
  maps: GuardMaps,
  policy: GuardTerms & { readonly name: string },
  { parent, cgroup }: LendOptions,
): Lender {
  forgetDead(maps)
  sweepNamespaces(maps)
  if (parent !== undefined) rawDelegation(maps, parent)
  const place = cgroup === undefined ? undefined : findCgroup(cgroup)
  const processes = maps.map('processes')
  const policies = maps.map('policies')
  const executor = takeExecutor()
  const keys = [process.pid, executor.pid].map(tgid =>
    guard_process.encode({ tgid, start_ticks: startTicks(tgid)! }),
  )
  // The policy as we read it, not whatever is installed under its name.
  const suffix = `@${process.pid}`
  const ability = `${cut(policy.name, GUARD_NAME_BYTES - 2 - suffix.length)}${suffix}`
  const name = encodeName(ability)
  writeTerms(maps, policy, terms => policies.update(name, guard_terms.encode(terms)))
  const delegator = guard_delegator.encode({
    ceiling: NO_CEILING,
    parent: parent ?? 0n,
    cgroup: place?.id ?? 0n,
    cgroup_level: place?.level ?? 0,
    name,
  })
  for (const key of keys) processes.update(key, delegator)
  const delegation = (): bigint | undefined => {
    const ids = keys.map(key => {
      const value = processes.lookup(key)
      return (value && guard_delegator.decode(value).last_id) ?? 0n
    })
    return ids.sort((a, b) => (a < b ? -1 : 1)).at(-1) || undefined
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
      policies.delete(name)
      sweepLists(maps)
      returnExecutor(executor)
    },
  }
}

function revokeIfThere(maps: GuardMaps, id: bigint): bigint[] {
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
  const processes = maps.map('processes')
  const policies = maps.map('policies')
  for (const key of processes.keys()) {
    const { tgid, start_ticks } = guard_process.decode(key)
    if (startTicks(tgid!) === start_ticks) continue
    const { name } = guard_delegator.decode(processes.lookup(key) ?? new Uint8Array())
    processes.delete(key)
    if (name !== undefined) policies.delete(name)
  }
}
