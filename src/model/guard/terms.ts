/** What may be lent, in the guard's form: how terms add up, and what they are held to. */
import {
  EVENTS_WORDS,
  GUARD_DEFAULT_MAPS,
  GUARD_DEFAULT_PROGRAMS,
  GUARD_DEFAULT_TOKENS,
  GUARD_FLAGS,
  GUARD_LISTS,
  GUARD_NETWORK_PROGS_LOW,
} from '../../guard/layout.ts'
import { NO_LIMIT32, NO_LIMIT64, type RawTerms } from '../../guard/terms.ts'
import { MASK_DOMAINS, type Masks } from '../../policy/vocabulary.ts'

/** What is counted of a delegation, one at a time. */
export type Kind = 'tokens' | 'programs' | 'maps'

const DEFAULTS = {
  tokens: GUARD_DEFAULT_TOKENS,
  programs: GUARD_DEFAULT_PROGRAMS,
  maps: GUARD_DEFAULT_MAPS,
} as const

export const ENFORCE = 1
export const PERMISSIVE = 0
const EVENTS_ALL = EVENTS_WORDS.indexOf('all')
const EVENTS_NONE = EVENTS_WORDS.indexOf('none')

/** All types that reach network devices: those of the header, netfilter, and whatever is newer. */
const NETWORK_PROGS = (0xffff_ffffn << 32n) | BigInt(GUARD_NETWORK_PROGS_LOW >>> 0)

export const isStated = (terms: RawTerms, kind: Kind): boolean => terms[kind] !== NO_LIMIT32

/** What holds of a limit that the policy may not state. */
export function limitOf(terms: RawTerms, kind: Kind): number {
  return isStated(terms, kind) ? terms[kind] : DEFAULTS[kind]
}

export function hasFlag(terms: RawTerms, flag: keyof typeof GUARD_FLAGS): boolean {
  return (terms.flags & GUARD_FLAGS[flag]) !== 0
}

/** Whether bit n of a mask is set; of numbers that the mask has no room for it is not. */
export function has(mask: bigint, n: number): boolean {
  return n < 64 && ((mask >> BigInt(n)) & 1n) === 1n
}

/** The same of one of the guard's lists. */
export function isOn(list: keyof typeof GUARD_LISTS, n: number): boolean {
  return has(BigInt(GUARD_LISTS[list]), n)
}

export function isEmpty(masks: Masks): boolean {
  return MASK_DOMAINS.every(domain => masks[domain] === 0n)
}

export function isWithin(some: Masks, all: Masks): boolean {
  return MASK_DOMAINS.every(domain => (some[domain] & ~all[domain]) === 0n)
}

const NO_MASKS: Masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }

/** Nothing yet, and nothing beyond what the delegator may lend. */
export function begun(ceiling: RawTerms): RawTerms {
  return { ...ceiling, masks: NO_MASKS, capabilities: 0n }
}

const least = <T extends number | bigint>(a: T, b: T): T => (b < a ? b : a)

/** Rights add up, limits do not: the strictest of each holds. Undefined: two lists cannot hold at once. */
export function added(terms: RawTerms, more: RawTerms): RawTerms | undefined {
  for (const list of ['digests', 'functions'] as const)
    if (terms[list] !== 0n && more[list] !== 0n && terms[list] !== more[list]) return undefined
  const masks = Object.fromEntries(
    MASK_DOMAINS.map(domain => [domain, terms.masks[domain] | more.masks[domain]]),
  ) as unknown as Masks
  const takesEvents = more.events === EVENTS_ALL || terms.events === EVENTS_NONE
  return {
    masks,
    capabilities: terms.capabilities | more.capabilities,
    digests: terms.digests | more.digests,
    functions: terms.functions | more.functions,
    map_bytes: least(terms.map_bytes, more.map_bytes),
    lifetime_ns: least(terms.lifetime_ns, more.lifetime_ns),
    tokens: least(terms.tokens, more.tokens),
    programs: least(terms.programs, more.programs),
    maps: least(terms.maps, more.maps),
    instructions: least(terms.instructions, more.instructions),
    depth: least(terms.depth, more.depth),
    flags: (terms.flags & more.flags) >>> 0,
    mode: more.mode === PERMISSIVE ? terms.mode : ENFORCE,
    events: takesEvents ? more.events : terms.events,
  }
}

/** Whether derived terms ask for nothing that the origin has not, limits that are counted apart. */
export function mayDerive(some: RawTerms, all: RawTerms): boolean {
  return (
    isWithin(some.masks, all.masks) &&
    (some.capabilities & ~all.capabilities) === 0n &&
    (some.flags & ~all.flags) === 0 &&
    some.instructions <= all.instructions &&
    some.depth < all.depth &&
    (['tokens', 'programs', 'maps'] as const).every(kind => limitOf(some, kind) <= limitOf(all, kind)) &&
    !(all.digests !== 0n && some.digests === 0n) &&
    !(all.functions !== 0n && some.functions === 0n) &&
    !(all.mode !== PERMISSIVE && some.mode === PERMISSIVE)
  )
}

/** Of what the origin tells, nothing is kept back. */
export function withEventsOf(terms: RawTerms, origin: RawTerms): RawTerms {
  const takes = origin.events === EVENTS_ALL || terms.events === EVENTS_NONE
  return takes ? { ...terms, events: origin.events } : terms
}

export const tellsAll = (events: number): boolean => events === EVENTS_ALL
export const tellsNothing = (events: number): boolean => events === EVENTS_NONE

/** What tasks of the delegation's user namespace may not attach. */
export interface Rules {
  readonly ownNetwork: boolean
  readonly revocable: boolean
}

export function rulesOf(terms: RawTerms): Rules {
  return {
    ownNetwork: !hasFlag(terms, 'hostNetwork') && (terms.masks.progs & NETWORK_PROGS) !== 0n,
    revocable: !hasFlag(terms, 'irrevocable'),
  }
}

/** Seconds; Infinity: it does not expire by itself. */
export function lifetimeOf({ lifetime_ns }: RawTerms): number {
  return lifetime_ns === NO_LIMIT64 ? Number.POSITIVE_INFINITY : Number(lifetime_ns) / 1e9
}

export const isUnlimited = (bytes: bigint): boolean => bytes === NO_LIMIT64
