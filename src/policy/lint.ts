/**
 * What is probably wrong with a valid policy: rights that do nothing, and rights that are missing
 * for good.
 *
 * A `warning` is about the policy itself; a `note` is about a use of it that may not be intended.
 * Each finding names the field and the change that settles it. Rules are functions in one list.
 */
import { NET_ADMIN_MAPS, TOKEN_COMMANDS } from '../uapi/bpf-needs.ts'
import { guardNeeds } from './guard-needs.ts'
import { ATTACH_ZERO, LINK_ONLY_ATTACHS, PROGRAM_CLASSES, type ProgramClass } from './kernel-classes.ts'
import { wordsOf } from './mask-text.ts'
import type { Capability, Policy } from './policy.ts'
import { ANY_MASK, hasWord, MASK_DOMAINS, type MaskDomain, type Vocabulary } from './vocabulary.ts'

export interface LintFinding {
  /** Stable name of the rule, for tests and for tools. */
  readonly rule: string
  readonly severity: 'warning' | 'note'
  /** The field, e.g. `spec.rights.attachs`. */
  readonly path: string
  readonly message: string
  /** One imperative sentence that says how to settle it. */
  readonly fix: string
}

/**
 * Every finding, in the order of the rules: warnings and notes. Empty for a policy without fault.
 */
export function lintPolicy(policy: Policy, vocabulary: Vocabulary): LintFinding[] {
  const view = new RightsView(policy, vocabulary)
  return RULES.flatMap(rule => [...rule(view)])
}

/** The rights of a policy, asked by name. */
class RightsView {
  readonly policy: Policy
  readonly vocabulary: Vocabulary

  constructor(policy: Policy, vocabulary: Vocabulary) {
    this.policy = policy
    this.vocabulary = vocabulary
  }

  has(domain: MaskDomain, name: string): boolean {
    return hasWord(this.vocabulary, domain, this.policy.rights.masks[domain], name)
  }

  isEmpty(domain: MaskDomain): boolean {
    return this.policy.rights.masks[domain] === 0n
  }

  /**
   * Whether all bits are set, so that nobody chose the single ones: they cannot be idle by mistake.
   */
  isAny(domain: MaskDomain): boolean {
    return this.policy.rights.masks[domain] === ANY_MASK
  }

  /** Canonical names of the lent bits; all names for `any`. */
  words(domain: MaskDomain): string[] {
    const { known } = this.vocabulary[domain]
    return wordsOf(this.vocabulary, domain, this.policy.rights.masks[domain] & known).words
  }

  lends(capability: Capability): boolean {
    return this.policy.rights.capabilities.includes(capability)
  }

  /** The lent program types that are known here. */
  programs(): [name: string, type: ProgramClass][] {
    return this.words('progs').flatMap(name => {
      const type = PROGRAM_CLASSES[name]
      return type === undefined ? [] : [[name, type] satisfies [string, ProgramClass]]
    })
  }
}

type Rule = (view: RightsView) => Iterable<LintFinding>

function finding(
  severity: LintFinding['severity'],
  rule: string,
  path: string,
  message: string,
  fix: string,
) {
  return { rule, severity, path, message, fix } satisfies LintFinding
}

const warning = finding.bind(null, 'warning')
const note = finding.bind(null, 'note')

const CMDS = 'spec.rights.cmds'
const MAPS = 'spec.rights.maps'
const PROGS = 'spec.rights.progs'
const ATTACHS = 'spec.rights.attachs'
const CAPS = 'spec.rights.capabilities'
const SUBJECTS = 'spec.subjects'

function* nothingLent(view: RightsView): Iterable<LintFinding> {
  if (MASK_DOMAINS.every(domain => view.isEmpty(domain))) {
    yield warning(
      'nothing-lent',
      'spec.rights',
      'no rights: BPF_TOKEN_CREATE fails with ENOENT',
      'Lend a command.',
    )
  }
}

function* idleCommands(view: RightsView): Iterable<LintFinding> {
  if (view.isAny('cmds')) return
  const consulted: readonly string[] = TOKEN_COMMANDS
  for (const word of view.words('cmds')) {
    if (consulted.includes(word)) continue
    yield warning(
      'idle-command',
      CMDS,
      `the kernel never consults ${word}; a token takes ${TOKEN_COMMANDS.join(', ')} only`,
      `Remove ${word}.`,
    )
  }
}

/** A list of types and the command that uses it: either is idle without the other. */
function* commandsAndTypes(view: RightsView): Iterable<LintFinding> {
  const pairs = [
    ['map_create', 'maps', MAPS],
    ['prog_load', 'progs', PROGS],
  ] as const
  for (const [command, domain, path] of pairs) {
    const lent = view.has('cmds', command)
    if (lent && view.isEmpty(domain)) {
      const message = `${command} is lent, but no type under ${domain}`
      yield warning('command-without-types', path, message, `List ${domain}, or remove ${command}.`)
    } else if (!lent && !view.isEmpty(domain)) {
      const message = `${domain} are lent, but not the command ${command}`
      yield warning('types-without-command', CMDS, message, `Add ${command}, or remove ${domain}.`)
    }
  }
}

function* namelessBits(view: RightsView): Iterable<LintFinding> {
  for (const domain of MASK_DOMAINS) {
    const { leftover } = wordsOf(view.vocabulary, domain, view.policy.rights.masks[domain])
    if (leftover === undefined) continue
    const message = `${leftover} has no name in this kernel; a later kernel will give it a meaning`
    yield warning(
      'nameless-bits',
      `spec.rights.${domain}`,
      message,
      'Remove the bits, or name what is meant.',
    )
  }
}

/**
 * Attach bit 0 stands for "no expected attach type", which its name, cgroup_inet_ingress, does not
 * say.
 */
function* missingAttachs(view: RightsView): Iterable<LintFinding> {
  if (view.isAny('progs') && view.isEmpty('attachs')) {
    const message = 'no attach type is lent: no program can be loaded'
    yield warning('missing-attach', ATTACHS, message, 'List attach types.')
  }
  for (const [name, type] of view.programs()) {
    if (view.isAny('progs') || type.attachs.some(word => view.has('attachs', word))) continue
    if (type.attachs[0] === ATTACH_ZERO && name !== 'cgroup_skb') {
      const message = `${name} programs are checked against attach bit 0, called ${ATTACH_ZERO}, which is not lent`
      yield warning('attach-zero', ATTACHS, message, `Add ${ATTACH_ZERO}.`)
    } else {
      const known = type.attachs.filter(word => view.vocabulary.attachs.bitOfName.has(word))
      const message = `${name} is lent, but none of its attach types: no such program can be loaded`
      yield warning('missing-attach', ATTACHS, message, `Add what is needed of ${known.join(', ')}.`)
    }
  }
}

function* idleAttachs(view: RightsView): Iterable<LintFinding> {
  if (view.isAny('attachs') || view.isAny('progs')) return
  const progs = view.words('progs')
  // Fail safe: a program type that is not known here may use any attach type; so may struct_ops,
  // whose expected attach type is the index of a callback.
  if (progs.some(name => PROGRAM_CLASSES[name] === undefined || name === 'struct_ops')) return
  const used = new Set(view.programs().flatMap(([, type]) => type.attachs))
  const known = [...LINK_ONLY_ATTACHS, ...Object.values(PROGRAM_CLASSES).flatMap(type => type.attachs)]
  const attachable = new Set<string>(known)
  for (const word of view.words('attachs')) {
    if (used.has(word) || !attachable.has(word)) continue
    const message = `no program type that is lent uses the attach type ${word}`
    yield warning('idle-attach', ATTACHS, message, `Remove ${word}, or lend its program type.`)
  }
}

/** For each capability, the lent rights that it is needed for. */
function capabilityUsers(view: RightsView): Map<Capability, string[]> {
  const users = new Map<Capability, string[]>()
  const add = (capability: Capability, user: string) => {
    users.set(capability, [...(users.get(capability) ?? []), user])
  }
  for (const [name, type] of view.programs()) {
    for (const capability of [...type.capabilities, ...type.attachCapabilities]) add(capability, name)
  }
  for (const name of NET_ADMIN_MAPS) if (view.has('maps', name)) add('net_admin', name)
  if (view.has('cmds', 'btf_get_fd_by_id')) add('sys_admin', 'btf_get_fd_by_id')
  return users
}

function* missingCapabilities(view: RightsView): Iterable<LintFinding> {
  if (!view.lends('bpf')) {
    const message =
      "BPF_TOKEN_CREATE needs the capability bpf in the workload's namespace; sys_admin does not replace it"
    yield warning('missing-capability', CAPS, message, 'Add bpf.')
  }
  // sys_admin stands in for the others everywhere but in BPF_TOKEN_CREATE.
  if (view.lends('sys_admin')) return
  for (const [capability, users] of capabilityUsers(view)) {
    if (view.lends(capability)) continue
    const message = `${users.join(', ')} cannot be used without the capability ${capability}`
    yield warning('missing-capability', CAPS, message, `Add ${capability}, or remove ${users.join(', ')}.`)
  }
}

/** What a capability is good for besides the types that need it. */
const OTHER_USES: Readonly<Record<Exclude<Capability, 'bpf'>, string>> = {
  net_admin: 'network programs and maps',
  perfmon: 'tracing programs, and helpers such as probe_read_kernel, get_current_task and trace_printk',
  sys_admin: 'btf_get_fd_by_id and probe_write_user',
}

function* idleCapabilities(view: RightsView): Iterable<LintFinding> {
  const users = capabilityUsers(view)
  for (const capability of ['net_admin', 'perfmon', 'sys_admin'] as const) {
    if (!view.lends(capability) || users.has(capability)) continue
    const message = `nothing that is lent needs ${capability}, which is for ${OTHER_USES[capability]}`
    yield warning('idle-capability', CAPS, message, `Remove ${capability}, unless a helper needs it.`)
  }
}

function* unusableRights(view: RightsView): Iterable<LintFinding> {
  const multi = ['trace_kprobe_multi', 'trace_kprobe_session', 'trace_uprobe_multi', 'trace_uprobe_session']
  if (view.has('progs', 'kprobe') && !multi.some(word => view.has('attachs', word))) {
    yield warning(
      'unusable-kprobe',
      ATTACHS,
      'kprobe programs load, but perf-based attachment needs a capability on the host (EACCES)',
      'Add trace_kprobe_multi or trace_uprobe_multi, or remove kprobe.',
    )
  }
  if (view.has('maps', 'perf_event_array') && !view.isAny('maps')) {
    yield warning(
      'unusable-perf-ring',
      MAPS,
      'a perf_event_array can be made, but opening its per-CPU output events is refused (EACCES)',
      'Use ringbuf instead of perf_event_array.',
    )
  }
}

/** libbpf probes features with the token, and takes a refused feature for a missing one. */
function* libbpfProbes(view: RightsView): Iterable<LintFinding> {
  if (!view.has('cmds', 'prog_load') || view.isEmpty('progs')) return
  const trivial =
    (view.has('progs', 'socket_filter') || view.has('progs', 'tracepoint')) &&
    view.has('attachs', ATTACH_ZERO)
  if (!trivial) {
    yield note(
      'libbpf-trivial-program',
      PROGS,
      'libbpf up to 1.7 first loads a trivial socket_filter or tracepoint program and gives up when it cannot',
      `For unmodified libbpf loaders add socket_filter to progs and ${ATTACH_ZERO} to attachs.`,
    )
  }
  if (!view.has('cmds', 'btf_load')) {
    yield note(
      'libbpf-btf',
      CMDS,
      'without btf_load libbpf drops the BTF of maps and programs',
      'For unmodified libbpf loaders add btf_load.',
    )
  }
  if (!view.has('cmds', 'map_create') || !view.has('maps', 'array')) {
    yield note(
      'libbpf-global-data',
      MAPS,
      'without map_create and array libbpf finds no support for global data',
      'For unmodified libbpf loaders add map_create to cmds and array to maps.',
    )
  }
}

/**
 * The guard compares targets when a program is loaded; these types have none until they are
 * attached.
 */
const TARGET_AT_ATTACHMENT = [
  'kprobe',
  'tracepoint',
  'raw_tracepoint',
  'raw_tracepoint_writable',
  'perf_event',
]

function* targetsAtAttachment(view: RightsView): Iterable<LintFinding> {
  if (view.policy.targets.functions === 'any') return
  const free = TARGET_AT_ATTACHMENT.filter(name => view.has('progs', name)).join(', ')
  if (free === '') return
  yield warning(
    'unheld-targets',
    'spec.targets.functions',
    `${free} choose their target only when attached, where the list of functions does not hold them`,
    `Remove ${free} from progs, or trace with the type tracing instead.`,
  )
}

function* irrevocable(view: RightsView): Iterable<LintFinding> {
  if (view.policy.revocable) return
  yield note(
    'irrevocable',
    'spec.revocable',
    'attachments that no link holds are allowed: they outlive the workload, and revoking cannot undo them',
    'Say revocable: true, unless the workload attaches without links.',
  )
}

function* unrecordedUse(view: RightsView): Iterable<LintFinding> {
  if (view.policy.mode !== 'permissive' || view.policy.events !== 'none') return
  yield warning(
    'permissive-without-events',
    'spec.events',
    'permissive lets through what it records, but with events: none nothing is recorded',
    'Say events: refused, or mode: enforce.',
  )
}

function* noSubjects(view: RightsView): Iterable<LintFinding> {
  const { subjects } = view.policy
  if (subjects === undefined) {
    yield note(
      'no-subjects',
      SUBJECTS,
      'nobody is named: only root can lend under this policy, by naming the file, and then to anybody',
      'Add the users, cgroups or units that may get it.',
    )
  } else if (subjects.length === 0) {
    yield warning(
      'nobody',
      SUBJECTS,
      'the list of subjects is empty: nobody gets this delegation',
      'Name who may get it, or leave subjects out to let root decide.',
    )
  }
}

function* approvalOfRootAlone(view: RightsView): Iterable<LintFinding> {
  const { approval, subjects } = view.policy
  if (approval === 'none' || (subjects !== undefined && subjects.length > 0)) return
  yield note(
    'approval-of-root',
    'spec.approval',
    'root alone can lend under this policy, and root is who approves: nobody ever waits',
    'Name subjects that may ask for it, or say approval: none.',
  )
}

/** Entries that match nobody, and entries that match more than they seem to. */
function* doubtfulSubjects(view: RightsView): Iterable<LintFinding> {
  for (const [i, entry] of (view.policy.subjects ?? []).entries()) {
    const path = `${SUBJECTS}[${i}]`
    if (entry.kubernetes?.serviceAccount !== undefined)
      yield warning(
        'unsupported-subject',
        `${path}.kubernetes.serviceAccount`,
        'the service account of a pod cannot be known here yet: this entry matches nobody',
        "Name the pod's namespace and labels instead.",
      )
    const { user, unit, cgroup } = entry
    if (unit !== undefined && !/(\*|\.(service|scope|socket|mount|swap))$/.test(unit)) {
      yield warning(
        'not-a-unit',
        `${path}.unit`,
        `no process is in a unit called ${unit}: their names end in .service, .scope, .socket, .mount or .swap`,
        `Write ${unit}.service, if that is what is meant.`,
      )
    }
    if (user === 'nobody' || user === OVERFLOW_ID) {
      yield note(
        'shared-user',
        `${path}.user`,
        'nobody is the user of everything that has none, of unmapped ids too: whoever runs as it gets this delegation',
        'Give the workload a user of its own.',
      )
    }
    if (cgroup?.startsWith('/**/') && Object.keys(entry).length === 1) {
      yield note(
        'nameable-cgroup',
        `${path}.cgroup`,
        'who may make cgroups of its own, as users and containers may below theirs, can make one that matches',
        'Begin the path with the slice that only root fills, such as /system.slice.',
      )
    }
    if (entry.executable !== undefined && Object.keys(entry).length === 1) {
      yield note(
        'executable-alone',
        `${path}.executable`,
        'it is known of what `run` starts alone, and whoever may have that started controls it by its arguments: it gets this delegation',
        'Name its user or unit in the same entry; for `delegate` and `derive`, in an entry without executable.',
      )
    }
    if (entry.container !== undefined && entry.kubernetes === undefined) {
      yield note(
        'any-namespace',
        `${path}.container`,
        'whoever may make a pod, in any namespace, chooses what its containers are called and made of: it gets this delegation',
        'Name the namespace of the pod in the same entry, where this machine has pods.',
      )
    }
  }
}

/** What the kernel shows for an id that is not mapped (fs.overflowuid), and the id of nobody. */
const OVERFLOW_ID = 65534

function* unenforcedFields(view: RightsView): Iterable<LintFinding> {
  if (view.policy.guard === 'required') return
  for (const { path, reason } of guardNeeds(view.policy)) {
    yield note(
      'unenforced-without-guard',
      path,
      `not enforced where the guard cannot run: ${reason}`,
      'Say guard: required to have it refused there.',
    )
  }
}

const RULES: readonly Rule[] = [
  nothingLent,
  idleCommands,
  commandsAndTypes,
  namelessBits,
  missingAttachs,
  idleAttachs,
  missingCapabilities,
  idleCapabilities,
  unusableRights,
  libbpfProbes,
  targetsAtAttachment,
  irrevocable,
  unrecordedUse,
  noSubjects,
  approvalOfRootAlone,
  doubtfulSubjects,
  unenforcedFields,
]
