/** A plan as options of mount(8). Pure. */
import { hexMask, mountOption } from '../../policy/mask-text.ts'
import type { MaskDomain } from '../../policy/vocabulary.ts'
import { headerVocabulary } from '../header-words.ts'
import type { RightsPlan } from '../plan.ts'
import { capabilityNames, comments, heading, lentDomains, remarks } from './comments.ts'

/** In words, and as the numbers that mean the same in every kernel. */
export function optionsText(plan: RightsPlan): string[] {
  const options = (value: (domain: MaskDomain) => string) =>
    lentDomains(plan)
      .map(domain => `delegate_${domain}=${value(domain)}`)
      .join(',')
  return [
    ...comments([heading(plan), 'in words (the kernel takes 255 characters for each):']),
    options(domain => mountOption(headerVocabulary(), domain, plan.masks[domain])),
    ...comments(['the same in numbers:']),
    options(domain => hexMask(plan.masks[domain])),
    ...comments([`capabilities inside: ${capabilityNames(plan)}`, ...remarks(plan)]),
  ]
}
