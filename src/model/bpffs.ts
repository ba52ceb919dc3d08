/**
 * fsopen(2), fsconfig(2), fsmount(2) and mount(2) of bpffs: who may say what is delegated, and who
 * may create and mount it.
 */
import { parseMountValue } from '../policy/mask-text.ts'
import { MASK_DOMAINS, type MaskDomain, type Masks } from '../policy/vocabulary.ts'
import { capable, initialText } from './bpf-call.ts'
import type { BpffsInstance } from './file.ts'
import type { Judge, Rule } from './judge.ts'
import type { Machine } from './machine.ts'
import { hasHostId, hostId, INITIAL, nsCapable, type Task, type UserNamespace } from './task.ts'

/** One fs context: what fsopen(2) returns. */
export interface FsContext {
  /** That of the task which called fsopen(2). It becomes that of the superblock. */
  readonly userNamespace: UserNamespace
  readonly phase: 'options' | 'created' | 'mounted' | 'failed'
  readonly masks: Masks
  readonly hasSource: boolean
}

export interface FsOpen {
  readonly op: 'fsopen'
}

/** One option by fsconfig(2). */
export interface FsSet {
  readonly op: 'fsconfig_set'
  readonly context: FsContext
  readonly key: string
  /** Absent: the option is set as a flag. */
  readonly value?: string
}

export interface FsCreate {
  readonly op: 'fsconfig_create'
  readonly context: FsContext
}

export interface FsMount {
  readonly op: 'fsmount'
  readonly context: FsContext
}

/** mount(2) with these options, to a place that exists. */
export interface Mount {
  readonly op: 'mount'
  readonly options: readonly { readonly key: string; readonly value?: string }[]
}

export const NO_MASKS: Masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }

export const BPFFS_RULES = {
  mayMount: {
    name: 'fsopen, fsmount, mount: CAP_SYS_ADMIN over the mount namespace',
    needs: 'CAP_SYS_ADMIN in the user namespace that owns the caller’s mount namespace',
    source: 'may_mount',
    errno: 'EPERM',
  },
  setPhase: {
    name: 'fsconfig: options before creation',
    needs: 'a context whose superblock has not been created',
    source: 'vfs_fsconfig_locked',
    errno: 'EBUSY',
  },
  source: {
    name: 'fsconfig: one source',
    needs: 'a source that was not named before, and a value',
    source: 'vfs_parse_fs_param_source',
    errno: 'EINVAL',
  },
  value: {
    name: 'fsconfig: value of delegate_*',
    needs: 'words of this kernel, "any" or masks, with ":" between them',
    source: 'bpf_parse_param',
    errno: 'EINVAL',
  },
  delegate: {
    name: 'fsconfig: CAP_SYS_ADMIN of the host for delegate_*',
    needs: 'CAP_SYS_ADMIN in the initial user namespace, for a mask that is not empty',
    source: 'bpf_parse_param',
    errno: 'EPERM',
  },
  id: {
    name: 'fsconfig: uid and gid',
    needs: 'a user of the caller’s namespace that the bpffs’s namespace knows, too',
    source: 'bpf_parse_param',
    errno: 'EINVAL',
  },
  mode: {
    name: 'fsconfig: mode',
    needs: 'an octal number',
    source: 'bpf_parse_param',
    errno: 'EINVAL',
  },
  createPhase: {
    name: 'fsconfig CREATE: once',
    needs: 'a context whose superblock has not been created',
    source: 'vfs_fsconfig_locked',
    errno: 'EBUSY',
  },
  mountCapable: {
    name: 'fsconfig CREATE: CAP_SYS_ADMIN over the bpffs',
    needs: 'CAP_SYS_ADMIN in the user namespace of the bpffs',
    source: 'mount_capable',
    errno: 'EPERM',
  },
  fillSuper: {
    name: 'fsconfig CREATE: CAP_SYS_ADMIN of the host',
    needs: 'CAP_SYS_ADMIN in the initial user namespace, for a bpffs of another one',
    source: 'bpf_fill_super',
    errno: 'EPERM',
  },
  mountRoot: {
    name: 'fsmount: superblock',
    needs: 'a context whose superblock was created',
    source: 'fsmount',
    errno: 'EINVAL',
  },
  mountOnce: {
    name: 'fsmount: once',
    needs: 'a context that was not mounted before',
    source: 'fsmount',
    errno: 'EBUSY',
  },
} as const satisfies Record<string, Rule>

export function mayMountFails(judge: Judge, task: Task): boolean {
  const ns = task.mountOwner ?? task.userNamespace
  const may = nsCapable(judge, task, ns, 'sys_admin')
  const found = `a mount namespace of ${ns.name}, a task of ${task.userNamespace.name}`
  return judge.fails(BPFFS_RULES.mayMount, may, found)
}

/** The context that is opened, or undefined where it is refused. */
export function fsOpen(judge: Judge, task: Task): FsContext | undefined {
  if (mayMountFails(judge, task)) return undefined
  return { userNamespace: task.userNamespace, phase: 'options', masks: NO_MASKS, hasSource: false }
}

/** The context as it is afterwards. What fails changes nothing. */
export function fsSet(judge: Judge, machine: Machine, task: Task, call: FsSet): FsContext {
  const { context } = call
  const { phase } = context
  const open = phase === 'options' || phase === 'mounted'
  if (judge.fails(BPFFS_RULES.setPhase, open, phase)) return context
  const next = optionSet(judge, machine, task, call)
  // A context that was mounted takes options of a reconfiguration, which come to nothing.
  return phase === 'options' ? next : context
}

function optionSet(judge: Judge, machine: Machine, task: Task, call: FsSet): FsContext {
  const { context, key, value } = call
  if (key === 'source') {
    const found = context.hasSource ? 'named before' : 'not named before'
    const once = value !== undefined && !(context.hasSource && context.phase === 'options')
    return judge.fails(BPFFS_RULES.source, once, found) ? context : { ...context, hasSource: true }
  }
  // Without tokens bpffs knows `mode` alone, and ignores all else.
  if (!machine.kernel.hasTokens && key !== 'mode') return context
  const domain = MASK_DOMAINS.find(name => key === `delegate_${name}`)
  if (domain !== undefined) return delegated(judge, machine, task, context, domain, value)
  if (key === 'uid' || key === 'gid') {
    const known = isKnownId(task, context, value)
    judge.fails(BPFFS_RULES.id, known, known ? 'known to both' : `${value}, not known to both`)
  } else if (key === 'mode') {
    const octal = value !== undefined && /^[0-7]+$/.test(value)
    judge.fails(BPFFS_RULES.mode, octal, value ?? 'no value')
  }
  return context
}

function isKnownId(task: Task, context: FsContext, value: string | undefined): boolean {
  if (value === undefined || !/^[0-9]+$/.test(value)) return false
  const host = hostId(task.userNamespace, Number(value))
  return host !== undefined && hasHostId(context.userNamespace, host)
}

function delegated(
  judge: Judge,
  machine: Machine,
  task: Task,
  context: FsContext,
  domain: MaskDomain,
  value: string | undefined,
): FsContext {
  const parsed =
    value === undefined || value === ''
      ? { ok: false as const, errno: 'EINVAL' as const, message: 'no value' }
      : parseMountValue(machine.kernel.vocabulary, domain, value)
  const found = parsed.ok ? `0x${parsed.mask.toString(16)}` : parsed.message
  const errno = parsed.ok ? undefined : parsed.errno
  if (judge.fails(BPFFS_RULES.value, parsed.ok, found, undefined, errno)) return context
  const mask = parsed.ok ? parsed.mask : 0n
  const may = mask === 0n || capable(judge, task, 'sys_admin')
  if (judge.fails(BPFFS_RULES.delegate, may, () => initialText(task, 'sys_admin'))) return context
  return { ...context, masks: { ...context.masks, [domain]: context.masks[domain] | mask } }
}

/** The context as it is afterwards. */
export function fsCreate(judge: Judge, { kernel }: Machine, task: Task, { context }: FsCreate): FsContext {
  if (judge.fails(BPFFS_RULES.createPhase, context.phase === 'options', context.phase)) return context
  const ns = context.userNamespace
  // Before tokens, bpffs was mounted by the host alone, and for the host.
  const over = kernel.hasTokens ? nsCapable(judge, task, ns, 'sys_admin') : capable(judge, task, 'sys_admin')
  const who = `a task of ${task.userNamespace.name}, a bpffs of ${ns.name}`
  if (judge.fails(BPFFS_RULES.mountCapable, over, who)) return context
  const may = ns === INITIAL || (kernel.hasTokens && capable(judge, task, 'sys_admin'))
  const failed = judge.fails(BPFFS_RULES.fillSuper, may, () => initialText(task, 'sys_admin'))
  return { ...context, phase: failed ? 'failed' : 'created' }
}

/** The context as it is afterwards; its phase is `mounted` where that went well. */
export function fsMount(judge: Judge, task: Task, { context }: FsMount): FsContext {
  if (mayMountFails(judge, task)) return context
  const has = context.phase === 'created' || context.phase === 'mounted'
  if (judge.fails(BPFFS_RULES.mountRoot, has, context.phase)) return context
  if (judge.fails(BPFFS_RULES.mountOnce, context.phase === 'created', context.phase)) return context
  return { ...context, phase: 'mounted' }
}

/** The bpffs that mount(2) makes, or undefined where it is refused. */
export function mount(
  judge: Judge,
  machine: Machine,
  task: Task,
  { options }: Mount,
): BpffsInstance | undefined {
  if (mayMountFails(judge, task)) return undefined
  let context: FsContext = {
    userNamespace: task.userNamespace,
    phase: 'options',
    masks: NO_MASKS,
    hasSource: true,
  }
  for (const option of options) {
    context = fsSet(judge, machine, task, { op: 'fsconfig_set', context, ...option })
    if (judge.hasFailed) return undefined
  }
  context = fsCreate(judge, machine, task, { op: 'fsconfig_create', context })
  return judge.hasFailed ? undefined : { userNamespace: context.userNamespace, masks: context.masks }
}
