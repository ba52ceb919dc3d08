/** How the commands tell people of what the guard knows: states in words. */
import type { Delegator } from '../guard/delegators.ts'
import { bootTimeNs, type GuardDelegation } from '../guard/guard.ts'
import { formatDuration } from '../policy/quantity.ts'

const NS_PER_SEC = 1_000_000_000n

export function stateOf({ revoked, expiresNs, terms }: GuardDelegation): string {
  if (revoked) return 'revoked'
  const also = terms.mode === 'permissive' ? ', permissive' : ''
  if (expiresNs === undefined) return `live${also}`
  const left = expiresNs - bootTimeNs()
  return left <= 0n ? 'expired' : `live for ${formatDuration(Number(left / NS_PER_SEC) || 1)}${also}`
}

/** Who it is for: a user namespace, or a confined cgroup. */
export function recipientOf({ kind, userNamespace, cgroup }: GuardDelegation): string {
  return kind === 'bpffs' ? `user:[${userNamespace}]` : cgroupText(cgroup!)
}

export function cgroupText({ id, path }: NonNullable<GuardDelegation['cgroup']>): string {
  return path ?? `cgroup ${id}, which is gone`
}

export function describeWho(who: Delegator): string {
  const [[kind, name]] = Object.entries(who) as [[string, string]]
  return `${kind} ${name}`
}
