/** How systemd calls what a bpffs delegates, in the settings of a unit. Pure. */
import { DOMAIN_ENUMS, type MaskDomain } from './vocabulary.ts'

export const SYSTEMD_SETTINGS = {
  cmds: 'BPFDelegateCommands',
  maps: 'BPFDelegateMaps',
  progs: 'BPFDelegatePrograms',
  attachs: 'BPFDelegateAttachments',
} as const satisfies Record<MaskDomain, string>

/** Up to version 262 it can lend this one with all others only: `any`. */
const NO_WORD: Readonly<Partial<Record<MaskDomain, readonly string[]>>> = { progs: ['syscall'] }

/**
 * systemd's word for the kernel's: BPFMapTypeLpmTrie for BPF_MAP_TYPE_LPM_TRIE (systemd,
 * src/core/generate-bpf-delegate-configs.py). Undefined: it has none.
 */
export function systemdWord(domain: MaskDomain, word: string): string | undefined {
  if (NO_WORD[domain]?.includes(word)) return undefined
  const [, ...parts] = `${DOMAIN_ENUMS[domain].prefix}${word}`.split('_')
  return `BPF${parts.map(part => part.charAt(0).toUpperCase() + part.slice(1).toLowerCase()).join('')}`
}
