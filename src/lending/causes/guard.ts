/**
 * What the guard has to say to a call, by its records of the delegation that a bpffs is of; and of a
 * refusal, by the event that it made of it.
 */
import type { MissingRight, Need } from '../../ebpf/rights.ts'
import { bootTimeNs } from '../../guard/clock.ts'
import type { GuardEvent } from '../../guard/event.ts'
import type { DelegationId, Guard, GuardDelegation } from '../../guard/guard.ts'
import { GUARD_DEFAULT_MAPS, GUARD_DEFAULT_PROGRAMS, GUARD_DEFAULT_TOKENS } from '../../guard/layout.ts'
import type { ErrnoName } from '../../model/judge.ts'
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

/** What the guard knows of the bpffs of which this is the root directory. */
export function guardFactsOf(guard: Guard, root: Fd): GuardFacts {
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
    hasExpired: expiresNs !== undefined && expiresNs <= bootTimeNs(),
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
}

/** Of making a token. Undefined: it may. Pure. */
export function guardOnToken(facts: GuardFacts, where: Whereabouts): Finding | undefined {
  if (!facts.enforces) return undefined
  const { delegation } = facts
  if (delegation === undefined)
    return {
      cause: 'guard',
      errno: 'EACCES',
      needed: 'a bpffs that the guard saw made',
      found: 'one of which it has no record',
    }
  const ended = endedFinding(facts, delegation)
  if (ended !== undefined) return ended
  const only = delegation.cgroup
  if (only !== undefined && !isBelow(where.cgroup, only.path))
    return {
      cause: 'guard-place',
      errno: 'EACCES',
      needed: `a task in cgroup ${only.path ?? only.id}, to which delegation ${delegation.id} is bound`,
      found: `cgroup ${where.cgroup ?? 'not told'}`,
    }
  if (!facts.isInPlace)
    return {
      ...{ cause: 'guard-place', errno: 'EACCES' },
      needed: `the mount of delegation ${delegation.id} of which its first token was made`,
      found: 'another mount of it',
      setting: { path: 'spec.sharing.bindMount', value: true },
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
      ...{ cause: 'guard-place', errno: 'EPERM' },
      needed: `a task in user:[${userNamespace}], to which delegation ${delegation.id} was lent`,
      found: `a task in ${where.userNamespaces[0]}`,
      setting: { path: 'spec.sharing.passToken', value: true },
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

function endedFinding(facts: GuardFacts, { id, revoked }: GuardDelegation): Finding | undefined {
  if (revoked)
    return { cause: 'guard-revoked', errno: 'EACCES', needed: REVOKED, found: `delegation ${id} is revoked` }
  if (!facts.hasExpired) return undefined
  return {
    ...{ cause: 'guard-expired', errno: 'EACCES', needed: REVOKED },
    found: `the time of delegation ${id} is over`,
    setting: { path: 'spec.limits.lifetime', value: undefined },
  }
}

type Counted = 'tokens' | 'maps' | 'programs'

const DEFAULTS: Readonly<Record<Counted, number>> = {
  tokens: GUARD_DEFAULT_TOKENS,
  maps: GUARD_DEFAULT_MAPS,
  programs: GUARD_DEFAULT_PROGRAMS,
}

function countFinding({ id, terms, live }: GuardDelegation, what: Counted): Finding | undefined {
  const limit = terms.limits[what] ?? DEFAULTS[what]
  if (live[what] < limit) return undefined
  return {
    ...{ cause: 'guard-limit', errno: 'EDQUOT' },
    needed: `room for one more of the ${what} of delegation ${id}`,
    found: `${live[what]} in use, of ${limit}`,
    setting: { path: `spec.limits.${what}`, value: String(limit + 1) },
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
    ...{ cause: 'guard-limit', errno: 'EDQUOT', found },
    needed: what === 'map-bytes' ? `room for the map in delegation ${id}` : 'a program of fewer instructions',
    setting: { path: `spec.limits.${what === 'map-bytes' ? 'mapBytes' : what}`, value: undefined },
  }
}

/** A refusal that the guard has recorded, and the word of a list that a policy would have to have. */
export interface Refusal extends Finding {
  readonly policy?: MissingRight | { readonly domain: 'capabilities'; readonly word: string }
}

/**
 * Why the guard refused, by its event. `delegation`: as it is now; undefined: it has ended, or is
 * not known. Pure.
 */
export function guardRefusal(
  event: Pick<GuardEvent, 'reason' | 'point' | 'type' | 'cmd' | 'delegation' | 'name'>,
  delegation: GuardDelegation | undefined,
): Refusal {
  const { reason, point, type, cmd } = event
  const of = event.delegation === undefined ? 'no delegation' : `delegation ${event.delegation}`
  const at = (
    cause: Finding['cause'],
    errno: ErrnoName,
    needed: string,
    found: string,
    setting?: Finding['setting'],
  ): Refusal => ({ cause, errno, needed, found, ...(setting === undefined ? {} : { setting }) })
  switch (reason) {
    case 'tokens':
    case 'maps':
    case 'programs':
      return (
        (delegation && countFinding(delegation, reason)) ??
        at('guard-limit', 'EDQUOT', `room for one more of the ${reason} of ${of}`, 'none was left', {
          path: `spec.limits.${reason}`,
          value: undefined,
        })
      )
    case 'map-bytes':
    case 'instructions':
      return delegation === undefined
        ? at('guard-limit', 'EDQUOT', `room within limits.${reason} of ${of}`, 'too little was left')
        : amountFinding(delegation, reason)
    case 'revoked':
      return at('guard-revoked', 'EACCES', REVOKED, `${of} is revoked`)
    case 'expired':
      return at('guard-expired', 'EACCES', REVOKED, `the time of ${of} is over`, {
        path: 'spec.limits.lifetime',
        value: undefined,
      })
    case 'elsewhere':
      return at('guard-place', 'EACCES', `the mount of ${of} of which its first token was made`, 'another', {
        path: 'spec.sharing.bindMount',
        value: true,
      })
    case 'stranger':
      return at('guard-place', 'EPERM', `a task of the user namespace of ${of}`, 'a task of another one', {
        path: 'spec.sharing.passToken',
        value: true,
      })
    case 'cgroup':
      return at('guard-place', 'EACCES', `a cgroup that is the own one of ${of}`, 'another one', {
        path: 'spec.cgroups',
        value: point === 'attach' ? 'any' : undefined,
      })
    case 'network':
      return at('guard-network', 'EACCES', `a network of its own, for ${of}`, "the host's network", {
        path: 'spec.network',
        value: 'host',
      })
    case 'outlives':
      return at('guard-outlives', 'EACCES', 'an attachment that ends with a link', 'one that outlives it', {
        path: 'spec.revocable',
        value: false,
      })
    case 'digest':
      return at('guard-list', 'EACCES', `a program on the list of ${of}`, `"${event.name}" is none of them`, {
        path: 'spec.programs.digests',
        value: undefined,
      })
    case 'function':
      return at('guard-list', 'EACCES', `a target on the list of ${of}`, 'another one', {
        path: 'spec.targets.functions',
        value: undefined,
      })
    case 'capability':
      return {
        ...at('guard-capability', 'EPERM', `CAP_${(type ?? '?').toUpperCase()}, lent by ${of}`, 'not lent'),
        ...(type === undefined ? {} : { policy: { domain: 'capabilities', word: type } }),
      }
    case 'rights': {
      const word = point === 'command' ? cmd : type
      const domain = point === 'command' ? 'cmds' : point === 'map_create' ? 'maps' : 'progs'
      return {
        ...at(
          'guard-rights',
          'EPERM',
          `${domain} ${word ?? ''}, allowed to the confined cgroup`,
          'not allowed',
        ),
        ...(word === undefined ? {} : { policy: { domain, word } }),
      }
    }
    default:
      return at('guard', 'EACCES', `what ${of} allows`, `the guard's reason is: ${reason}`)
  }
}
