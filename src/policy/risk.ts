/**
 * How dangerous a policy is, bit by bit, with the reason.
 *
 * A rating says what a *malicious* workload could do with the right, on a kernel whose verifier
 * holds. `critical` means as good as root on the host. Unknown is never low: a type that this table
 * does not know, and bits that this kernel has no name for, are rated high.
 */
import { NET_ADMIN_MAPS, TOKEN_COMMANDS } from '../uapi/bpf-needs.ts'
import { guardNeeds } from './guard-needs.ts'
import { LINK_ONLY_ATTACHS, PROGRAM_CLASSES, REDIRECT_MAPS, type Reach } from './kernel-classes.ts'
import { describeMask } from './mask-text.ts'
import type { Capability, Terms } from './policy.ts'
import { MASK_DOMAINS, type MaskDomain, type Vocabulary } from './vocabulary.ts'

/** Lowest first. */
export const RISK_LEVELS = ['low', 'medium', 'high', 'critical'] as const
export type RiskLevel = (typeof RISK_LEVELS)[number]

export interface RiskItem {
  readonly domain: MaskDomain | 'capabilities' | 'network'
  readonly word: string
  readonly level: RiskLevel
  readonly reason: string
}

export interface RiskAssessment {
  /** The highest level of the items; `low` without any. */
  readonly level: RiskLevel
  /** One for each bit, capability and network class, highest level first. */
  readonly items: readonly RiskItem[]
}

type Rating = readonly [RiskLevel, string]

/** Less than, equal to or greater than zero as `a` is lower than, equal to or higher than `b`. */
export function compareRisk(a: RiskLevel, b: RiskLevel): number {
  return RISK_LEVELS.indexOf(a) - RISK_LEVELS.indexOf(b)
}

/** Rates all that the terms lend. */
export function assessRisk(terms: Terms, vocabulary: Vocabulary): RiskAssessment {
  const words = wordsByDomain(terms, vocabulary)
  const items: RiskItem[] = []
  for (const domain of MASK_DOMAINS) {
    for (const word of words[domain]) items.push(item(domain, word, rateWord(domain, word, terms, words)))
  }
  for (const name of terms.rights.capabilities) {
    items.push(item('capabilities', name, rateCapability(name, words.progs, terms.network)))
  }
  if (terms.network === 'host') items.push(item('network', 'host', rateHostNetwork(words.progs)))
  items.sort((a, b) => compareRisk(b.level, a.level))
  return { level: items[0]?.level ?? 'low', items }
}

type WordsByDomain = Readonly<Record<MaskDomain, readonly string[]>>

function wordsByDomain(terms: Terms, vocabulary: Vocabulary): WordsByDomain {
  const words = (domain: MaskDomain) => describeMask(vocabulary, domain, terms.rights.masks[domain])
  return { cmds: words('cmds'), maps: words('maps'), progs: words('progs'), attachs: words('attachs') }
}

function item(domain: RiskItem['domain'], word: string, [level, reason]: Rating): RiskItem {
  return { domain, word, level, reason }
}

/**
 * Whether a guard holds attachments to the workload's own network: where the policy needs none, it may
 * be lent without. Then a process in another network attaches whatever program it is handed, with no
 * capability.
 */
function networkIsHeld(terms: Terms): boolean {
  return terms.guard === 'required' && terms.mode === 'enforce' && guardNeeds(terms).length > 0
}

function rateWord(domain: MaskDomain, word: string, terms: Terms, words: WordsByDomain): Rating {
  if (word === 'any') return ['critical', 'all that this kernel has and all that later kernels will add']
  if (word.startsWith('0x'))
    return ['high', 'bits without a name in this kernel; a later kernel gives them one']
  if (domain === 'cmds') return rateCommand(word, terms.rights.capabilities)
  if (domain === 'maps') return rateMap(word, words.progs, terms.network)
  if (domain === 'progs') return rateProgram(word, terms)
  return rateAttach(word, words.progs, terms)
}

function rateCommand(word: string, capabilities: readonly Capability[]): Rating {
  if (word === 'btf_get_fd_by_id') {
    return capabilities.includes('sys_admin')
      ? ['medium', 'opens any BTF object of the host by its id']
      : ['low', 'needs the capability sys_admin, which is not lent']
  }
  return isOneOf(TOKEN_COMMANDS, word)
    ? ['low', 'what it may make is set by the other masks']
    : ['low', 'the kernel never consults this bit']
}

function rateMap(word: string, progs: readonly string[], network: Terms['network']): Rating {
  if (word === 'struct_ops') {
    return progs.includes('struct_ops') || progs.includes('any')
      ? ['critical', 'registers callbacks in the kernel for the whole host']
      : ['low', 'does nothing without struct_ops programs']
  }
  if (network === 'host' && isOneOf(REDIRECT_MAPS, word)) {
    return ['high', "takes packets from the host's devices"]
  }
  if (isOneOf(NET_ADMIN_MAPS, word) || isOneOf(REDIRECT_MAPS, word)) {
    return ['low', "redirects packets within the workload's network namespace"]
  }
  return ['low', "kernel memory, charged to the workload's cgroup"]
}

/** Reasons for types whose reach alone does not say it. */
const PROGRAM_RATINGS: Readonly<Record<string, Rating>> = {
  unspec: ['low', 'no program has this type'],
  kprobe: ['critical', 'kprobe_multi and uprobe_multi read kernel memory and any process, host-wide'],
  tracing: [
    'critical',
    'reads all of kernel memory; from Linux 6.14 with sys_admin also writes that of processes',
  ],
  raw_tracepoint: ['critical', 'attaches host-wide without a capability and reads kernel memory'],
  raw_tracepoint_writable: [
    'critical',
    'attaches host-wide, reads kernel memory and changes tracepoint arguments',
  ],
  tracepoint: ['critical', 'fires for every task of the host and reads kernel memory'],
  perf_event: ['critical', 'samples and reads kernel memory'],
  lsm: ['critical', 'decides file, process and network access for the whole host'],
  struct_ops: ['critical', 'replaces kernel callbacks host-wide: congestion control, the CPU scheduler'],
  ext: ['critical', 'replaces functions of other programs, also of those that others loaded'],
  syscall: ['medium', 'calls bpf(2) and kernel functions from inside the kernel'],
  lirc_mode2: ['low', 'needs an open infrared device'],
}

function rateProgram(word: string, terms: Terms): Rating {
  const special = PROGRAM_RATINGS[word]
  if (special !== undefined) return special
  const reach = PROGRAM_CLASSES[word]?.reach
  return reach === undefined
    ? ['high', 'a program type that has no rating yet']
    : reach === 'network' && terms.network === 'own' && !networkIsHeld(terms)
      ? UNHELD_NETWORK_RATING
      : REACH_RATINGS[terms.network][reach]
}

const CGROUP_RATING: Rating = [
  'high',
  'attaches to every cgroup whose directory can be opened, the root included: filters and rewrites what others do',
]
const UNHELD_NETWORK_RATING: Rating = [
  'medium',
  "sees and changes traffic of the workload's own network namespace; without a guard also of that of a process outside that it hands the program to",
]
const HOST_RATING: Rating = ['critical', 'reaches the whole host']
const REACH_RATINGS: Readonly<Record<Terms['network'], Readonly<Record<Reach, Rating>>>> = {
  own: {
    own: ['low', "sees only the workload's own sockets"],
    network: ['low', "sees and changes traffic of the workload's own network namespace"],
    cgroup: CGROUP_RATING,
    host: HOST_RATING,
  },
  host: {
    own: ['low', "sees only the workload's own sockets"],
    network: [
      'high',
      "attaches to the host's devices without any capability: sees, changes and drops the node's traffic",
    ],
    cgroup: CGROUP_RATING,
    host: HOST_RATING,
  },
}

/** An attach bit has the level of the most dangerous lent program type that uses it. */
function rateAttach(word: string, progs: readonly string[], terms: Terms): Rating {
  const users = Object.keys(PROGRAM_CLASSES).filter(type => PROGRAM_CLASSES[type]!.attachs.includes(word))
  if (isOneOf(LINK_ONLY_ATTACHS, word)) return ['low', 'the kernel never consults this bit']
  // Fail closed: an attach type that nobody here knows may belong to any program type.
  if (users.length === 0) return ['high', 'an attach type that has no rating yet']
  const lent = progs.includes('any') ? users : users.filter(type => progs.includes(type))
  if (lent.length === 0) return ['low', 'no program type that uses it is lent']
  const [level, type] = lent
    .map(user => [rateProgram(user, terms)[0], user] as const)
    .reduce((worst, next) => (compareRisk(next[0], worst[0]) > 0 ? next : worst))
  return [level, `attachment of ${type} programs`]
}

function rateCapability(name: Capability, progs: readonly string[], network: Terms['network']): Rating {
  const tracing = progs.includes('any') || progs.some(type => PROGRAM_CLASSES[type]?.reach === 'host')
  switch (name) {
    case 'bpf':
      return ['low', 'needed for a token at all']
    case 'net_admin':
      return network === 'own'
        ? ['low', "configures the workload's own network namespace"]
        : ['medium', "loads network programs, which then attach to the host's devices"]
    case 'perfmon':
      return ['high', 'programs may leak kernel pointers and run without Spectre mitigations']
    case 'sys_admin':
      return tracing
        ? ['critical', 'from Linux 6.14 tracing programs may write to the memory of any process']
        : ['medium', 'stands in for the other capabilities and opens BTF objects of the host']
  }
}

function rateHostNetwork(progs: readonly string[]): Rating {
  const attaches = progs.includes('any') || progs.some(type => PROGRAM_CLASSES[type]?.reach === 'network')
  return attaches
    ? ['high', "attaching to the host's devices needs no capability, only a loaded program"]
    : ['medium', "the workload shares the host's network namespace"]
}

function isOneOf(list: readonly string[], word: string): boolean {
  return list.includes(word)
}
