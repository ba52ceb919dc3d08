/** What programs are shown of a delegation: numbers are numbers, times are RFC 3339. */
import { bootTimeNs } from '../guard/clock.ts'
import type { DetachResult } from '../guard/detach.ts'
import type { GuardDelegation } from '../guard/guard.ts'
import { hexMasks } from '../policy/mask-text.ts'
import type { Loan } from './journal.ts'
import type { TakenBack } from './undelegate.ts'

const NS_PER_MS = 1_000_000n

/** What the guard's clock meant, by our calendar of now. */
export function wallTime(timeNs: bigint): string {
  return new Date(Date.now() - Number((bootTimeNs() - timeNs) / NS_PER_MS)).toISOString()
}

/** Decimal text where JSON has no such number. */
export function exact(value: bigint): number | string {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value)
}

/** Ids and sizes as numbers; masks, whose bits a number cannot hold, as hexadecimal text. */
export function delegationToJSON(one: GuardDelegation) {
  const { id, createdNs, expiresNs, revokedNs, parent, cgroup, live, terms, ...rest } = one
  return {
    id: Number(id),
    ...rest,
    terms: termsToJSON(terms),
    createdAt: wallTime(createdNs),
    ...(expiresNs === undefined ? {} : { expiresAt: wallTime(expiresNs) }),
    ...(revokedNs === undefined ? {} : { revokedAt: wallTime(revokedNs) }),
    ...(parent === undefined ? {} : { parent: Number(parent) }),
    ...(cgroup === undefined ? {} : { cgroup: { ...cgroup, id: exact(cgroup.id) } }),
    live: { ...live, mapBytes: exact(live.mapBytes) },
  }
}

function termsToJSON({ rights, limits, ...rest }: GuardDelegation['terms']) {
  const { mapBytes, ...counts } = limits
  const masks = hexMasks(rights.masks)
  return {
    ...rest,
    rights: { ...rights, masks },
    limits: { ...counts, ...(mapBytes === undefined ? {} : { mapBytes: exact(mapBytes) }) },
  }
}

/** A loan that was made. */
export function loanToJSON({ target, place, mount, delegation }: Loan) {
  return {
    target,
    ...('path' in place ? { delegation: mount } : place),
    ...(delegation === undefined ? {} : { id: Number(delegation) }),
  }
}

/** What was unmounted, and what fell with it. */
export function takenBackToJSON({ target, unmounted }: TakenBack) {
  return { target, unmounted: { ...unmounted, revoked: unmounted.revoked.map(Number) } }
}

/** What `detach` did, and what it left. */
export function detachToJSON({ detached, stays, killed, left, holders }: DetachResult) {
  const plain = <T extends { delegation: bigint }>({ delegation, ...rest }: T) => ({
    ...rest,
    delegation: Number(delegation),
  })
  return {
    detached: detached.map(plain),
    stays: stays.map(plain),
    killed,
    left: {
      programs: left.programs.map(plain),
      maps: left.maps.map(plain),
      links: left.links.map(plain),
    },
    holders,
  }
}
