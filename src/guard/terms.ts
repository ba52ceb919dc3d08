/** A policy's terms in the guard's form. Pure. */
import { FormatError } from '../errors.ts'
import type { Terms } from '../policy/policy.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { GUARD_FLAGS, guard_terms, NAME_BYTES, NO_LIMIT32, NO_LIMIT64 } from './layout.ts'

const NS_PER_SEC = 1_000_000_000n

/** What `guardNeeds` may name that this guard holds to. The rest it does not know yet. */
const HELD = /^spec\.(limits\.|mode$)/

export function guardHolds(path: string): boolean {
  return HELD.test(path)
}

/** Bit n stands for capability number n. */
export function capabilityMask(terms: Pick<Terms, 'rights'>): bigint {
  return terms.rights.capabilities.reduce(
    (mask, name) =>
      mask | (1n << BigInt(CAPABILITIES[`CAP_${name.toUpperCase()}` as keyof typeof CAPABILITIES])),
    0n,
  )
}

/** What of a policy the guard holds to. */
export type GuardTerms = Pick<Terms, 'rights' | 'limits' | 'sharing' | 'mode'>

/** The value for map `policies`. */
export function encodeTerms(terms: GuardTerms): Uint8Array {
  const { limits } = terms
  const count = (limit: number | undefined): number =>
    limit === undefined ? NO_LIMIT32 : Math.min(limit, NO_LIMIT32)
  return guard_terms.encode({
    ...terms.rights.masks,
    capabilities: capabilityMask(terms),
    map_bytes: limits.mapBytes ?? NO_LIMIT64,
    lifetime_ns: limits.lifetimeSec === undefined ? NO_LIMIT64 : BigInt(limits.lifetimeSec) * NS_PER_SEC,
    tokens: count(limits.tokens),
    programs: count(limits.programs),
    maps_count: count(limits.maps),
    instructions: count(limits.instructions),
    mode: terms.mode === 'permissive' ? 0 : 1,
    flags: terms.sharing.passToken ? GUARD_FLAGS.passToken : 0,
  })
}

/** The key for map `policies`. FormatError: longer than the guard takes. */
export function encodeName(name: string): Uint8Array {
  const key = new Uint8Array(NAME_BYTES)
  const text = new TextEncoder().encode(name)
  // Two bytes short of the field: a name that fills it may have been cut, and is taken for none.
  if (text.length === 0 || text.length > NAME_BYTES - 2)
    throw new FormatError('ability', `"${name}" is not of 1 to ${NAME_BYTES - 2} bytes`)
  key.set(text)
  return key
}
