/** The situation that a process would be in, were it lent to by another policy. Pure. */
import type { PolicyEdit } from '../policy/edit.ts'
import { describeMask } from '../policy/mask-text.ts'
import type { Policy } from '../policy/policy.ts'
import { MASK_DOMAINS, type MaskDomain, type Vocabulary } from '../policy/vocabulary.ts'
import type { Situation } from './situation.ts'

/** `edit`: a capability that it adds is one that the process would have, too. */
export function lentAnew(
  situation: Situation,
  policy: Policy,
  vocabulary: Vocabulary,
  edit: PolicyEdit,
): Situation {
  const { rights } = policy
  const words = MASK_DOMAINS.map(
    domain => [domain, describeMask(vocabulary, domain, rights.masks[domain]).join(':')] as const,
  )
  const delegation = Object.fromEntries(words) as Record<MaskDomain, string>
  const last = situation.mounts.at(-1)
  const added = rights.capabilities.filter(
    name => edit.path === 'spec.rights.capabilities' && name === edit.value,
  )
  return {
    ...situation,
    mounts: last === undefined ? [] : [...situation.mounts.slice(0, -1), { ...last, delegation }],
    capabilities: [...new Set([...situation.capabilities, ...added])],
    // Of the loan that it had.
    guard: undefined,
  }
}
