/**
 * Attaching programs: one function per kind of target, each giving a link.
 *
 * These commands check no capability and no token, except for programs of type `cgroup_skb`:
 * whoever has a loaded program may attach it. Devices are looked up in the caller's network
 * namespace at that moment. All are BPF_LINK_CREATE unless said otherwise; the caller disposes of
 * the link. EINVAL: the program's type or expected attach type is not for this target.
 */
import { linkCreate, rawTracepointOpen } from '../../sys/bpf.ts'
import { Fd } from '../../sys/fd.ts'
import { open } from '../../sys/open.ts'
import { setIntOption } from '../../sys/socket.ts'
import { bpf_cgroup_iter_order, bpf_map_flags } from '../../uapi/bpf.ts'
import {
  BPF_F_AFTER,
  BPF_F_BEFORE,
  BPF_F_ID,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  SO_ATTACH_BPF,
  SO_ATTACH_REUSEPORT_EBPF,
  SO_DETACH_BPF,
  SO_DETACH_REUSEPORT_BPF,
  SOL_SOCKET,
  XDP_FLAGS_DRV_MODE,
  XDP_FLAGS_HW_MODE,
  XDP_FLAGS_SKB_MODE,
} from '../../uapi/constants.ts'
import { Link } from '../link.ts'
import type { BpfMap } from '../map.ts'
import type { Program } from '../prog.ts'
import { ATTACH_TYPES, type AttachType } from '../type-names.ts'
import { attachPerf } from './perf-link.ts'

const XDP_MODES = { skb: XDP_FLAGS_SKB_MODE, driver: XDP_FLAGS_DRV_MODE, hardware: XDP_FLAGS_HW_MODE }

/**
 * Every packet that device `ifindex` receives. Since Linux 5.9. `mode` is the kernel's choice by
 * default: driver where it can, else skb. EBUSY: something else is attached. EOPNOTSUPP: the driver
 * has no such mode. ENODEV: no such device here.
 */
export function attachXdp(
  program: Program,
  target: { ifindex: number; mode?: keyof typeof XDP_MODES },
): Link {
  const { ifindex, mode } = target
  return create(program, 'xdp', `device ${ifindex}`, {
    target_ifindex: ifindex,
    flags: mode === undefined ? 0 : XDP_MODES[mode],
  })
}

/**
 * Whom to stand next to, among the programs on one hook. `before` or `after` alone: first or last
 * of all.
 */
export interface Anchor {
  before?: Link | Program | { programId: number } | { linkId: number } | 'all'
  after?: Link | Program | { programId: number } | { linkId: number } | 'all'
}

/** For `flags` and `relative_fd` of a command. */
export function anchorOf({ before, after }: Anchor): { flags: number; relative: number } {
  if (before !== undefined && after !== undefined) throw new TypeError('give before or after, not both')
  const anchor = before ?? after
  if (anchor === undefined) return { flags: 0, relative: 0 }
  const side = before === undefined ? BPF_F_AFTER : BPF_F_BEFORE
  const { BPF_F_LINK } = bpf_map_flags
  if (anchor === 'all') return { flags: side, relative: 0 }
  if (anchor instanceof Link) return { flags: side | BPF_F_LINK, relative: anchor.fd.number }
  if ('linkId' in anchor) return { flags: side | BPF_F_LINK | BPF_F_ID, relative: anchor.linkId }
  if ('programId' in anchor) return { flags: side | BPF_F_ID, relative: anchor.programId }
  return { flags: side, relative: anchor.fd.number }
}

/**
 * Packets of a device at the traffic control layer; the program's type is `sched_cls`. Since Linux
 * 6.6. Many programs run one after the other while each returns TCX_NEXT. ENOENT: the anchor is not
 * there. ESTALE: `revision` has moved on.
 */
export function attachTcx(
  program: Program,
  target: { ifindex: number; direction: 'ingress' | 'egress'; revision?: bigint } & Anchor,
): Link {
  const { flags, relative } = anchorOf(target)
  return create(program, `tcx_${target.direction}`, `device ${target.ifindex}`, {
    target_ifindex: target.ifindex,
    flags,
    tcx_relative_fd: relative,
    tcx_expected_revision: target.revision ?? 0n,
  })
}

/**
 * Packets of a netkit device, which joins two network namespaces: `primary` sees what leaves the
 * end that was made first, `peer` what leaves the other; `ifindex` is the first end's for both. The
 * program's type is `sched_cls`. Since Linux 6.7. Anchors and errors as for `attachTcx`; ENXIO:
 * the device is no netkit; EINVAL also: this kernel has none (CONFIG_NETKIT).
 */
export function attachNetkit(
  program: Program,
  target: { ifindex: number; end: 'primary' | 'peer'; revision?: bigint } & Anchor,
): Link {
  const { flags, relative } = anchorOf(target)
  return create(program, `netkit_${target.end}`, `device ${target.ifindex}`, {
    target_ifindex: target.ifindex,
    flags,
    netkit_relative_fd: relative,
    netkit_expected_revision: target.revision ?? 0n,
  })
}

/**
 * What the processes of a cgroup do: `cgroup` is its directory in a cgroup2 file system, or a
 * descriptor of it (O_PATH suffices). Since Linux 5.7. Programs of parents run too. Anchors and
 * `revision` since Linux 6.17, as for `attachTcx`; before, EINVAL. EBADF: not a cgroup2 directory.
 * EPERM: `cgroup_skb` without CAP_NET_ADMIN, or a parent's attachment forbids it.
 */
export function attachCgroup(
  program: Program,
  target: { cgroup: Fd | string; attachType: AttachType | number; revision?: bigint } & Anchor,
): Link {
  const { flags, relative } = anchorOf(target)
  return withTarget(target.cgroup, O_DIRECTORY, fd =>
    create(program, target.attachType, nameOf(target.cgroup, 'cgroup'), {
      target_fd: fd.number,
      flags,
      cgroup_relative_fd: relative,
      cgroup_expected_revision: target.revision ?? 0n,
    }),
  )
}

/**
 * Socket lookup or flow dissection in a network namespace: a file such as /proc/self/ns/net, or a
 * descriptor of one. Since Linux 5.8 (`flow_dissector`) and 5.9 (`sk_lookup`). EEXIST: the one flow
 * dissector is taken.
 */
export function attachNetns(
  program: Program,
  target: { netns: Fd | string; attachType: 'sk_lookup' | 'flow_dissector' },
): Link {
  return withTarget(target.netns, 0, fd =>
    create(program, target.attachType, nameOf(target.netns, 'netns'), { target_fd: fd.number }),
  )
}

const FAMILIES = { ipv4: 2, ipv6: 10 } // NFPROTO_IPV4, NFPROTO_IPV6: linux/netfilter.h
const HOOKS = { prerouting: 0, localIn: 1, forward: 2, localOut: 3, postrouting: 4 } // enum nf_inet_hooks
const NETFILTER_IP_DEFRAG = 1 // BPF_F_NETFILTER_IP_DEFRAG: linux/bpf.h

/**
 * A netfilter hook of the caller's network namespace. Since Linux 6.4. Lower priorities run first;
 * each is taken by at most one BPF program: EBUSY. `defragment` (since 6.6) wants a priority above
 * -400.
 */
export function attachNetfilter(
  program: Program,
  target: {
    family: keyof typeof FAMILIES
    hook: keyof typeof HOOKS
    priority: number
    defragment?: boolean
  },
): Link {
  return create(program, 'netfilter', `${target.family} ${target.hook}`, {
    netfilter_pf: FAMILIES[target.family],
    netfilter_hooknum: HOOKS[target.hook],
    netfilter_priority: target.priority,
    netfilter_flags: target.defragment === true ? NETFILTER_IP_DEFRAG : 0,
  })
}

/**
 * The messages of the sockets in a `sockmap` or `sockhash`; program types `sk_skb` and `sk_msg`.
 * Since Linux 6.10.
 */
export function attachSockmap(program: Program, target: { map: BpfMap; attachType: AttachType }): Link {
  return create(program, target.attachType, `map ${target.map.type}`, { target_fd: target.map.fd.number })
}

/**
 * A raw tracepoint, on the whole machine: BPF_RAW_TRACEPOINT_OPEN. Since Linux 4.17. ENOENT: no
 * tracepoint of that name. The program cannot be detached, only its link closed.
 */
export function attachRawTracepoint(program: Program, name: string, options: { cookie?: bigint } = {}): Link {
  return new Link(rawTracepointOpen(name, program.fd, options.cookie))
}

/** What an iterator goes over, of all that its program could. */
export interface IteratorTarget {
  /** The elements of this map: `iter/bpf_map_elem`, `iter/bpf_sk_storage_map`, `iter/sockmap`. */
  readonly map?: BpfMap
  /** Cgroups from here: a directory, or a descriptor of it. `iter/cgroup`, since Linux 6.1. */
  readonly cgroup?: { readonly at: Fd | string; readonly order: CgroupOrder }
  /**
   * A thread, all threads of a process, or the process of a pidfd: `iter/task`, `iter/task_file`,
   * `iter/task_vma`, since Linux 6.1.
   */
  readonly task?: { readonly tid: number } | { readonly pid: number } | { readonly pidfd: Fd }
}

const ORDERS = {
  self: bpf_cgroup_iter_order.BPF_CGROUP_ITER_SELF_ONLY,
  /** Parents before their children. */
  descendantsFirst: bpf_cgroup_iter_order.BPF_CGROUP_ITER_DESCENDANTS_PRE,
  /** Children before their parents. */
  descendantsLast: bpf_cgroup_iter_order.BPF_CGROUP_ITER_DESCENDANTS_POST,
  ancestors: bpf_cgroup_iter_order.BPF_CGROUP_ITER_ANCESTORS_UP,
} as const

export type CgroupOrder = keyof typeof ORDERS

/**
 * An iterator, of which `Link.readIterator` and `Link.iteratorOutput` read; the program's type is
 * `tracing`, its attach type `trace_iter`. Since Linux 5.8. What it goes over is in the program;
 * `target` says which of these. EINVAL: its program goes over something else. EBADF: no cgroup2
 * directory. Of tasks that are not there nothing is read.
 */
export function attachIterator(program: Program, target: IteratorTarget = {}): Link {
  if ([target.map, target.cgroup, target.task].filter(one => one !== undefined).length > 1)
    throw new TypeError('give one of map, cgroup and task')
  const { map, cgroup, task } = target
  if (cgroup !== undefined)
    // order @0, cgroup_fd @4
    return withTarget(cgroup.at, O_DIRECTORY, fd => iterator(program, ORDERS[cgroup.order], fd.number))
  // map_fd @0
  if (map !== undefined) return iterator(program, map.fd.number)
  if (task === undefined) return iterator(program)
  // tid @0, pid @4, pid_fd @8
  if ('tid' in task) return iterator(program, task.tid)
  return 'pid' in task ? iterator(program, 0, task.pid) : iterator(program, 0, 0, task.pidfd.number)
}

/** union bpf_iter_link_info, 16 bytes; the kernel takes the length as the version. */
function iterator(program: Program, ...words: number[]): Link {
  const info = words.length === 0 ? undefined : new Uint8Array(16)
  for (const [i, word] of words.entries()) new DataView(info!.buffer).setUint32(i * 4, word, true)
  return create(
    program,
    'trace_iter',
    'iterator',
    { iter_info_len: info?.length ?? 0 },
    info === undefined ? {} : { iter_info: info },
  )
}

/** Software events of the kernel: enum perf_sw_ids, linux/perf_event.h. */
const SOFTWARE_EVENTS = { cpuClock: 0n, taskClock: 1n, pageFaults: 2n, contextSwitches: 3n } as const
const PERF_TYPE_SOFTWARE = 1

/** Which event, how often and where. */
export interface PerfEventTarget {
  /** A software event by name, or PERF_TYPE_* and its config, linux/perf_event.h. */
  readonly event: keyof typeof SOFTWARE_EVENTS | { readonly type: number; readonly config: bigint }
  /** Every so many events, or so many times a second. */
  readonly every: { readonly events: bigint } | { readonly hertz: bigint }
  /** Every CPU by default where a process is named; otherwise one has to be given. */
  readonly cpu?: number
  /** Every process by default. */
  readonly pid?: number
  readonly cookie?: bigint
}

/**
 * Runs a program of type `perf_event` when an event was counted so often, such as a profiler does:
 * perf_event_open(2), then a link, since Linux 5.15. Opening the event wants CAP_PERFMON in the
 * initial user namespace, which no token gives, or a kernel.perf_event_paranoid that is low enough;
 * EACCES. ENOENT: this machine has no such event.
 */
export function attachPerfEvent(program: Program, target: PerfEventTarget): Link {
  const { event, every, cpu = -1, pid = -1, cookie } = target
  if (cpu === -1 && pid === -1) throw new TypeError('give a CPU, a process or both')
  const which =
    typeof event === 'string' ? { type: PERF_TYPE_SOFTWARE, config: SOFTWARE_EVENTS[event] } : event
  const period = 'hertz' in every ? { sampleFrequency: every.hertz } : { samplePeriod: every.events }
  const object = `perf event ${typeof event === 'string' ? event : `${event.type}:${event.config}`}`
  return attachPerf(program, { ...which, ...period }, pid, cpu, object, cookie)
}

/**
 * Chooses the socket that gets a packet or connection, among those that share an address by
 * SO_REUSEPORT: setsockopt(2) SO_ATTACH_REUSEPORT_EBPF. Since Linux 4.19. The program's type is
 * `sk_reuseport`, or `socket_filter`, which returns a number. It is for the whole group, until
 * another comes or the last socket is closed. EINVAL: SO_REUSEPORT is not set. The socket is any of
 * the group.
 */
export function attachReuseport(socket: Fd, program: Program): void {
  setIntOption(socket, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program.fd.number)
}

/** Takes the group's program away; since Linux 5.3. ENOENT: it has none. */
export function detachReuseport(socket: Fd): void {
  setIntOption(socket, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
}

/**
 * Filters what a socket receives: setsockopt(2) SO_ATTACH_BPF. Since Linux 3.19. The socket holds
 * the program until it is closed or another filter comes. A program that returns 0 drops; otherwise
 * the packet is cut to that many bytes.
 */
export function attachSocketFilter(socket: Fd, program: Program): void {
  setIntOption(socket, SOL_SOCKET, SO_ATTACH_BPF, program.fd.number)
}

/** Takes the socket's filter away. ENOENT: it has none. EPERM: SO_LOCK_FILTER. */
export function detachSocketFilter(socket: Fd): void {
  setIntOption(socket, SOL_SOCKET, SO_DETACH_BPF, 0)
}

type LinkAttr = Parameters<typeof linkCreate>[0]
type LinkPointers = Parameters<typeof linkCreate>[1]

function create(
  program: Program,
  attachType: AttachType | number,
  object: string,
  attr: LinkAttr,
  pointers: LinkPointers = {},
): Link {
  const number = ATTACH_TYPES.number(attachType)
  return new Link(linkCreate({ ...attr, prog_fd: program.fd.number, attach_type: number }, pointers, object))
}

function withTarget(target: Fd | string, openFlags: number, run: (fd: Fd) => Link): Link {
  if (target instanceof Fd) return run(target)
  using fd = open(target, O_RDONLY | O_CLOEXEC | openFlags)
  return run(fd)
}

function nameOf(target: Fd | string, otherwise: string): string {
  return typeof target === 'string' ? target : otherwise
}
