/** Who calls: user namespaces, credentials, and whether a task is capable. */
import type { Judge, Rule } from './judge.ts'

/** The capabilities that the calls of the model ask for, in lower case without `CAP_`. */
export const MODEL_CAPABILITIES = [
  'bpf',
  'net_admin',
  'perfmon',
  'sys_admin',
  'dac_override',
  'dac_read_search',
] as const
export type ModelCapability = (typeof MODEL_CAPABILITIES)[number]

export interface UserNamespace {
  /** For people. */
  readonly name: string
  /** Absent: this is the initial one. */
  readonly parent?: UserNamespace
  /** The user, by its number in the initial namespace, who made it. */
  readonly owner: number
  /** How many stand above it. */
  readonly level: number
  /** Its users, by their numbers inside and in the initial namespace. */
  readonly ids: readonly IdRange[]
}

export interface IdRange {
  readonly inside: number
  readonly host: number
  readonly count: number
}

/** The largest number is no user. */
const ALL_IDS = [{ inside: 0, host: 0, count: 0xffff_ffff }]
export const INITIAL: UserNamespace = { name: 'init', owner: 0, level: 0, ids: ALL_IDS }

/** A user namespace that `owner` makes inside of `parent`. Absent `ids`: those of its parent. */
export function nestedIn(
  parent: UserNamespace,
  name: string,
  owner: number,
  ids: readonly IdRange[] = parent.ids,
): UserNamespace {
  return { name, parent, owner, level: parent.level + 1, ids }
}

/** The number in the initial namespace of a user inside; undefined: there is none. */
export function hostId(ns: UserNamespace, inside: number): number | undefined {
  const range = ns.ids.find(({ inside: first, count }) => inside >= first && inside - first < count)
  return range === undefined ? undefined : range.host + inside - range.inside
}

/** Whether a user, by its number in the initial namespace, has one inside. */
export function hasHostId(ns: UserNamespace, host: number): boolean {
  return ns.ids.some(range => host >= range.host && host - range.host < range.count)
}

export interface Task {
  readonly userNamespace: UserNamespace
  /** Effective user, by its number in the initial namespace. */
  readonly uid: number
  /** Effective group, likewise; absent: of the same number as the user. Of others the model knows nothing. */
  readonly gid?: number
  /** Effective, over `userNamespace`. */
  readonly capabilities: ReadonlySet<ModelCapability>
  /** The user namespace that owns its mount namespace; absent: its own. */
  readonly mountOwner?: UserNamespace
  /** What its seccomp filter answers to bpf(2); absent: it lets it through. */
  readonly seccomp?: 'EPERM' | 'ENOSYS' | 'EACCES'
}

export const CAPABLE_RULES = {
  inNamespace: {
    name: 'cap_capable: effective set',
    needs: 'the capability in the effective set, in the namespace that is asked about',
    source: 'cap_capable',
  },
  owner: {
    name: 'cap_capable: owner of a namespace right below',
    needs: 'being the user who made the namespace, and being in the one above it',
    source: 'cap_capable',
  },
  sysAdmin: {
    name: 'bpf_ns_capable: CAP_SYS_ADMIN stands in',
    needs: 'CAP_SYS_ADMIN, which stands in for the newer capabilities',
    source: 'bpf_ns_capable',
  },
} as const satisfies Record<string, Rule>

/** ns_capable(): whether the task has the capability over a namespace. */
export function nsCapable(judge: Judge, task: Task, ns: UserNamespace, capability: ModelCapability): boolean {
  const own = task.userNamespace
  for (let at: UserNamespace = ns; ; at = at.parent!) {
    if (at === own) return judge.part(CAPABLE_RULES.inNamespace, task.capabilities.has(capability))
    // Of a namespace that is neither the caller's own nor below it, the way up ends here.
    if (at.parent === undefined) return false
    if (at.parent === own && judge.part(CAPABLE_RULES.owner, at.owner === task.uid)) return true
  }
}

/** bpf_ns_capable(): the same, or CAP_SYS_ADMIN instead. */
export function bpfNsCapable(
  judge: Judge,
  task: Task,
  ns: UserNamespace,
  capability: ModelCapability,
): boolean {
  return (
    nsCapable(judge, task, ns, capability) ||
    (capability !== 'sys_admin' &&
      judge.part(CAPABLE_RULES.sysAdmin, nsCapable(judge, task, ns, 'sys_admin')))
  )
}

/** What a task has over a namespace, for people. */
export function capabilitiesText(task: Task, ns: UserNamespace): string {
  if (task.userNamespace === ns)
    return `${[...task.capabilities].map(capabilityText).join(', ') || 'no capability'} in user namespace ${ns.name}`
  return `a task of user namespace ${task.userNamespace.name}`
}

/** `CAP_NET_ADMIN` */
export function capabilityText(capability: string): string {
  return `CAP_${capability.toUpperCase()}`
}
