/**
 * Why a call is refused for which the kernel asks no token: attaching, pins, and objects by their
 * numbers. The same model is asked as in explain.ts. Pure.
 */
import { ATTACH_TYPES } from '../ebpf/type-names.ts'
import { progTypeOf } from '../model/attach.ts'
import { type BpfCall, decide } from '../model/decide.ts'
import type { File, Program } from '../model/file.ts'
import type { Check, Decision } from '../model/judge.ts'
import type { KernelFacts } from '../model/kernel.ts'
import type { Machine } from '../model/machine.ts'
import { INITIAL, type ModelCapability, nestedIn, type Task, type UserNamespace } from '../model/task.ts'
import type { CapabilityName } from '../uapi/constants.ts'
import { guardOnAttach } from './causes/attachment.ts'
import { ownerText } from './causes/bpffs-place.ts'
import { closedWay, type PinPlace } from './causes/pin-place.ts'
import { modulesText } from './causes/security-modules.ts'
import {
  type Cause,
  type Explanation,
  found,
  makesToken,
  masksOf,
  type Observed,
  recordedFinding,
} from './explain.ts'
import type { Situation } from './situation.ts'

/** Of objects by their numbers, and what else is asked of the host alone. */
export const ID_CALLS = [
  ...(['prog_get_next_id', 'map_get_next_id', 'btf_get_next_id', 'link_get_next_id'] as const),
  ...(['prog_get_fd_by_id', 'map_get_fd_by_id', 'link_get_fd_by_id'] as const),
]
const ON_HOST = ['enable_stats', 'task_fd_query'] as const
export const HOST_CALLS = [...ID_CALLS, ...ON_HOST]
export const ATTACH_CALLS = ['link_create', 'prog_attach', 'prog_detach', 'prog_query'] as const
export const PIN_CALLS = ['obj_pin', 'obj_get'] as const

export type OtherCall =
  | { readonly cmd: (typeof HOST_CALLS)[number] | 'perf_event_open' }
  | {
      readonly cmd: (typeof ATTACH_CALLS)[number]
      readonly attachType: string | number
      /** Of the program, in the kernel's mount-option word; absent: the one that goes with that. */
      readonly progType?: string | undefined
    }
  | {
      readonly cmd: (typeof PIN_CALLS)[number]
      /** Where the process finds it. */
      readonly place: PinPlace
      readonly flags?: number
    }

/** `link_create xdp` */
export function otherCallText(call: OtherCall): string {
  if ('place' in call) return `${call.cmd} ${JSON.stringify(call.place.path)}`
  if ('attachType' in call) return `${call.cmd} ${ATTACH_TYPES.word(call.attachType as never)}`
  return call.cmd
}

/** `observed`: what the kernel has really said. */
export function explainOther(
  kernel: KernelFacts,
  situation: Situation,
  call: OtherCall,
  observed?: Observed,
): Explanation {
  const base = {
    call: otherCallText(call),
    capabilities: capabilitiesOf(call),
    bpffs: undefined,
    notes: [],
  }
  const asked = { base, observed }
  if (observed?.reached === false && observed.errno !== undefined)
    return {
      ...{ ...base, verdict: 'refused', errno: observed.errno, cause: 'seccomp', policy: undefined },
      needed: 'a seccomp filter that lets bpf(2) through',
      found: `the call ended with ${observed.errno} before the kernel's bpf(2) was asked`,
      checks: [],
    }
  if (observed !== undefined && observed.errno === undefined) return fine([], asked)
  if (call.cmd === 'perf_event_open' || (observed === undefined && isOfPerf(call)))
    return perfEvent(situation, asked)
  if ('place' in call) {
    const { place } = call
    const closed = situation.identity && closedWay(place, situation.identity, situation.capabilities)
    if (closed !== undefined) return found(closed, [], asked)
    if (place.unknown !== undefined) return unknownPlace(place, asked)
  }
  const machine: Machine = { kernel, unprivilegedBpfDisabled: situation.unprivilegedBpfDisabled }
  const task = taskOf(situation)
  const decision = decide(machine, task, modelCall(kernel, machine, task, situation, call))
  const failed = decision.checks.find(({ passed }) => !passed)
  // What lies behind the rights of a call that was not made is not known: a device, a descriptor, a number.
  const isOpen = failed !== undefined && !isForetold(failed, call) && observed === undefined
  if (failed === undefined || isOpen || !agrees(decision, observed))
    return passes(
      situation,
      call,
      decision.checks.filter(({ passed }) => passed),
      asked,
    )
  const { cause, policy } = causeOf(failed, situation)
  return {
    ...{ ...base, verdict: 'refused', errno: observed?.errno ?? decision.errno, cause, policy },
    needed: failed.needed,
    found: 'place' in call ? foundAt(failed, call.place, situation) : failed.found,
    checks: decision.checks,
  }
}

type Asked = Parameters<typeof found>[2]

/** Whether the kernel has said what the model says; else there is another cause. */
function agrees({ errno }: Decision, observed: Observed | undefined): boolean {
  return observed === undefined || observed.errno === errno
}

/** Rules that are about who calls, and not about what else is there. */
function isForetold({ rule }: Check, { cmd }: OtherCall): boolean {
  // That is of a program which is not named.
  if (cmd === 'prog_detach') return rule.name === 'bpf: unknown command'
  return (
    cmd === 'obj_pin' ||
    cmd === 'obj_get' ||
    /CAP_|unknown command|netkit$|many functions at once$/.test(rule.name)
  )
}

function causeOf({ rule }: Check, situation: Situation): Pick<Explanation, 'cause' | 'policy'> {
  if (/CAP_NET_ADMIN for cgroup_skb$/.test(rule.name)) {
    if (situation.isInitial) return { cause: 'host-only', policy: undefined }
    // Of a program that was loaded with a token the capability counts that it has inside.
    if (situation.mounts.length === 0) return { cause: 'no-delegation', policy: undefined }
    return { cause: 'capability', policy: { list: 'capabilities', word: 'net_admin' } }
  }
  return { cause: CAUSES[rule.name] ?? (/CAP_/.test(rule.name) ? 'host-only' : 'request'), policy: undefined }
}

const CAUSES: Readonly<Record<string, Cause>> = {
  'bpf: unknown command': 'kernel',
  'attach: netkit': 'kernel',
  'LINK_CREATE: many functions at once': 'kernel',
  'pin: directory may be searched': 'closed-directory',
  'OBJ_PIN: directory may be written': 'closed-directory',
  'OBJ_PIN: bpffs': 'not-bpffs',
  'OBJ_PIN: a user whom the bpffs knows': 'foreign-user',
  'OBJ_GET: owner and mode of the pin': 'closed-pin',
}

function foundAt({ rule, found }: Check, { directories, pin }: PinPlace, { identity }: Situation): string {
  if (identity === undefined) return found
  if (CAUSES[rule.name] === 'closed-pin' && pin !== undefined) return ownerText(pin.inode, identity)
  const at = directories.at(-1)
  return CAUSES[rule.name] === 'closed-directory' && at !== undefined
    ? `${at.path}: ${ownerText(at.inode, identity)}`
    : found
}

/** Nothing of the kernel's own is against it. */
function passes(situation: Situation, call: OtherCall, checks: readonly Check[], asked: Asked): Explanation {
  const { base, observed } = asked
  const { guard, modules, where } = situation
  const errno = observed?.errno
  const finding =
    observed === undefined
      ? 'attachType' in call && guard !== undefined
        ? guardOnAttach(guard, where, call.cmd, ATTACH_TYPES.number(call.attachType as never))
        : undefined
      : observed.event && recordedFinding(observed.event, errno ?? 'EACCES', guard?.delegation)
  if (finding !== undefined) return found(finding, checks, asked)
  if (errno === undefined) return fine(checks, asked, call)
  // Which users another user namespace has, is not known before.
  if (errno === 'EOVERFLOW' && call.cmd === 'obj_pin')
    return {
      ...{ ...base, verdict: 'refused', errno, cause: 'foreign-user', policy: undefined, checks },
      needed: 'a user and group whom the user namespace of the bpffs has',
      found: `user ${situation.identity?.uid ?? situation.uid}, and a bpffs of ${call.place.userNamespace ?? 'another one'}`,
    }
  const isModule = errno === 'EPERM' || errno === 'EACCES'
  return {
    ...{ ...base, verdict: 'refused', errno, policy: undefined, checks },
    cause: isModule ? 'security-module' : 'request',
    needed: isModule ? 'security modules that allow it' : 'a request that this kernel takes',
    found: `rights that are enough, and ${errno}${isModule ? `; ${modulesText(modules)}` : ''}`,
  }
}

function fine(checks: readonly Check[], { base }: Asked, call?: OtherCall): Explanation {
  const notes = call === undefined ? [] : notesOn(call)
  return {
    ...{ ...base, verdict: 'ok', errno: undefined, cause: 'none', policy: undefined, checks },
    ...{ needed: 'nothing more', found: 'all that it asks for', notes },
  }
}

function notesOn(call: OtherCall): string[] {
  if (call.cmd === 'link_create' || call.cmd === 'prog_attach')
    return [
      'rights are asked for when the program is loaded: prog_load TYPE ATTACH-TYPE; what it is attached to was not looked at',
    ]
  if (call.cmd === 'prog_detach')
    return [
      "if the program is named; to detach what is not named from a device takes the host's CAP_NET_ADMIN",
    ]
  return []
}

function unknownPlace({ unknown, path }: PinPlace, { base, observed }: Asked): Explanation {
  return {
    ...{ ...base, verdict: 'refused', errno: observed?.errno, cause: 'unknown', policy: undefined },
    ...{ needed: `to look at ${JSON.stringify(path)}`, found: `${unknown}`, checks: [] },
  }
}

/** It is attached to a perf event, which must be had first. */
function isOfPerf(call: OtherCall): boolean {
  return call.cmd === 'link_create' && ATTACH_TYPES.word(call.attachType as never) === 'perf_event'
}

/** perf_event_open(2) of other processes or of the kernel, for which links are made. */
function perfEvent({ isInitial, capabilities }: Situation, { base, observed }: Asked): Explanation {
  const may = isInitial && capabilities.some(name => name === 'perfmon' || name === 'sys_admin')
  const errno = observed?.errno
  if (may && errno === undefined) return fine([], { base, observed })
  return {
    ...{ ...base, verdict: 'refused', errno: errno ?? 'EACCES', policy: undefined, checks: [] },
    cause: may ? 'request' : 'host-only',
    needed: 'CAP_PERFMON in the initial user namespace, to look at others and at the kernel',
    found: isInitial ? capabilities.join(', ') || 'no capability' : 'a task of another user namespace',
  }
}

function capabilitiesOf(call: OtherCall): CapabilityName[] {
  if (call.cmd === 'perf_event_open') return ['CAP_PERFMON']
  if (call.cmd === 'prog_query') return ['CAP_NET_ADMIN']
  if ('place' in call) return []
  if (call.cmd === 'prog_detach') return ['CAP_NET_ADMIN']
  if ('attachType' in call) return typeFor(call) === 'cgroup_skb' ? ['CAP_NET_ADMIN'] : []
  return ['CAP_SYS_ADMIN']
}

function taskOf({ isInitial, userNamespace, ownerUid, uid, identity, capabilities }: Situation): Task {
  const ids = identity?.uidMap.map(({ inside, outside, count }) => ({ inside, host: outside, count }))
  return {
    userNamespace: isInitial ? INITIAL : nestedIn(INITIAL, userNamespace, ownerUid, ids),
    uid: identity?.uid ?? uid,
    ...(identity === undefined ? {} : { gid: identity.gids[0]! }),
    capabilities: new Set<ModelCapability>(capabilities),
  }
}

/** The program type that goes with the attach type. */
function typeFor(call: Extract<OtherCall, { attachType: unknown }>): string | undefined {
  if (call.progType !== undefined) return call.progType
  const word = ATTACH_TYPES.word(call.attachType as never)
  return progTypeOf(word) ?? BY_LINK[word]
}

/** Those that are attached by a link alone. */
const BY_LINK: Readonly<Record<string, string>> = {
  netfilter: 'netfilter',
  perf_event: 'perf_event',
  trace_kprobe_multi: 'kprobe',
  trace_kprobe_session: 'kprobe',
  trace_uprobe_multi: 'kprobe',
  trace_uprobe_session: 'kprobe',
}

function modelCall(
  kernel: KernelFacts,
  machine: Machine,
  task: Task,
  situation: Situation,
  call: OtherCall,
): BpfCall {
  if ('place' in call) return pinCall(task.userNamespace, situation, call)
  if (!('attachType' in call)) {
    const onHost = ON_HOST.find(cmd => cmd === call.cmd)
    return onHost === undefined ? { op: call.cmd as (typeof ID_CALLS)[number], exists: true } : { op: onHost }
  }
  const attach = ATTACH_TYPES.number(call.attachType as never)
  const type = typeFor(call) ?? 'unspec'
  const target = targetFor(type)
  if (call.cmd === 'prog_query') return { op: 'prog_query', attach }
  if (call.cmd === 'prog_detach') return { op: 'prog_detach', target, attach }
  const mount = situation.mounts.at(-1)
  const token =
    mount === undefined || !makesToken(machine, task, kernel, mount)
      ? {}
      : { token: { userNamespace: task.userNamespace, masks: masksOf(kernel, mount.delegation) } }
  const prog: Program = { type, expectedAttach: attach, ...token }
  return { op: call.cmd, prog: { kind: 'prog', prog }, target, attach }
}

function targetFor(type: string) {
  const file = (kind: 'cgroup' | 'netns' | 'sockmap') => ({ kind: 'file', file: { kind } }) as const
  if (type.startsWith('cgroup_') || type === 'sock_ops') return file('cgroup')
  if (type === 'flow_dissector' || type === 'sk_lookup') return file('netns')
  if (type === 'sk_msg' || type === 'sk_skb') return file('sockmap')
  return { kind: 'device', exists: true } as const
}

function pinCall(
  own: UserNamespace,
  { userNamespace: name, identity }: Situation,
  { cmd, place, flags = 0 }: Extract<OtherCall, { place: PinPlace }>,
): BpfCall {
  const last = place.directories.at(-1)!
  // The model knows one group of a process; of several it has the one that counts.
  const grouped = (of: { uid: number; gid: number; mode: number }) =>
    identity?.gids.includes(of.gid) === true ? { ...of, gid: identity.gids[0]! } : of
  const ns =
    place.userNamespace === undefined || place.userNamespace === name
      ? own
      : place.userNamespace === 'user:[4026531837]'
        ? INITIAL
        : nestedIn(INITIAL, place.userNamespace, 0)
  const instance = { userNamespace: ns, masks: { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n } }
  const directory: File = place.isBpffs
    ? { kind: 'bpffs', instance, isRoot: false, inode: grouped(last.inode) }
    : { kind: 'root' }
  const dotted = place.path.slice(place.path.lastIndexOf('/')).includes('.')
  const { pin } = place
  if (cmd === 'obj_pin')
    return { op: 'obj_pin', object: { kind: 'map' }, directory, dotted, exists: pin !== undefined }
  const kind = pin?.isDirectory === true ? 'directory' : place.isBpffs ? 'map' : 'other'
  const made = pin === undefined ? {} : { pin: { kind, inode: grouped(pin.inode) } as const }
  return { op: 'obj_get', directory, dotted, flags: flags & ~PATH_FD, ...made }
}

const PATH_FD = 1 << 14
