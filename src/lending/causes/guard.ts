/**
 * What the guard has to say to a call, by its records of the delegation that a bpffs is of. What it
 * has said to one is explain-event.ts, of which the causes have their names: `guard-` and the reason.
 */
import type { Need } from '../../ebpf/rights.ts'
import type { DelegationId, Guard, GuardDelegation } from '../../guard/guard.ts'
import { DEFAULT_LIMITS, LIMIT_PATHS } from '../../policy/policy.ts'
import type { Fd } from '../../sys/fd.ts'
import { uniqueMountId } from '../../sys/open.ts'
import type { Finding } from './finding.ts'

export interface GuardFacts {
  /** Undefined: the guard did not see the bpffs made. */
  readonly delegation: GuardDelegation | undefined
  /** It refuses, and does not only record. */
  readonly enforces: boolean
  /** Whether the bpffs is where the first token was made of it. */
  readonly isInPlace: boolean
  readonly hasExpired: boolean
}

/** What the guard knows of the bpffs of which this is the root directory. `nowNs`: since boot. */
export function guardFactsOf(guard: Guard, root: Fd, nowNs: bigint): GuardFacts {
  const id = guard.delegationAt(root)
  const delegation = id === undefined ? undefined : known(guard, id)
  if (delegation === undefined)
    return {
      delegation,
      enforces: guard.config().mode === 'enforce',
      isInPlace: true,
      hasExpired: false,
    }
  const { mount } = guard.tables.usages.get(delegation.id)
  const { expiresNs, terms } = delegation
  return {
    delegation,
    enforces: terms.mode !== 'permissive',
    isInPlace: terms.sharing.bindMount || mount === 0n || mount === uniqueMountId(root),
    hasExpired: expiresNs !== undefined && expiresNs <= nowNs,
  }
}

function known(guard: Guard, id: DelegationId): GuardDelegation | undefined {
  return guard.delegations().find(one => one.id === id)
}

/** Where a process is, as far as a delegation asks. */
export interface Whereabouts {
  /** Its user namespace, and those that this lies in. */
  readonly userNamespaces: readonly string[]
  /** The directory of its cgroup of version 2; undefined: there is none. */
  readonly cgroup: string | undefined
  readonly inHostNetwork: boolean
}

/** Of making a token. Undefined: it may. Pure. */
export function guardOnToken(facts: GuardFacts, where: Whereabouts): Finding | undefined {
  if (!facts.enforces) return undefined
  const { delegation } = facts
  if (delegation === undefined)
    return {
      cause: 'guard-unregistered',
      errno: 'EACCES',
      needed: 'a bpffs that the guard saw made',
      found: 'one of which it has no record',
    }
  const ended = endedFinding(facts, delegation)
  if (ended !== undefined) return ended
  const only = delegation.cgroup
  if (only !== undefined && !isBelow(where.cgroup, only.path))
    return {
      cause: 'guard-cgroup',
      errno: 'EACCES',
      needed: `a task in cgroup ${only.path ?? only.id}, to which delegation ${delegation.id} is bound`,
      found: `cgroup ${where.cgroup ?? 'not told'}`,
    }
  if (!facts.isInPlace)
    return {
      ...{ cause: 'guard-elsewhere', errno: 'EACCES' },
      needed: `the mount of delegation ${delegation.id} of which its first token was made`,
      found: 'another mount of it',
      edit: { path: 'spec.sharing.bindMount', value: true },
    }
  return countFinding(delegation, 'tokens')
}

/** Of a call that names the token. Undefined: it may. Pure. */
export function guardOnCall(facts: GuardFacts, where: Whereabouts, need: Need): Finding | undefined {
  const { delegation, enforces } = facts
  if (!enforces || delegation === undefined) return undefined
  const { userNamespace, terms } = delegation
  const isStranger = userNamespace !== undefined && !where.userNamespaces.includes(`user:[${userNamespace}]`)
  if (isStranger && !terms.sharing.passToken)
    return {
      ...{ cause: 'guard-stranger', errno: 'EPERM' },
      needed: `a task in user:[${userNamespace}], to which delegation ${delegation.id} was lent`,
      found: `a task in ${where.userNamespaces[0]}`,
      edit: { path: 'spec.sharing.passToken', value: true },
    }
  if (need.cmd === 'map_create') return countFinding(delegation, 'maps')
  if (need.cmd === 'prog_load') return countFinding(delegation, 'programs')
  return undefined
}

/** Capabilities that a token of it does not stand in for, of these. Pure. */
export function lendsCapability({ delegation, enforces }: GuardFacts, name: string): boolean {
  if (!enforces || delegation === undefined) return true
  return delegation.terms.rights.capabilities.some(one => one === name)
}

const REVOKED = 'a live delegation'

export function endedFinding(facts: GuardFacts, { id, revoked }: GuardDelegation): Finding | undefined {
  if (revoked)
    return { cause: 'guard-revoked', errno: 'EACCES', needed: REVOKED, found: `delegation ${id} is revoked` }
  if (!facts.hasExpired) return undefined
  return {
    ...{ cause: 'guard-expired', errno: 'EACCES', needed: REVOKED },
    found: `the time of delegation ${id} is over`,
  }
}

type Counted = 'tokens' | 'maps' | 'programs'

function countFinding({ id, terms, live }: GuardDelegation, what: Counted): Finding | undefined {
  const limit = terms.limits[what] ?? DEFAULT_LIMITS[what]
  if (live[what] < limit) return undefined
  return {
    ...{ cause: `guard-${what}`, errno: 'EDQUOT' },
    needed: `room for one more of the ${what} of delegation ${id}`,
    found: `${live[what]} in use, of ${limit}`,
    edit: { path: LIMIT_PATHS[what], value: limit + 1 },
  }
}

function isBelow(path: string | undefined, top: string | undefined): boolean {
  if (path === undefined || top === undefined) return false
  return path === top || path.startsWith(`${top}/`)
}

/**
 * What an errno that only the guard gives says of its limits, by its records. Undefined: it is not
 * that. Pure.
 */
export function guardBehind(errno: string, facts: GuardFacts, need: Need): Finding | undefined {
  const { delegation } = facts
  if (errno !== 'EDQUOT' || delegation === undefined) return undefined
  const isMap = need.cmd === 'map_create'
  const counted = countFinding(delegation, isMap ? 'maps' : 'programs')
  return counted ?? amountFinding(delegation, isMap ? 'map-bytes' : 'instructions')
}

function amountFinding({ id, terms, live }: GuardDelegation, what: 'map-bytes' | 'instructions'): Finding {
  const { limits } = terms
  const found =
    what === 'map-bytes'
      ? `${live.mapBytes} bytes in use, of ${limits.mapBytes ?? 'unlimited'}`
      : `a program of more than ${limits.instructions ?? 'unlimited'}`
  return {
    ...{ cause: `guard-${what}`, errno: 'EDQUOT', found },
    needed: what === 'map-bytes' ? `room for the map in delegation ${id}` : 'a program of fewer instructions',
  }
}
