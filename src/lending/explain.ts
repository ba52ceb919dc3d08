/**
 * Why a call of bpf(2) is refused to a process, and what it lacks: the kernel model, asked with what
 * is really there. Pure.
 */

import type { BpffsMount } from '../ebpf/bpffs.ts'
import { printable } from '../ebpf/printable.ts'
import { type Need, neededCapabilities } from '../ebpf/rights.ts'
import { ATTACH_TYPES, MAP_TYPES, PROG_TYPES } from '../ebpf/type-names.ts'
import { perfmonHint, summarize } from '../ebpf/verifier-log.ts'
import type { GuardEvent } from '../guard/event.ts'
import type { GuardDelegation } from '../guard/guard.ts'
import { CALL_RULES } from '../model/bpf-call.ts'
import { type BpfCall, decide } from '../model/decide.ts'
import type { BpffsInstance } from '../model/file.ts'
import type { Check, Decision, ErrnoName } from '../model/judge.ts'
import type { KernelFacts } from '../model/kernel.ts'
import type { Machine } from '../model/machine.ts'
import { MAP_RULES } from '../model/map-create.ts'
import { INITIAL, MODEL_CAPABILITIES, type ModelCapability, nestedIn, type Task } from '../model/task.ts'
import type { PolicyEdit } from '../policy/edit.ts'
import { parseMountValue } from '../policy/mask-text.ts'
import { MASK_DOMAINS, type MaskDomain } from '../policy/vocabulary.ts'
import { bpf_map_flags, bpf_map_type, bpf_prog_type } from '../uapi/bpf.ts'
import { DEFAULT_BPFFS } from '../uapi/kernel-paths.ts'
import { closedBpffs, foreignBpffs, isSamePath } from './causes/bpffs-place.ts'
import type { Finding } from './causes/finding.ts'
import { guardBehind, guardOnCall, guardOnToken, lendsCapability } from './causes/guard.ts'
import { fullOfDescriptors, limitBehind, memlockNote } from './causes/limits.ts'
import { loaderText, oldLoader } from './causes/loader.ts'
import { lossNote } from './causes/next-program.ts'
import { lockdownBehind, modulesText } from './causes/security-modules.ts'
import { threadsNote } from './causes/threads.ts'
import { explainEvent } from './explain-event.ts'
import type { Situation } from './situation.ts'

export type Cause =
  | 'none'
  /** Its process had ended. */
  | 'unknown'
  | 'no-delegation'
  | 'no-token'
  | 'old-loader'
  /** A token is asked of what is no bpffs. */
  | 'token-place'
  | 'initial-namespace'
  | 'foreign-mounts'
  | 'foreign-bpffs'
  | 'hidden-bpffs'
  | 'closed-bpffs'
  | 'token-command'
  | 'token-map-type'
  | 'token-prog-type'
  | 'token-attach-type'
  | 'capability'
  /** No token stands in for it. */
  | 'host-only'
  | 'not-bpffs'
  | 'closed-directory'
  | 'closed-pin'
  | 'foreign-user'
  | 'seccomp'
  | 'kernel'
  /** And the guard's reason. */
  | `guard-${string}`
  | 'lockdown'
  | 'security-module'
  | 'descriptor-limit'
  | 'memory-limit'
  | 'memory'
  | 'verifier'
  | 'request'

/** A line of a policy: this word in that list. */
export interface PolicyLine {
  readonly list: MaskDomain | 'capabilities'
  readonly word: string
}

export interface Explanation {
  /** `map_create hash` */
  readonly call: string
  readonly verdict: 'ok' | 'refused'
  readonly errno: string | undefined
  readonly cause: Cause
  readonly needed: string
  readonly found: string
  /** The capabilities that the call needs, wherever they are asked for. */
  readonly capabilities: readonly string[]
  /** What would allow it, or bring the next cause to light, where it is a matter of the policy. */
  readonly policy: PolicyLine | undefined
  /** The same, of a field of it that is not such a list. */
  readonly edit?: PolicyEdit
  /** What is no cause, though it is often taken for one; what was not looked at. */
  readonly notes: readonly string[]
  /** The bpffs of which a token is made; undefined: there is none. */
  readonly bpffs: string | undefined
  /** All checks of the call in the kernel's order. */
  readonly checks: readonly Check[]
}

/** How a call was answered. */
export interface BpfRefusal {
  readonly errno: string | undefined
  /** False: something before the kernel's function has answered. */
  readonly reached: boolean
}

/** What was seen of a call that was made; see src/record/call.ts. */
export interface Observed extends BpfRefusal {
  readonly withToken: boolean
  /** Of a map or program, all of them. */
  readonly objectFlags?: number
  /** What the guard has recorded of it. */
  readonly event?: GuardEvent | undefined
  /** Of a program, the end of what the verifier said. */
  readonly log?: string | undefined
}

/** `prog_load xdp attach tcx_ingress` */
export function callText({ cmd, mapType, progType, attachType }: Need): string {
  const map = mapType === undefined ? '' : ` ${MAP_TYPES.word(mapType)}`
  const prog = progType === undefined ? '' : ` ${PROG_TYPES.word(progType)}`
  const attach = attachType === undefined ? '' : ` ${ATTACH_TYPES.word(attachType)}`
  return `${cmd}${map}${prog}${attach}`
}

const FILTERED = 'a seccomp filter is on: what it answers to bpf(2) is not known'

/** Where a loader does not look by itself. */
function elsewhere({ mounts, tokenPath, isInitial }: Situation): string | undefined {
  const path = mounts.at(-1)?.path
  if (path === undefined || isInitial || isSamePath(path, tokenPath ?? DEFAULT_BPFFS)) return undefined
  const looks = tokenPath === undefined ? DEFAULT_BPFFS : `${tokenPath}, as LIBBPF_BPF_TOKEN_PATH says`
  return `a loader looks at ${looks}: for ${path} tell it LIBBPF_BPF_TOKEN_PATH=${path}`
}

/** What is said of a process whose mounts were not all looked at. */
const CUT = 'it has more mounts than are looked at: of a bpffs among the last ones nothing is known'

/**
 * What the kernel says to the call, by a process in that situation, with the token that it can make.
 * `observed`: what it has really said.
 */
export function explainCall(
  kernel: KernelFacts,
  situation: Situation,
  need: Need,
  observed?: Observed,
): Explanation {
  const explained = explainWith(kernel, situation, need, observed)
  // The model knows no filter, and what this one says nobody knows before.
  if (observed === undefined && situation.filtered)
    return {
      ...explained,
      checks: explained.checks.filter(({ rule }) => rule.name !== CALL_RULES.seccomp.name),
    }
  const isUnclear = explained.cause === 'security-module' && observed?.withToken === true
  return (isUnclear ? otherToken(kernel, situation, need, observed) : undefined) ?? explained
}

/**
 * Of which bpffs a token was made, nobody has seen. Where the one that it should be of covers the call,
 * and another does not, it is of that one. Undefined: none of them explains it.
 */
function otherToken(
  kernel: KernelFacts,
  situation: Situation,
  need: Need,
  observed: Observed,
): Explanation | undefined {
  for (const mount of situation.mounts.slice(0, -1).toReversed()) {
    const mounts = [...situation.mounts.filter(one => one !== mount), mount]
    const alone = { ...situation, mounts, place: undefined, guard: undefined }
    const explained = explainWith(kernel, alone, need, observed)
    if (!explained.cause.startsWith('token-')) continue
    const note = `a token of ${situation.mounts.at(-1)!.path} covers it: it must be one of ${mount.path}`
    return { ...explained, notes: [...explained.notes, note] }
  }
  return undefined
}

function explainWith(
  kernel: KernelFacts,
  situation: Situation,
  need: Need,
  observed: Observed | undefined,
): Explanation {
  const { guard } = situation
  const lent = MODEL_CAPABILITIES.filter(name => guard === undefined || lendsCapability(guard, name))
  const machine: Machine = {
    kernel,
    unprivilegedBpfDisabled: situation.unprivilegedBpfDisabled,
    ...(lent.length === MODEL_CAPABILITIES.length
      ? {}
      : { lsm: { bpf_token_capable: 'EPERM' }, lsmLends: new Set(lent) }),
  }
  const own = situation.isInitial ? INITIAL : nestedIn(INITIAL, situation.userNamespace, situation.ownerUid)
  const task: Task = {
    userNamespace: own,
    uid: situation.uid,
    capabilities: new Set<ModelCapability>(situation.capabilities),
  }
  const mount = situation.mounts.at(-1)
  const refused = observed?.errno === 'EPERM'
  const memlock = refused && situation.limits !== undefined ? memlockNote(situation.limits) : undefined
  const cut = situation.mountsCut ? CUT : undefined
  const base: Base = {
    call: callText(need),
    capabilities: neededCapabilities(need),
    bpffs: mount?.path,
    notes: [
      memlock,
      cut,
      ...(observed === undefined ? foretoldNotes(need, situation) : []),
      observed?.withToken === true ? undefined : elsewhere(situation),
    ].filter(note => note !== undefined),
  }
  if (observed?.reached === false && observed.errno !== undefined)
    return {
      ...{ ...base, verdict: 'refused', errno: observed.errno, cause: 'seccomp', policy: undefined },
      needed: 'a seccomp filter that lets bpf(2) through',
      found: `the call ended with ${observed.errno} before the kernel's bpf(2) was asked`,
      checks: [],
    }
  const instance: BpffsInstance | undefined =
    mount === undefined ? undefined : { userNamespace: own, masks: masksOf(kernel, mount.delegation) }
  const without = decide(machine, task, modelCall(need, undefined, observed))
  const asked = { need, situation, base, observed }
  if (instance === undefined) return judged(without, without, asked)
  // Whoever needs no token makes none.
  if (without.verdict === 'refused') {
    const closed = bpffsFinding(situation, mount!.path)
    if (closed !== undefined) return found(closed, [], asked)
  }
  const making = decide(machine, task, {
    op: 'token_create',
    bpffs: { kind: 'bpffs', instance, isRoot: true },
  })
  if (making.verdict === 'ok' && without.verdict === 'refused' && guard !== undefined) {
    const unmade = guardOnToken(guard, situation.where)
    if (unmade !== undefined && observed?.withToken !== true) return found(unmade, making.checks, asked)
  }
  const used =
    making.verdict === 'refused' ? without : decide(machine, task, modelCall(need, instance, observed))
  const shown = making.verdict === 'refused' && without.verdict === 'refused' ? making : used
  if (making.verdict === 'ok' && observed?.withToken !== true && isForWantOfToken(without, used, asked)) {
    const unnamed = unnamedToken(asked, mount!.path)
    if (unnamed !== undefined) return found(unnamed, without.checks, asked)
  }
  if (used.verdict === 'ok' && without.verdict === 'refused' && guard !== undefined) {
    const kept = guardOnCall(guard, situation.where, need)
    if (kept !== undefined && (observed === undefined || observed.errno !== undefined))
      return found(kept, used.checks, asked)
  }
  return judged(shown, used, asked)
}

/**
 * Whether the call is refused without a token, and one could help: that lends enough, or would with one
 * more line of the policy. What the policy lacks is asked for only once a token is named.
 */
function isForWantOfToken(without: Decision, used: Decision, { need, situation }: Asked): boolean {
  if (without.verdict !== 'refused' || without.errno !== 'EPERM') return false
  const failed = used.verdict === 'ok' ? undefined : used.checks.find(({ passed }) => !passed)
  return failed === undefined || policyLine(failed, need, situation) !== undefined
}

/** Why a call names no token, where one can be made of the bpffs at `path`. Undefined: it may yet. */
function unnamedToken({ situation, observed }: Asked, path: string): Finding | undefined {
  if (observed !== undefined && observed.errno !== 'EPERM') return undefined
  const { loader } = situation
  const old = oldLoader(loader)
  if (old !== undefined || observed === undefined) return old
  const known = loader === undefined ? '' : `; the loader is ${loaderText(loader)}`
  return {
    ...{ cause: 'no-token', errno: 'EPERM', needed: 'a token, named in the call' },
    found: `the call named none, although one can be made of ${path}${known}`,
  }
}

/** What may be otherwise once the call is made. */
function foretoldNotes(need: Need, situation: Situation): (string | undefined)[] {
  const { filtered, others, capabilities, kept } = situation
  return [
    filtered ? FILTERED : undefined,
    threadsNote(others),
    lossNote(capabilities, kept, neededCapabilities(need)),
  ]
}

type Base = Pick<Explanation, 'call' | 'capabilities' | 'bpffs' | 'notes'>

/** What an explanation is made of. */
interface Asked {
  readonly need: Need
  readonly situation: Situation
  readonly base: Base
  readonly observed: Observed | undefined
}

/** What is in the way of making a token of the bpffs, before its user asks for one. */
function bpffsFinding(situation: Situation, path: string): Finding | undefined {
  const { place, identity, capabilities, userNamespace } = situation
  if (place === undefined || identity === undefined) return undefined
  const foreign = foreignBpffs(path, place, userNamespace)
  // Nothing can be lent to it at another place either.
  const mounts = foreign && foreignMounts(situation)
  return mounts ?? closedBpffs(path, place, identity, capabilities) ?? foreign
}

/** Undefined: something can be mounted for it. */
function foreignMounts({ mountOwner, userNamespace }: Situation): Finding | undefined {
  if (mountOwner === undefined || mountOwner === userNamespace) return undefined
  return {
    ...{ cause: 'foreign-mounts', errno: 'EPERM' },
    needed: 'a mount namespace of its own, in which a bpffs can be mounted for it',
    found: `one of ${mountOwner}, and the process is in ${userNamespace}`,
  }
}

/** What is no check of the kernel model; `checks` are those that come before it. */
export function found(
  finding: Finding,
  checks: readonly Check[],
  { base, observed }: Pick<Asked, 'base' | 'observed'>,
): Explanation {
  const { errno, ...rest } = finding
  return {
    ...base,
    ...rest,
    ...{ verdict: 'refused', errno: observed?.errno ?? errno, policy: undefined },
    checks,
  }
}

function judged(shown: Decision, used: Decision, asked: Asked): Explanation {
  const { need, situation, base, observed } = asked
  if (used.verdict === 'ok') return allowed(used, asked)
  const failed = shown.checks.find(({ passed }) => !passed)!
  const { rule, needed, found } = failed
  const facts = {
    ...base,
    verdict: 'refused' as const,
    errno: observed?.errno ?? used.errno,
    checks: shown.checks,
  }
  if (rule.name === MAP_RULES.zeroSeed.name)
    return {
      ...{ ...facts, capabilities: ['CAP_SYS_ADMIN'], cause: 'host-only', needed, found },
      policy: undefined,
    }
  const line = policyLine(failed, need, situation)
  if (line !== undefined) {
    return {
      ...facts,
      ...{ cause: causeOf(line, situation), needed, found: foundOf(line, situation, found), policy: line },
    }
  }
  if (rule.errno !== 'EPERM' && rule.name !== 'TOKEN_CREATE: initial user namespace')
    return {
      ...facts,
      ...{ cause: /type$|unknown command/.test(rule.name) ? 'kernel' : 'request', needed, found },
      ...{
        policy: undefined,
      },
    }
  if (situation.isInitial)
    return {
      ...facts,
      ...{ cause: 'initial-namespace', needed, found, policy: undefined },
    }
  const foreign = foreignMounts(situation)
  if (foreign !== undefined) return { ...facts, ...foreign, errno: facts.errno, policy: undefined }
  const { hidden } = situation
  return {
    ...facts,
    ...{ cause: hidden.length === 0 ? 'no-delegation' : 'hidden-bpffs', policy: undefined },
    needed: 'a bpffs with a delegation, to make a token of',
    found:
      hidden.length === 0
        ? 'none is mounted where the process is'
        : `none that it can come to: something else is mounted over ${hidden.join(', ')}`,
  }
}

/** Rights are enough; what else has refused it, or would. */
function allowed(used: Decision, asked: Asked): Explanation {
  const { need, situation, base, observed } = asked
  const { checks } = used
  const { limits, modules, guard } = situation
  const errno = observed?.errno
  const facts = { ...base, errno, checks, policy: undefined }
  if (errno === undefined) {
    const full = observed === undefined && limits !== undefined ? fullOfDescriptors(limits) : undefined
    if (full !== undefined) return found(full, checks, asked)
    return {
      ...{ ...facts, verdict: 'ok', cause: 'none', needed: 'nothing more', found: 'rights and capabilities' },
    }
  }
  const finding =
    (observed?.event && recordedFinding(observed.event, errno, guard?.delegation)) ??
    (limits && limitBehind(errno, limits)) ??
    (guard && guardBehind(errno, guard, need)) ??
    lockdownBehind(modules.lockdown, observed?.log)
  if (finding !== undefined) return found(finding, checks, asked)
  if (need.cmd === 'prog_load' && VERIFIER.includes(errno)) {
    const said = observed?.log === undefined ? undefined : summarize(observed.log).summary
    return {
      ...{ ...facts, verdict: 'refused', cause: 'verifier' },
      needed: 'a program that the verifier accepts',
      found: said === undefined ? `rights that are enough, and ${errno}` : printable(said),
      ...perfmonFor(said, situation),
    }
  }
  if (errno === 'EPERM' || errno === 'EACCES' || modules.programs.length > 0)
    return {
      ...{ ...facts, verdict: 'refused', cause: 'security-module' },
      needed: 'security modules that allow it',
      found: `rights that are enough, and ${errno}; ${modulesText(modules)}`,
    }
  return {
    ...{ ...facts, verdict: 'refused', cause: 'request' },
    needed: 'a request that this kernel takes',
    found: `rights that are enough, and ${errno}`,
  }
}

/** What the guard has recorded of the call. */
export function recordedFinding(
  event: GuardEvent,
  errno: string,
  delegation: GuardDelegation | undefined,
): Finding {
  const state = delegation?.revoked === true ? 'revoked' : 'live'
  const known = delegation && {
    state: state as 'revoked' | 'live',
    capabilities: delegation.terms.rights.capabilities,
    limits: delegation.terms.limits,
    live: delegation.live,
    mapBytes: delegation.live.mapBytes,
  }
  const { cause, needed, found, edit } = explainEvent({ ...event, count: 1, holder: undefined }, known)
  return {
    ...{ cause: cause as Cause, errno: errno as ErrnoName, needed, found },
    ...(edit === undefined ? {} : { edit }),
  }
}

const VERIFIER = ['EACCES', 'EINVAL', 'E2BIG', 'ENOTSUPP', 'EOPNOTSUPP', 'ENOSPC']

/** The capability with which the verifier lets it pass, if that is all that it says. */
function perfmonFor(said: string | undefined, { capabilities, mounts }: Situation): { policy?: PolicyLine } {
  const isMissing = !capabilities.includes('perfmon') && mounts.length > 0
  if (said === undefined || !isMissing || perfmonHint(said) === undefined) return {}
  return { policy: { list: 'capabilities', word: 'perfmon' } }
}

/** What the token lends in that list, in the kernel's words; of capabilities what the model says. */
function foundOf({ list }: PolicyLine, { mounts }: Situation, found: string): string {
  const mount = mounts.at(-1)
  if (list === 'capabilities' || mount === undefined) return found
  return `${mount.path} lends ${list}: ${mount.delegation[list] || 'nothing'}`
}

/** The line of the policy by which the check would pass. */
function policyLine({ rule }: Check, need: Need, situation: Situation): PolicyLine | undefined {
  switch (rule.name) {
    case 'token: allows the command':
      return { list: 'cmds', word: need.cmd }
    case 'token: allows the map type':
      return { list: 'maps', word: MAP_TYPES.word(need.mapType!) }
    case 'token: allows the program type':
      return { list: 'progs', word: PROG_TYPES.word(need.progType!) }
    case 'token: allows the attach type': {
      const { progType, attachType = 0 } = need
      const fixed = ATTACH_TYPES.number(attachType) === 0 ? FIXED_UP[PROG_TYPES.word(progType!)] : undefined
      return { list: 'attachs', word: fixed ?? ATTACH_TYPES.word(attachType) }
    }
  }
  if (situation.mounts.length === 0 || situation.isInitial) return undefined
  const [, named] = /CAP_(BPF|NET_ADMIN|PERFMON|SYS_ADMIN)/.exec(rule.name) ?? []
  const capability =
    named?.toLowerCase() ?? (/unprivileged_bpf_disabled$/.test(rule.name) ? 'bpf' : undefined)
  return capability === undefined ? undefined : { list: 'capabilities', word: capability }
}

/** Which attach type the kernel checks where 0 is given. */
const FIXED_UP: Readonly<Record<string, string>> = {
  cgroup_sock: 'cgroup_inet_sock_create',
  sk_reuseport: 'sk_reuseport_select',
}

function causeOf({ list, word }: PolicyLine, { capabilities }: Situation): Cause {
  // It has it, and the token does not stand in for it.
  if (list === 'capabilities' && capabilities.some(one => one === word)) return 'guard-capability'
  const causes = {
    cmds: 'token-command',
    maps: 'token-map-type',
    progs: 'token-prog-type',
    attachs: 'token-attach-type',
    capabilities: 'capability',
  } as const
  return causes[list]
}

/** `observed`: with its flags, as far as these are more than a request that is good or not. */
function modelCall(need: Need, instance: BpffsInstance | undefined, observed?: Observed): BpfCall {
  const token =
    instance === undefined ? {} : { token: { flag: true, file: { kind: 'token', token: instance } as const } }
  const flags = (observed?.objectFlags ?? 0) & ~bpf_map_flags.BPF_F_TOKEN_FD
  switch (need.cmd) {
    case 'map_create': {
      const seed = flags & bpf_map_flags.BPF_F_ZERO_SEED
      return {
        op: 'map_create',
        type: MAP_TYPES.number(need.mapType ?? bpf_map_type.BPF_MAP_TYPE_HASH),
        ...(seed === 0 ? {} : { flags: seed }),
        ...token,
      }
    }
    case 'prog_load':
      return {
        op: 'prog_load',
        type: PROG_TYPES.number(need.progType ?? bpf_prog_type.BPF_PROG_TYPE_SOCKET_FILTER),
        attach: ATTACH_TYPES.number(need.attachType ?? 0),
        // Which flags there are, this kernel may know better.
        ...(observed?.errno === 'EINVAL' ? { flags } : {}),
        ...token,
      }
    case 'btf_load':
      return { op: 'btf_load', ...token }
    case 'btf_get_fd_by_id':
      return { op: 'btf_get_fd_by_id', exists: true, ...token }
  }
}

/** Whether it can make a token of the bpffs. */
export function makesToken(machine: Machine, task: Task, kernel: KernelFacts, mount: BpffsMount): boolean {
  const instance = { userNamespace: task.userNamespace, masks: masksOf(kernel, mount.delegation) }
  const bpffs = { kind: 'bpffs', instance, isRoot: true } as const
  return decide(machine, task, { op: 'token_create', bpffs }).verdict === 'ok'
}

/** What a bpffs lends. */
export function masksOf({ vocabulary }: KernelFacts, text: Readonly<Record<MaskDomain, string>>) {
  const masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  for (const domain of MASK_DOMAINS) {
    const parsed = text[domain] === '' ? undefined : parseMountValue(vocabulary, domain, text[domain])
    if (parsed?.ok === true) masks[domain] = parsed.mask
  }
  return masks
}
