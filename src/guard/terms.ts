/** A policy's terms in the guard's form, and back. Pure. */
import { FormatError } from '../errors.ts'
import { type AllowList, type Capability, CAPABILITIES as LENDABLE, type Terms } from '../policy/policy.ts'
import { ANY_MASK } from '../policy/vocabulary.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { EVENTS_WORDS, GUARD_FLAGS, GUARD_NAME_BYTES, type guard_terms } from './layout.ts'
import type { Row } from './table.ts'

/** A limit of all ones is none. */
export const NO_LIMIT32 = 0xffff_ffff
export const NO_LIMIT64 = (1n << 64n) - 1n

const NS_PER_SEC = 1_000_000_000n

const bitOf = (name: Capability): bigint =>
  1n << BigInt(CAPABILITIES[`CAP_${name.toUpperCase()}` as keyof typeof CAPABILITIES])

/** Bit n stands for capability number n. */
function capabilityMask(terms: Pick<Terms, 'rights'>): bigint {
  return terms.rights.capabilities.reduce((mask, name) => mask | bitOf(name), 0n)
}

/** The part of a policy that the guard enforces. */
export type GuardTerms = Omit<Terms, 'guard'>

/** Numbers of the lists that hold a policy's digests and functions; 0: any. */
export interface ListNumbers {
  readonly digests: bigint
  readonly functions: bigint
}

export type RawTerms = Row<typeof guard_terms.fields>

/**
 * Everything, without limits: the ceiling of a delegator that has no ceiling. It is nobody's
 * policy, so it does not decide on mode and events.
 */
export const NO_CEILING: RawTerms = {
  masks: { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK },
  capabilities: ANY_MASK,
  map_bytes: NO_LIMIT64,
  lifetime_ns: NO_LIMIT64,
  digests: 0n,
  functions: 0n,
  tokens: NO_LIMIT32,
  programs: NO_LIMIT32,
  maps: NO_LIMIT32,
  instructions: NO_LIMIT32,
  mode: 0,
  flags: NO_LIMIT32,
  events: EVENTS_WORDS.indexOf('none'),
  depth: NO_LIMIT32,
}

/**
 * The terms of a delegator that names no abilities and has no ceiling: everything, with the
 * defaults of a policy.
 */
export const EVERYTHING: RawTerms = {
  ...NO_CEILING,
  mode: 1,
  flags: 0,
  events: EVENTS_WORDS.indexOf('refused'),
  depth: 0,
}

export function encodeTerms(terms: GuardTerms, lists: ListNumbers): RawTerms {
  const { limits, sharing, derive } = terms
  const count = (limit: number | undefined): number =>
    limit === undefined ? NO_LIMIT32 : Math.min(limit, NO_LIMIT32)
  return {
    masks: { ...terms.rights.masks },
    capabilities: capabilityMask(terms),
    map_bytes: limits.mapBytes ?? NO_LIMIT64,
    lifetime_ns: limits.lifetimeSec === undefined ? NO_LIMIT64 : BigInt(limits.lifetimeSec) * NS_PER_SEC,
    ...lists,
    tokens: count(limits.tokens),
    programs: count(limits.programs),
    maps: count(limits.maps),
    instructions: count(limits.instructions),
    mode: terms.mode === 'permissive' ? 0 : 1,
    flags:
      (sharing.passToken ? GUARD_FLAGS.passToken : 0) |
      (sharing.bindMount ? GUARD_FLAGS.bindMount : 0) |
      (terms.network === 'host' ? GUARD_FLAGS.hostNetwork : 0) |
      (terms.cgroups === 'any' ? GUARD_FLAGS.anyCgroup : 0) |
      (terms.revocable ? 0 : GUARD_FLAGS.irrevocable),
    events: EVENTS_WORDS.indexOf(terms.events),
    depth: derive.allowed ? derive.maxDepth : 0,
  }
}

/** `listed` are the lists that the numbers in `raw` name. */
export function decodeTerms(raw: RawTerms, listed: { digests: AllowList; functions: AllowList }): GuardTerms {
  const limited = <Field extends string>(field: Field, value: number): { [K in Field]?: number } =>
    value === NO_LIMIT32 ? {} : ({ [field]: value } as { [K in Field]: number })
  const has = (flag: keyof typeof GUARD_FLAGS): boolean => (raw.flags & GUARD_FLAGS[flag]) !== 0
  const { depth } = raw
  return {
    rights: {
      masks: raw.masks,
      capabilities: LENDABLE.filter(name => (raw.capabilities & bitOf(name)) !== 0n),
    },
    limits: {
      ...limited('tokens', raw.tokens),
      ...limited('programs', raw.programs),
      ...limited('maps', raw.maps),
      ...limited('instructions', raw.instructions),
      ...(raw.map_bytes === NO_LIMIT64 ? {} : { mapBytes: raw.map_bytes }),
      ...(raw.lifetime_ns === NO_LIMIT64 ? {} : { lifetimeSec: Number(raw.lifetime_ns / NS_PER_SEC) }),
    },
    programs: { digests: listed.digests },
    targets: { functions: listed.functions },
    sharing: { bindMount: has('bindMount'), passToken: has('passToken') },
    revocable: !has('irrevocable'),
    network: has('hostNetwork') ? 'host' : 'own',
    cgroups: has('anyCgroup') ? 'any' : 'own',
    derive: { allowed: depth > 0, maxDepth: Math.max(1, depth) },
    mode: raw.mode === 0 ? 'permissive' : 'enforce',
    events: EVENTS_WORDS[raw.events] ?? 'refused',
  }
}

const CUT = '…'

/** A name for people: where it is too long, its end. */
export function encodeLabel(text: string): Uint8Array {
  const field = new Uint8Array(GUARD_NAME_BYTES)
  const encoder = new TextEncoder()
  let label = text
  for (let from = 1; encoder.encode(label).length >= GUARD_NAME_BYTES; from++) label = CUT + text.slice(from)
  field.set(encoder.encode(label))
  return field
}

/**
 * The key for map `policies`, or the name of a cgroup in its key. FormatError: longer than the
 * guard takes.
 */
export function encodeName(name: string, what: string = 'ability'): Uint8Array {
  const key = new Uint8Array(GUARD_NAME_BYTES)
  const text = new TextEncoder().encode(name)
  // Two bytes shorter than the field: a name that fills the field may have been cut, and is not
  // taken.
  if (text.length === 0 || text.length > GUARD_NAME_BYTES - 2)
    throw new FormatError(what, `"${name}" is not of 1 to ${GUARD_NAME_BYTES - 2} bytes`)
  key.set(text)
  return key
}
