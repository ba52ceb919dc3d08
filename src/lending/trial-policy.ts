/** The policy under which something is tried: exactly these rights, and the usual terms. Pure. */
import { type Capability, DEFAULT_TERMS, type Policy } from '../policy/policy.ts'
import type { Masks } from '../policy/vocabulary.ts'

export function trialPolicy(masks: Masks, capabilities: readonly Capability[]): Policy {
  return { ...DEFAULT_TERMS, name: 'bpftoken-plan', approval: 'none', rights: { masks, capabilities } }
}
