/**
 * A plan of rights as text: a policy, mount options, and what systemd, LXD and Incus take. Pure.
 *
 * Words are those of the kernel that our headers come from; a bit that is newer is written as a
 * number. Needs neither zod nor yaml nor the running kernel's BTF, so that asking for a plan stays
 * quick.
 */
import { printableName } from '../ebpf/printable.ts'
import { hexMask, mountOption, wordsOf } from '../policy/mask-text.ts'
import type { Terms } from '../policy/policy.ts'
import { assessRisk, type RiskAssessment } from '../policy/risk.ts'
import {
  DOMAIN_ENUMS,
  MASK_DOMAINS,
  type MaskDomain,
  type Vocabulary,
  vocabularyFrom,
} from '../policy/vocabulary.ts'
import { bpf_attach_type, bpf_cmd, bpf_map_type, bpf_prog_type } from '../uapi/bpf.ts'
import type { PlannedRight, RightsPlan } from './plan.ts'

export const PLAN_FORMATS = ['yaml', 'options', 'systemd', 'lxd', 'incus'] as const
export type PlanFormat = (typeof PLAN_FORMATS)[number]

let words: Vocabulary | undefined

/** The words of our headers. */
export function headerVocabulary(): Vocabulary {
  words ??= vocabularyFrom({ bpf_cmd, bpf_map_type, bpf_prog_type, bpf_attach_type })
  return words
}

/** How dangerous the plan is, in a network namespace of the workload's own. */
export function riskOf(plan: RightsPlan): RiskAssessment {
  const terms: Terms = {
    rights: { masks: plan.masks, capabilities: plan.capabilities.map(({ name }) => name) },
    limits: {},
    programs: { digests: 'any' },
    targets: { functions: 'any' },
    sharing: { bindMount: false, passToken: false },
    revocable: true,
    network: 'own',
    cgroups: 'own',
    guard: 'required',
    derive: { allowed: false, maxDepth: 1 },
    mode: 'enforce',
    events: 'refused',
  }
  return assessRisk(terms, headerVocabulary())
}

/** The lines of it. Names from objects are within one line each. */
export function planLines(plan: RightsPlan, format: PlanFormat): string[] {
  return TEXTS[format](plan)
}

const TEXTS: Readonly<Record<PlanFormat, (plan: RightsPlan) => string[]>> = {
  yaml: policyText,
  options: optionsText,
  systemd: systemdText,
  lxd: plan => containerText(plan, LXD_KEYS, ':', ['  security.delegate_bpf: "true"']),
  incus: plan => containerText(plan, INCUS_KEYS, ',', []),
}

const LOADER_NAMES = {
  libbpf: 'libbpf',
  'cilium-ebpf': 'cilium/ebpf',
  aya: 'aya',
  bpftoken: 'bpftoken',
} as const
const SHOWN_REASONS = 4

function reasons(by: readonly string[]): string {
  const shown = by.slice(0, SHOWN_REASONS).join(', ')
  return by.length > SHOWN_REASONS ? `${shown} and ${by.length - SHOWN_REASONS} more` : shown
}

function heading({ objects, loader }: RightsPlan): string {
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

function fileOf(object: string): string {
  return object.replace(/@0x[0-9a-f]+$/, '')
}

function comments(lines: readonly string[]): string[] {
  return lines.map(line => `# ${line}`)
}

/** Notes and problems, for the end of every text. */
function remarks({ notes, problems }: RightsPlan): string[] {
  return [...problems.map(problem => `Problem: ${problem}`), ...notes.map(note => `Note: ${note}`)]
}

function capabilityNames({ capabilities }: RightsPlan): string {
  return capabilities.map(({ name }) => `CAP_${name.toUpperCase()}`).join(' ')
}

/** A policy that reads back as exactly the plan's masks and capabilities. */
function policyText(plan: RightsPlan): string[] {
  const loaders = `      # asked by ${LOADER_NAMES[plan.loader]}'s own probes:`
  const list = (
    name: string,
    items: readonly { word: string; by: readonly string[]; forLoader: boolean }[],
  ) => {
    if (items.length === 0) return [`    ${name}: []`]
    const line = (one: (typeof items)[number]) => `      - ${one.word} # ${reasons(one.by)}`
    const probes = items.filter(one => one.forLoader).map(line)
    const own = items.filter(one => !one.forLoader).map(line)
    return [`    ${name}:`, ...own, ...(probes.length === 0 ? [] : [loaders, ...probes])]
  }
  const risk = riskOf(plan)
  return [
    ...comments([heading(plan)]),
    'apiVersion: bpftoken.dev/v1',
    'kind: DelegationPolicy',
    'metadata:',
    `  name: "${policyName(plan.objects)}"`,
    'spec:',
    '  rights:',
    ...MASK_DOMAINS.flatMap(domain =>
      list(
        domain,
        plan.rights
          .filter(right => right.domain === domain)
          .map(right => ({ ...right, word: policyWord(right) })),
      ),
    ),
    ...list(
      'capabilities',
      plan.capabilities.map(one => ({ ...one, word: one.name })),
    ),
    ...comments([
      `Risk: ${risk.level}, in a network of its own`,
      ...risk.items.map(({ level, domain, word, reason }) => `  ${level}: ${domain} ${word}: ${reason}`),
      ...remarks(plan),
    ]),
  ]
}

/** The word, or the bit as a number where our headers have none. */
function policyWord({ domain, word, bit }: PlannedRight): string {
  return headerVocabulary()[domain].nameOfBit.has(bit) ? word : hexMask(1n << BigInt(bit))
}

const MAX_NAME_CHARS = 63

/** A DNS label out of the files' names. */
function policyName(objects: readonly string[]): string {
  const files = new Set(objects.map(object => fileOf(object).replace(/^.*\//s, '').replace(/\.o$/, '')))
  const name = [...files]
    .join('-')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, MAX_NAME_CHARS)
    .replace(/-+$/, '')
  return name === '' ? 'plan' : name
}

function lentDomains(plan: RightsPlan): MaskDomain[] {
  return MASK_DOMAINS.filter(domain => plan.masks[domain] !== 0n)
}

/** For mount(8): in words, and as the numbers that mean the same in every kernel. */
function optionsText(plan: RightsPlan): string[] {
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

const SYSTEMD_KEYS = {
  cmds: 'BPFDelegateCommands',
  maps: 'BPFDelegateMaps',
  progs: 'BPFDelegatePrograms',
  attachs: 'BPFDelegateAttachments',
} as const satisfies Record<MaskDomain, string>

/** A drop-in for a unit; systemd 258 and later. */
function systemdText(plan: RightsPlan): string[] {
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
    ...comments([
      'without this, the bpffs is opened before the user namespace exists, and no token can be made from it:',
    ]),
    'DelegateNamespaces=mnt',
    'PrivateBPF=yes',
    ...settings,
    ...comments([`capabilities inside: ${capabilityNames(plan)}`, ...unnamed, ...remarks(plan)]),
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

type Keys = Readonly<Record<MaskDomain, string>>

const LXD_KEYS: Keys = {
  cmds: 'security.delegate_bpf.cmd_types',
  maps: 'security.delegate_bpf.map_types',
  progs: 'security.delegate_bpf.prog_types',
  attachs: 'security.delegate_bpf.attach_types',
}
const INCUS_KEYS: Keys = {
  cmds: 'security.bpffs.delegate_cmds',
  maps: 'security.bpffs.delegate_maps',
  progs: 'security.bpffs.delegate_progs',
  attachs: 'security.bpffs.delegate_attachs',
}

/**
 * The `config:` of an instance or profile, as `lxc config edit` and `incus config edit` take it.
 */
function containerText(plan: RightsPlan, keys: Keys, separator: string, first: readonly string[]): string[] {
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
      ...remarks(plan),
    ]),
  ]
}
