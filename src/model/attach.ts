/**
 * BPF_LINK_CREATE, BPF_PROG_ATTACH and BPF_PROG_DETACH. All rights were asked when the program was
 * loaded; what is left is that program, attach type and target go together, and CAP_NET_ADMIN for
 * cgroup_skb.
 */
import { type AttrBytes, callFails, capable, initialText, tailFails } from './bpf-call.ts'
import { type File, fileText, isOpen, type Program } from './file.ts'
import type { ErrnoName, Judge, Rule } from './judge.ts'
import type { KernelFacts } from './kernel.ts'
import type { Machine } from './machine.ts'
import type { Task } from './task.ts'
import { foundText, neededText, tokenCapable } from './token.ts'

/** What a program is to be attached to. */
export type AttachTarget =
  | { readonly kind: 'file'; readonly file: File }
  /** A device of the caller's network namespace, by its number. */
  | {
      readonly kind: 'device'
      readonly exists: boolean
      /** Absent: it is one where the attach type wants one. */
      readonly isNetkit?: boolean
    }

export interface LinkCreate {
  readonly op: 'link_create'
  readonly prog: File
  readonly target: AttachTarget
  /** enum bpf_attach_type */
  readonly attach: number
  readonly flags?: number
  readonly attr?: AttrBytes
}

export interface ProgAttach {
  readonly op: 'prog_attach'
  readonly prog: File
  readonly target: AttachTarget
  readonly attach: number
  readonly flags?: number
  readonly attr?: AttrBytes
}

/** Of something to which nothing is attached, and without naming a program. */
export interface ProgDetach {
  readonly op: 'prog_detach'
  readonly target: AttachTarget
  readonly attach: number
  readonly flags?: number
  readonly attr?: AttrBytes
}

export const ATTACH_RULES = {
  progFile: {
    name: 'attach: program descriptor',
    needs: 'an open descriptor of a program',
    source: 'bpf_prog_get',
    errno: 'EBADF',
  },
  progKind: {
    name: 'attach: is a program',
    needs: 'a descriptor of a program',
    source: 'bpf_prog_get',
    errno: 'EINVAL',
  },
  linkCapable: {
    name: 'LINK_CREATE: CAP_NET_ADMIN for cgroup_skb',
    needs: 'CAP_NET_ADMIN, where the program’s token counts',
    source: 'bpf_prog_attach_check_attach_type',
    errno: 'EPERM',
  },
  attachCapable: {
    name: 'PROG_ATTACH: CAP_NET_ADMIN for cgroup_skb',
    needs: 'CAP_NET_ADMIN, where the program’s token counts; the kernel says EINVAL without',
    source: 'bpf_prog_attach_check_attach_type',
    errno: 'EINVAL',
  },
  type: {
    name: 'attach: attach type of the program',
    needs: 'an attach type that goes with the program',
    source: 'bpf_prog_attach_check_attach_type',
    errno: 'EINVAL',
  },
  known: {
    name: 'PROG_ATTACH: attach type',
    needs: 'an attach type that programs are attached to without a link',
    source: 'attach_type_to_prog_type',
    errno: 'EINVAL',
  },
  flags: {
    name: 'attach: flags',
    needs: 'flags that the target takes',
    source: 'bpf_prog_attach',
    errno: 'EINVAL',
  },
  progType: {
    name: 'PROG_ATTACH: program of the attach type',
    needs: 'a program of the type that belongs to the attach type',
    source: 'bpf_prog_get_type',
    errno: 'EINVAL',
  },
  cgroup: {
    name: 'attach: cgroup',
    needs: 'the directory of a cgroup',
    source: 'cgroup_get_from_fd',
    errno: 'EBADF',
  },
  perfEvent: {
    name: 'LINK_CREATE: perf event',
    needs: 'the descriptor of a perf event',
    source: 'perf_event_get',
    errno: 'EBADF',
  },
  multiBuilt: {
    name: 'LINK_CREATE: many functions at once',
    needs: 'a kernel that can attach to many functions at once',
    source: 'bpf_kprobe_multi_link_attach',
    errno: 'EOPNOTSUPP',
  },
  multi: {
    name: 'LINK_CREATE: loaded for many functions',
    needs: 'a program that was loaded to be attached to many functions',
    source: 'bpf_kprobe_multi_link_attach',
    errno: 'EINVAL',
  },
  targetFile: {
    name: 'LINK_CREATE: descriptor of the target',
    needs: 'an open descriptor of the target',
    source: 'link_create',
    errno: 'EBADF',
  },
  targetKind: {
    name: 'LINK_CREATE: kind of target',
    needs: 'a network namespace, or a map of sockets, as the program type has it',
    source: 'netns_bpf_link_create',
    errno: 'EINVAL',
  },
  netkitBuilt: {
    name: 'attach: netkit',
    needs: 'a kernel that was built with netkit',
    source: 'netkit_prog_attach',
    errno: 'EINVAL',
  },
  netkit: {
    name: 'attach: device of the kind netkit',
    needs: 'a device of the kind netkit, and the primary one of its pair',
    source: 'netkit_dev_fetch',
    errno: 'ENXIO',
  },
  structOps: {
    name: 'LINK_CREATE: map of struct_ops',
    needs: 'a map of struct_ops that has its value and BPF_F_LINK',
    source: 'bpf_struct_ops_link_create',
    errno: 'EINVAL',
  },
  socketMap: {
    name: 'PROG_ATTACH: map of sockets',
    needs: 'a map of sockets',
    source: 'sock_map_prog_update',
    errno: 'EOPNOTSUPP',
  },
  withLink: {
    name: 'PROG_ATTACH: program type',
    needs: 'a program of a type that is attached without a link',
    source: 'bpf_prog_attach',
    errno: 'EINVAL',
  },
  device: {
    name: 'attach: device',
    needs: 'a device of the caller’s network namespace',
    source: 'dev_get_by_index',
    errno: 'EINVAL',
  },
  detachUnnamed: {
    name: 'PROG_DETACH: CAP_NET_ADMIN of the host, without a program',
    needs: 'CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace, where no program is named',
    source: 'bpf_mprog_detach_empty',
    errno: 'EPERM',
  },
  attached: {
    name: 'PROG_DETACH: what is attached',
    needs: 'something attached',
    source: 'cgroup_bpf_detach',
    errno: 'ENOENT',
  },
} as const satisfies Record<string, Rule>

/** The program type that belongs to an attach type: attach_type_to_prog_type(). */
export function progTypeOf(attach: string): string | undefined {
  if (attach === 'cgroup_inet_ingress' || attach === 'cgroup_inet_egress') return 'cgroup_skb'
  if (/^cgroup_(inet_sock_(create|release)|inet[46]_post_bind)$/.test(attach)) return 'cgroup_sock'
  if (attach === 'cgroup_sock_ops') return 'sock_ops'
  if (attach === 'cgroup_device' || attach === 'cgroup_sysctl') return attach
  if (attach === 'cgroup_getsockopt' || attach === 'cgroup_setsockopt') return 'cgroup_sockopt'
  if (/^cgroup_(inet[46]|udp[46]|unix)_/.test(attach)) return 'cgroup_sock_addr'
  return ATTACH_TO_PROG[attach]
}

const ATTACH_TO_PROG: Readonly<Record<string, string>> = {
  sk_msg_verdict: 'sk_msg',
  sk_skb_stream_parser: 'sk_skb',
  sk_skb_stream_verdict: 'sk_skb',
  sk_skb_verdict: 'sk_skb',
  // No links are made of it, which is not told apart: none of the kernels that are tried has it.
  lirc_mode2: 'lirc_mode2',
  flow_dissector: 'flow_dissector',
  trace_iter: 'tracing',
  trace_raw_tp: 'tracing',
  trace_fentry: 'tracing',
  trace_fexit: 'tracing',
  trace_fsession: 'tracing',
  trace_fentry_multi: 'tracing',
  trace_fexit_multi: 'tracing',
  trace_fsession_multi: 'tracing',
  modify_return: 'tracing',
  lsm_mac: 'lsm',
  lsm_cgroup: 'lsm',
  sk_lookup: 'sk_lookup',
  xdp: 'xdp',
  tcx_ingress: 'sched_cls',
  tcx_egress: 'sched_cls',
  netkit_primary: 'sched_cls',
  netkit_peer: 'sched_cls',
}

const AS_LOADED = new Set(['cgroup_sock', 'cgroup_sock_addr', 'cgroup_sockopt', 'sk_lookup'])
const BY_PERF = new Set(['perf_event', 'tracepoint'])
const KPROBE = [
  ...['perf_event', 'trace_kprobe_multi', 'trace_kprobe_session'],
  ...['trace_uprobe_multi', 'trace_uprobe_session'],
]
const TO_TCX = ['tcx_ingress', 'tcx_egress', 'netkit_primary', 'netkit_peer']

/** Whether a program may be attached so: the kernel's own table. */
function goesWith(kernel: KernelFacts, prog: Program, attach: number): boolean {
  const word = kernel.vocabulary.attachs.nameOfBit.get(attach)
  if (word === undefined) return false
  if (AS_LOADED.has(prog.type)) return attach === prog.expectedAttach
  if (prog.type === 'netfilter') return word === 'netfilter'
  if (BY_PERF.has(prog.type)) return word === 'perf_event'
  if (prog.type === 'kprobe') {
    const loaded = kernel.vocabulary.attachs.nameOfBit.get(prog.expectedAttach) ?? ''
    return KPROBE.includes(word) && (!KPROBE.slice(1).includes(loaded) || loaded === word)
  }
  if (prog.type === 'sched_cls') return TO_TCX.includes(word)
  return progTypeOf(word) === prog.type
}

const CGROUP_TYPES = new Set([
  ...['cgroup_skb', 'cgroup_sock', 'cgroup_sock_addr', 'cgroup_sockopt'],
  ...['cgroup_device', 'cgroup_sysctl', 'sock_ops'],
])

/** The program that a descriptor names; undefined: the call fails. */
function progOf(judge: Judge, file: File): Program | undefined {
  const open = isOpen(file)
  if (judge.fails(ATTACH_RULES.progFile, open, fileText(file))) return undefined
  const isProg = file.kind === 'prog'
  if (judge.fails(ATTACH_RULES.progKind, isProg, fileText(file)) || !isProg) return undefined
  return file.prog
}

function capableFails(judge: Judge, machine: Machine, task: Task, rule: Rule, prog: Program): boolean {
  if (prog.type !== 'cgroup_skb') return false
  const may = tokenCapable(judge, machine, task, prog.token, 'net_admin')
  const needed = (): string => neededText(prog.token, 'net_admin')
  return judge.fails(rule, may, () => foundText(machine, task, prog.token), needed)
}

export function linkCreate(judge: Judge, machine: Machine, task: Task, call: LinkCreate): void {
  const attr = call.attr ?? {}
  const { kernel } = machine
  if (callFails(judge, machine, task, 'link_create', attr)) return
  if (tailFails(judge, machine, 'link_create', attr)) return
  const word = kernel.vocabulary.attachs.nameOfBit.get(call.attach) ?? `attach type ${call.attach}`
  if (word === 'struct_ops') {
    structOpsFails(judge, call.prog)
    return
  }
  const prog = progOf(judge, call.prog)
  if (prog === undefined) return
  if (capableFails(judge, machine, task, ATTACH_RULES.linkCapable, prog)) return
  const goes = goesWith(kernel, prog, call.attach)
  if (judge.fails(ATTACH_RULES.type, goes, `${prog.type} and ${word}`)) return
  targetFails(judge, prog.type, call.target, call.flags ?? 0, kernel, word)
}

/** A link of struct_ops is of a map, whose descriptor stands where that of a program does. */
function structOpsFails(judge: Judge, file: File): boolean {
  if (judge.fails(ATTACH_RULES.targetFile, isOpen(file), fileText(file))) return true
  // What such a map registers is not of this model.
  return judge.fails(ATTACH_RULES.structOps, false, fileText(file))
}

/** What is wrong with the target of a link. */
function targetFails(
  judge: Judge,
  progType: string,
  target: AttachTarget,
  flags: number,
  kernel: KernelFacts,
  word: string,
): boolean {
  const isCgroup = CGROUP_TYPES.has(progType)
  if (netkitMissing(judge, kernel, word)) return true
  if (target.kind === 'device') {
    if (deviceFails(judge, word, target)) return true
    const taken = progType === 'xdp' ? XDP_MODES : MPROG_FLAGS
    return judge.fails(ATTACH_RULES.flags, (flags & ~taken) === 0, `flags ${flags}`)
  }
  if (progType === 'kprobe' && word.startsWith('trace_kprobe_') && kernel.lacks.has('multi'))
    return judge.fails(ATTACH_RULES.multiBuilt, false, 'not built in')
  const known = isCgroup && kernel.cgroupLinksTakeFlags ? MPROG_FLAGS | PREORDER : 0
  if (judge.fails(ATTACH_RULES.flags, (flags & ~known) === 0, `flags ${flags}`)) return true
  return isCgroup ? cgroupFails(judge, target) : fileFails(judge, progType, target.file, word)
}

/** cgroup_get_from_fd() says EBADF of all that is none. */
function cgroupFails(judge: Judge, target: AttachTarget): boolean {
  const is = target.kind === 'file' && target.file.kind === 'cgroup'
  return judge.fails(ATTACH_RULES.cgroup, is, targetText(target))
}

/** No device asks for a capability. What is no device is the number of none. */
function deviceFails(judge: Judge, word: string, target: AttachTarget): boolean {
  const errno: ErrnoName = /^(tcx|netkit)_/.test(word) ? 'ENODEV' : 'EINVAL'
  const exists = target.kind === 'device' && target.exists
  if (judge.fails(ATTACH_RULES.device, exists, exists ? 'there is one' : 'there is none', undefined, errno))
    return true
  if (!isNetkit(word)) return false
  const is = target.kind === 'device' && target.isNetkit !== false
  return judge.fails(ATTACH_RULES.netkit, is, is ? 'netkit' : 'another kind')
}

const isNetkit = (word: string): boolean => word.startsWith('netkit_')

function fileFails(judge: Judge, progType: string, file: File, word: string): boolean {
  if (BY_PERF.has(progType) || (progType === 'kprobe' && word === 'perf_event'))
    return judge.fails(ATTACH_RULES.perfEvent, false, fileText(file))
  // Of a program that was not loaded as one for many functions; the others are not of this model.
  if (progType === 'kprobe') return judge.fails(ATTACH_RULES.multi, false, 'not loaded so')
  const open = isOpen(file)
  if (judge.fails(ATTACH_RULES.targetFile, open, fileText(file))) return true
  const wanted = progType === 'sk_lookup' || progType === 'flow_dissector' ? 'netns' : 'sockmap'
  return judge.fails(ATTACH_RULES.targetKind, file.kind === wanted, fileText(file))
}

function netkitMissing(judge: Judge, kernel: KernelFacts, word: string): boolean {
  if (!isNetkit(word)) return false
  const built = !kernel.lacks.has('netkit')
  return judge.fails(ATTACH_RULES.netkitBuilt, built, built ? 'built in' : 'not built in')
}

function targetText(target: AttachTarget): string {
  return target.kind === 'file' ? fileText(target.file) : 'a device'
}

/** BPF_F_REPLACE, BPF_F_BEFORE, BPF_F_AFTER, BPF_F_ID, BPF_F_LINK */
const MPROG_FLAGS = 0x4 | 0x8 | 0x10 | 0x20 | 0x2000
/** XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE, XDP_FLAGS_HW_MODE */
const XDP_MODES = 0x2 | 0x4 | 0x8
const PREORDER = 0x40
/** BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI, BPF_F_REPLACE, BPF_F_PREORDER */
const BASE_FLAGS = 0x1 | 0x2 | 0x4 | PREORDER

export function progAttach(judge: Judge, machine: Machine, task: Task, call: ProgAttach): void {
  const attr = call.attr ?? {}
  const { kernel } = machine
  const flags = call.flags ?? 0
  if (callFails(judge, machine, task, 'prog_attach', attr)) return
  if (tailFails(judge, machine, 'prog_attach', attr)) return
  const word = kernel.vocabulary.attachs.nameOfBit.get(call.attach)
  const wanted = word === undefined ? undefined : progTypeOf(word)
  if (judge.fails(ATTACH_RULES.known, wanted !== undefined, word ?? `attach type ${call.attach}`)) return
  const isTcx = wanted === 'sched_cls'
  const both = kernel.cgroupLinksTakeFlags && CGROUP_TYPES.has(wanted!)
  const known = isTcx ? MPROG_FLAGS : both ? BASE_FLAGS | MPROG_FLAGS : BASE_FLAGS
  if (judge.fails(ATTACH_RULES.flags, (flags & ~known) === 0, `flags ${flags}`)) return
  const prog = progOf(judge, call.prog)
  if (prog === undefined) return
  if (judge.fails(ATTACH_RULES.progType, prog.type === wanted, prog.type)) return
  if (capableFails(judge, machine, task, ATTACH_RULES.attachCapable, prog)) return
  const goes = goesWith(kernel, prog, call.attach)
  if (judge.fails(ATTACH_RULES.type, goes, `${prog.type} and ${word}`)) return
  if (CGROUP_TYPES.has(prog.type)) cgroupFails(judge, call.target)
  else if (prog.type === 'sk_msg' || prog.type === 'sk_skb') toSocketsFails(judge, call.target, flags)
  else if (judge.fails(ATTACH_RULES.withLink, isTcx, prog.type)) return
  else if (netkitMissing(judge, kernel, word!)) return
  else deviceFails(judge, word!, call.target)
}

function toSocketsFails(judge: Judge, target: AttachTarget, flags: number): boolean {
  if (judge.fails(ATTACH_RULES.flags, flags === 0, `flags ${flags}`)) return true
  const file: File = target.kind === 'file' ? target.file : { kind: 'closed' }
  if (judge.fails(ATTACH_RULES.targetFile, isOpen(file), fileText(file))) return true
  const isMap = file.kind === 'map' || file.kind === 'sockmap'
  if (judge.fails(ATTACH_RULES.targetKind, isMap, fileText(file))) return true
  return judge.fails(ATTACH_RULES.socketMap, file.kind === 'sockmap', fileText(file))
}

export function progDetach(judge: Judge, machine: Machine, task: Task, call: ProgDetach): void {
  const attr = call.attr ?? {}
  const { kernel } = machine
  if (callFails(judge, machine, task, 'prog_detach', attr)) return
  if (tailFails(judge, machine, 'prog_detach', attr)) return
  const word = kernel.vocabulary.attachs.nameOfBit.get(call.attach)
  const wanted = word === undefined ? undefined : progTypeOf(word)
  const isCgroup = wanted !== undefined && CGROUP_TYPES.has(wanted)
  const flags = call.flags ?? 0
  if (judge.fails(ATTACH_RULES.flags, flags === 0, `flags ${flags}`)) return
  const isDevice = wanted === 'sched_cls'
  const known = isCgroup || isDevice
  if (judge.fails(ATTACH_RULES.known, known, word ?? `attach type ${call.attach}`)) return
  if (isDevice) {
    const may =
      !kernel.unnamedDetachAsks || capable(judge, task, 'net_admin') || capable(judge, task, 'sys_admin')
    if (judge.fails(ATTACH_RULES.detachUnnamed, may, () => initialText(task, 'net_admin'))) return
    if (netkitMissing(judge, kernel, word!)) return
    if (deviceFails(judge, word!, call.target)) return
  } else if (cgroupFails(judge, call.target)) return
  judge.fails(ATTACH_RULES.attached, false, 'nothing')
}
