/** The comments that every form of a plan has beside its settings. Pure. */
import { printableName } from '../../ebpf/printable.ts'
import { MASK_DOMAINS, type MaskDomain } from '../../policy/vocabulary.ts'
import type { Loader } from '../loader-probes.ts'
import type { RightsPlan } from '../plan.ts'

export const LOADER_NAMES = {
  libbpf: 'libbpf',
  'cilium-ebpf': 'cilium/ebpf',
  aya: 'aya',
  bpftoken: 'bpftoken',
} as const satisfies Record<Loader, string>
const SHOWN_REASONS = 4

export function reasons(by: readonly string[]): string {
  const shown = by.slice(0, SHOWN_REASONS).join(', ')
  return by.length > SHOWN_REASONS ? `${shown} and ${by.length - SHOWN_REASONS} more` : shown
}

/** The first line. */
export function heading({ objects, loader }: RightsPlan): string {
  return `Least rights for ${reasons(filesOf(objects))}, loaded by ${LOADER_NAMES[loader]}; see docs/plan.md`
}

/** The files that objects are of, with how many where it is not one. */
function filesOf(objects: readonly string[]): string[] {
  const counts = new Map<string, number>()
  for (const object of objects) {
    const file = fileOf(object)
    counts.set(file, (counts.get(file) ?? 0) + 1)
  }
  return [...counts].map(([file, count]) => printableName(file) + (count === 1 ? '' : ` (${count} objects)`))
}

/** Without the place of an object in a file with several. */
export function fileOf(object: string): string {
  return object.replace(/@0x[0-9a-f]+$/, '')
}

export function comments(lines: readonly string[]): string[] {
  return lines.map(line => `# ${line}`)
}

/** Notes and problems, for the end of every text. */
export function remarks({ notes, problems }: RightsPlan): string[] {
  return [...problems.map(problem => `Problem: ${problem}`), ...notes.map(note => `Note: ${note}`)]
}

/** `CAP_BPF CAP_NET_ADMIN`, as capabilities(7) and systemd write them. */
export function capabilityNames({ capabilities }: RightsPlan): string {
  return capabilities.map(({ name }) => `CAP_${name.toUpperCase()}`).join(' ')
}

/** The domains of which anything is lent. */
export function lentDomains(plan: RightsPlan): MaskDomain[] {
  return MASK_DOMAINS.filter(domain => plan.masks[domain] !== 0n)
}
