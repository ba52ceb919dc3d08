/** This process as a delegator of one policy. */
import { findCgroup } from './cgroup.ts'
import { startTicks } from './clock.ts'
import { rawDelegation } from './delegations.ts'
import { GUARD_NAME_BYTES, guard_delegator, guard_process, guard_terms } from './layout.ts'
import { sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import { sweepNamespaces } from './namespaces.ts'
import { encodeName, type GuardTerms, NO_CEILING } from './terms.ts'

/** Closing it takes back the right to delegate, not what was lent. */
export interface Lender extends Disposable {
  /** For the mount option `abilities`. */
  readonly ability: string
  /** The delegation that was made last; undefined: none yet. */
  delegation(): bigint | undefined
}

export interface LendOptions {
  /** What is lent is derived from this delegation: it takes from what that has left, and is revoked with it. */
  readonly parent?: bigint
  /** Tokens are made in this cgroup, a directory below /sys/fs/cgroup, and below it only. */
  readonly cgroup?: string
}

/** NotFoundError: there is no such parent, cgroup, or function. NotSupportedError: this kernel has no such digests. */
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
  const key = guard_process.encode({ tgid: process.pid, start_ticks: startTicks(process.pid)! })
  // The policy as we read it, not whatever is installed under its name.
  const suffix = `@${process.pid}`
  const ability = `${cut(policy.name, GUARD_NAME_BYTES - 2 - suffix.length)}${suffix}`
  const name = encodeName(ability)
  writeTerms(maps, policy, terms => policies.update(name, guard_terms.encode(terms)))
  processes.update(
    key,
    guard_delegator.encode({
      ceiling: NO_CEILING,
      parent: parent ?? 0n,
      cgroup: place?.id ?? 0n,
      cgroup_level: place?.level ?? 0,
      name,
    }),
  )
  return {
    ability,
    delegation: () => {
      const value = processes.lookup(key)
      const last = value && guard_delegator.decode(value).last_id
      return last === 0n ? undefined : last
    },
    [Symbol.dispose]: () => {
      processes.delete(key)
      policies.delete(name)
      sweepLists(maps)
    },
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
