/**
 * A plan as the configuration of an instance of LXD or Incus, which differ in their words. Pure.
 */
import { mountOption } from '../../policy/mask-text.ts'
import type { MaskDomain } from '../../policy/vocabulary.ts'
import { headerVocabulary } from '../header-words.ts'
import type { RightsPlan } from '../plan.ts'
import { capabilityNames, comments, heading, lentDomains, remarks } from './comments.ts'
import type { FormatFacts } from './container.ts'

export type Keys = Readonly<Record<MaskDomain, string>>

/**
 * The `config:` of an instance or profile, as `lxc config edit` and `incus config edit` take it.
 */
export function instanceText(
  plan: RightsPlan,
  { words: { allow } }: FormatFacts,
  keys: Keys,
  separator: string,
  first: readonly string[],
): string[] {
  return [
    ...comments([heading(plan)]),
    'config:',
    ...first,
    ...lentDomains(plan).map(domain => {
      const value = mountOption(headerVocabulary(), domain, plan.masks[domain]).replaceAll(':', separator)
      return `  ${keys[domain]}: "${value}"`
    }),
    ...comments([
      `capabilities inside, which a container's root has: ${capabilityNames(plan)}`,
      'the bpffs is mounted when the instance starts; where the guard of bpftoken is installed, the daemon must be',
      `  allowed to: ${allow}`,
      ...remarks(plan),
    ]),
  ]
}
