/** A plan as a drop-in for a unit of systemd, which makes the delegation itself. Pure. */
import { wordsOf } from '../../policy/mask-text.ts'
import { SYSTEMD_SETTINGS, systemdWord } from '../../policy/systemd-words.ts'
import { headerVocabulary } from '../header-words.ts'
import type { RightsPlan } from '../plan.ts'
import { capabilityNames, comments, heading, lentDomains, remarks } from './comments.ts'
import { type FormatFacts, reachesNetwork } from './container.ts'

/** For systemd 258 and later. */
export function systemdText(plan: RightsPlan, { words: { allow } }: FormatFacts): string[] {
  const unnamed: string[] = []
  const settings = lentDomains(plan).flatMap(domain => {
    const { words: named, leftover } = wordsOf(headerVocabulary(), domain, plan.masks[domain])
    if (leftover !== undefined) unnamed.push(`systemd has no word for ${domain} ${leftover}`)
    const words = named.flatMap(word => {
      const theirs = systemdWord(domain, word)
      if (theirs === undefined) unnamed.push(`systemd has no word for ${domain} ${word}`)
      return theirs ?? []
    })
    return words.length === 0 ? [] : `${SYSTEMD_SETTINGS[domain]}=${words.join(',')}`
  })
  return [
    ...comments([heading(plan)]),
    '[Service]',
    'PrivateUsers=yes',
    ...(reachesNetwork(plan)
      ? [
          ...comments(['the rights reach what is in its network, so that this is not the one of the host:']),
          'PrivateNetwork=yes',
        ]
      : []),
    ...comments([
      'without this, the bpffs is opened before the user namespace exists, and no token can be made from it:',
    ]),
    'DelegateNamespaces=mnt',
    'PrivateBPF=yes',
    ...settings,
    ...comments([
      `capabilities inside: ${capabilityNames(plan)}`,
      '  root of the unit has them, unless CapabilityBoundingSet= leaves them out; for another User= say AmbientCapabilities=',
      'a SystemCallFilter= of the unit must have bpf in it',
      'systemd 258 and later mounts the bpffs itself, before the program starts; where the guard of bpftoken is installed,',
      `  it must be allowed to: ${allow}`,
      ...unnamed,
      ...remarks(plan),
    ]),
  ]
}
