/** How the commands tell of what the guard knows: times by our calendar, states in words. */
import type { Delegator } from '../guard/delegators.ts'
import { bootTimeNs, type GuardDelegation } from '../guard/guard.ts'
import { formatDuration } from '../policy/quantity.ts'

const NS_PER_MS = 1_000_000n
const NS_PER_SEC = 1_000_000_000n

/** What the guard's clock meant, by our calendar of now. */
export function wallTime(timeNs: bigint): string {
  return new Date(Date.now() - Number((bootTimeNs() - timeNs) / NS_PER_MS)).toISOString()
}

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

/** As `--json` has it: times by our calendar. */
export function delegationToJSON(one: GuardDelegation) {
  const { id, createdNs, expiresNs, revokedNs, parent, cgroup, live, ...rest } = one
  return {
    id: Number(id),
    ...rest,
    createdAt: wallTime(createdNs),
    ...(expiresNs === undefined ? {} : { expiresAt: wallTime(expiresNs) }),
    ...(revokedNs === undefined ? {} : { revokedAt: wallTime(revokedNs) }),
    ...(parent === undefined ? {} : { parent: Number(parent) }),
    cgroup,
    live,
  }
}

export function describeWho(who: Delegator): string {
  const [[kind, name]] = Object.entries(who) as [[string, string]]
  return `${kind} ${name}`
}
