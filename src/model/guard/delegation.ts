/** What the guard has on record of a loan or a confined cgroup: its life and its counts. */
import type { RawTerms } from '../../guard/terms.ts'
import type { UserNamespace } from '../task.ts'
import type { Cgroup } from './actor.ts'
import { isStated, isUnlimited, type Kind, limitOf } from './terms.ts'
import type { GuardReason } from './words.ts'

/** Live objects; what was lent on counts as in use. */
interface Usage {
  tokens: number
  programs: number
  maps: number
  mapBytes: bigint
  superblocks: number
  /** Derived delegations. */
  children: number
}

export interface Delegation {
  readonly id: number
  readonly terms: RawTerms
  /** Absent: it is a confined cgroup. */
  readonly userNamespace?: UserNamespace
  readonly parent?: Delegation
  /** The confined cgroup; else tokens are made in this one and below only; absent: anywhere. */
  readonly cgroup?: Cgroup
  /** By its record, in seconds of the guard's clock; Infinity: never. */
  expiresAt: number
  /** As it was renewed last. */
  renewedTo?: number
  /** Written down by the first hook that found its time over. */
  expired: boolean
  revoked: boolean
  /** Nothing of it is left: the number is nobody's. */
  isGone: boolean
  /** Its rules count in its user namespace. */
  isRuled: boolean
  /** The mount that its tokens are made through, and where that was when the first one was made. */
  mount?: object
  place?: string
  /** Cgroup of the task that made the first token. */
  home?: Cgroup
  readonly usage: Usage
}

export function newDelegation(
  given: Pick<Delegation, 'id' | 'terms' | 'expiresAt'> &
    Partial<Pick<Delegation, 'userNamespace' | 'parent' | 'cgroup'>>,
): Delegation {
  return {
    ...given,
    expired: false,
    revoked: false,
    isGone: false,
    isRuled: false,
    usage: { tokens: 0, programs: 0, maps: 0, mapBytes: 0n, superblocks: 1, children: 0 },
  }
}

/** When it ends, by what holds now. */
export function endOf({ expiresAt, renewedTo = 0 }: Delegation): number {
  return Math.max(expiresAt, renewedTo)
}

/** Why it holds no more, at a time; `none`: it lives. Whoever asks is a hook: what is found expired stays so. */
export function liveness(of: Delegation, now: number): GuardReason {
  if (of.revoked) return 'revoked'
  if (of.expiresAt === Number.POSITIVE_INFINITY) return 'none'
  if (!of.expired && now >= of.expiresAt && now >= endOf(of)) of.expired = true
  return of.expired ? 'expired' : 'none'
}

// ---- counting ----

/** The origin, where use of this kind counts there, too: of a limit that is not stated. */
function originOf(of: Delegation, kind: Kind): Delegation | undefined {
  return isStated(of.terms, kind) ? undefined : of.parent
}

/** Counts so many more of a kind, here and at the origins; true: one of them had not that much room. */
export function counts(of: Delegation, kind: Kind, more: number): boolean {
  let isOver = false
  for (let at: Delegation | undefined = of; at !== undefined; at = originOf(at, kind)) {
    const limit = limitOf(at.terms, kind)
    isOver ||= at.usage[kind] > limit || more > limit - at.usage[kind]
    at.usage[kind] += more
  }
  return isOver
}

export function uncount(of: Delegation, kind: Kind, less: number): void {
  for (let at: Delegation | undefined = of; at !== undefined; at = originOf(at, kind)) at.usage[kind] -= less
}

/** Bytes of maps; true: more than there was room for. */
export function countsBytes({ terms, usage }: Delegation, more: bigint): boolean {
  const before = usage.mapBytes
  usage.mapBytes += more
  const limit = terms.map_bytes
  return !isUnlimited(limit) && (before > limit || more > limit - before)
}

const KINDS = ['tokens', 'programs', 'maps'] as const

/** What a derived delegation takes from its origin as a whole: of limits that it states. */
function part(from: RawTerms, child: RawTerms) {
  const stated = (kind: Kind): number => (isStated(child, kind) ? child[kind] : 0)
  return {
    tokens: stated('tokens'),
    programs: stated('programs'),
    maps: stated('maps'),
    bytes: isUnlimited(from.map_bytes) ? 0n : child.map_bytes,
  }
}

/** Takes it; false: there is not that much left, and nothing is taken. */
export function takePart(from: Delegation, child: RawTerms): boolean {
  const taken = part(from.terms, child)
  let isOver = countsBytes(from, taken.bytes)
  for (const kind of KINDS) isOver = counts(from, kind, taken[kind]) || isOver
  from.usage.children++
  if (isOver) giveBack(from, child)
  return !isOver
}

function giveBack(from: Delegation, child: RawTerms): void {
  const taken = part(from.terms, child)
  from.usage.mapBytes -= taken.bytes
  for (const kind of KINDS) uncount(from, kind, taken[kind])
  from.usage.children--
}

/** The record goes with the last of its objects, and gives back what it had of its origin. */
export function forget(of: Delegation, unrule: (of: Delegation) => void): void {
  const { superblocks, tokens, programs, maps, children } = of.usage
  if (of.isGone || of.userNamespace === undefined) return
  if (superblocks + tokens + programs === 0) unrule(of)
  if (superblocks + tokens + programs + maps + children > 0) return
  of.isGone = true
  if (of.parent === undefined) return
  giveBack(of.parent, of.terms)
  forget(of.parent, unrule)
}
