/** A plan as a drop-in for a unit of systemd, which makes the delegation itself. Pure. */
import { wordsOf } from '../../policy/mask-text.ts'
import { DOMAIN_ENUMS, type MaskDomain } from '../../policy/vocabulary.ts'
import { headerVocabulary } from '../header-words.ts'
import type { RightsPlan } from '../plan.ts'
import { capabilityNames, comments, heading, lentDomains, remarks } from './comments.ts'
import { type FormatFacts, reachesNetwork } from './container.ts'

const SYSTEMD_KEYS = {
  cmds: 'BPFDelegateCommands',
  maps: 'BPFDelegateMaps',
  progs: 'BPFDelegatePrograms',
  attachs: 'BPFDelegateAttachments',
} as const satisfies Record<MaskDomain, string>

/** For systemd 258 and later. */
export function systemdText(plan: RightsPlan, { words: { allow } }: FormatFacts): string[] {
  const unnamed: string[] = []
  const settings = lentDomains(plan).map(domain => {
    const { words: named, leftover } = wordsOf(headerVocabulary(), domain, plan.masks[domain])
    if (leftover !== undefined) unnamed.push(`systemd has no word for ${domain} ${leftover}`)
    return `${SYSTEMD_KEYS[domain]}=${named.map(word => systemdWord(domain, word)).join(',')}`
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

/**
 * `BPF_MAP_TYPE_RINGBUF` is `BPFMapTypeRingbuf` (systemd,
 * src/core/generate-bpf-delegate-configs.py).
 */
function systemdWord(domain: MaskDomain, word: string): string {
  const parts = `${DOMAIN_ENUMS[domain].prefix}${word}`.split('_')
  return parts
    .map((part, i) => (i === 0 ? part : part.charAt(0).toUpperCase() + part.slice(1).toLowerCase()))
    .join('')
}
