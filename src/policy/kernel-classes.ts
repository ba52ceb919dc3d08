/**
 * What the kernel asks for per program type: capabilities, attach bits, and how far the type
 * reaches.
 *
 * Data, from kernel/bpf/syscall.c (bpf_prog_load, bpf_prog_load_check_attach); unchanged from Linux
 * 6.9 to 7.3. Only knowledge about words is here, never their bits: types that a newer kernel adds
 * are missing here and treated with caution by the callers.
 */
import { NET_ADMIN_PROGS, NET_ADMIN_TO_ATTACH, PERFMON_PROGS } from '../uapi/bpf-needs.ts'
import type { Capability } from './policy.ts'

/**
 * Attach bit 0. A program without an expected attach type is checked against it, since its
 * expected_attach_type is 0.
 */
export const ATTACH_ZERO = 'cgroup_inet_ingress'

/** How far a loaded program can see or act, whoever attached it. */
export type Reach =
  /** Only sockets and maps that the workload holds. */
  | 'own'
  /** Devices and sockets of the network namespace the workload is in. */
  | 'network'
  /** Every cgroup whose directory can be opened; O_PATH is enough. */
  | 'cgroup'
  /** The whole host. */
  | 'host'

export interface ProgramClass {
  /** Needed besides `bpf`. */
  readonly capabilities: readonly Capability[]
  /** Needed in addition when the program is attached; loading does not need it. */
  readonly attachCapabilities: readonly Capability[]
  /** Attach bits, any of which makes the type loadable. */
  readonly attachs: readonly string[]
  readonly reach: Reach
}

const SOCK_ADDR = ['bind', 'connect', 'getpeername', 'getsockname'].flatMap(call => [
  `cgroup_inet4_${call}`,
  `cgroup_inet6_${call}`,
])
const UDP = ['sendmsg', 'recvmsg'].flatMap(call => [`cgroup_udp4_${call}`, `cgroup_udp6_${call}`])
const UNIX = ['connect', 'sendmsg', 'recvmsg', 'getpeername', 'getsockname'].map(
  call => `cgroup_unix_${call}`,
)

const ATTACHS_AND_REACH: Readonly<Record<string, Pick<ProgramClass, 'attachs' | 'reach'>>> = {
  socket_filter: { attachs: [ATTACH_ZERO], reach: 'own' },
  kprobe: {
    attachs: [
      ATTACH_ZERO,
      'trace_kprobe_multi',
      'trace_kprobe_session',
      'trace_uprobe_multi',
      'trace_uprobe_session',
    ],
    reach: 'host',
  },
  sched_cls: {
    attachs: [ATTACH_ZERO, 'tcx_ingress', 'tcx_egress', 'netkit_primary', 'netkit_peer'],
    reach: 'network',
  },
  sched_act: { attachs: [ATTACH_ZERO], reach: 'network' },
  tracepoint: { attachs: [ATTACH_ZERO], reach: 'host' },
  xdp: {
    attachs: ['xdp', 'xdp_devmap', 'xdp_cpumap', ATTACH_ZERO],
    reach: 'network',
  },
  perf_event: { attachs: [ATTACH_ZERO], reach: 'host' },
  cgroup_skb: {
    attachs: ['cgroup_inet_ingress', 'cgroup_inet_egress'],
    reach: 'cgroup',
  },
  cgroup_sock: {
    attachs: [
      'cgroup_inet_sock_create',
      'cgroup_inet_sock_release',
      'cgroup_inet4_post_bind',
      'cgroup_inet6_post_bind',
    ],
    reach: 'cgroup',
  },
  lwt_in: { attachs: [ATTACH_ZERO], reach: 'network' },
  lwt_out: { attachs: [ATTACH_ZERO], reach: 'network' },
  lwt_xmit: { attachs: [ATTACH_ZERO], reach: 'network' },
  lwt_seg6local: { attachs: [ATTACH_ZERO], reach: 'network' },
  sock_ops: { attachs: ['cgroup_sock_ops', ATTACH_ZERO], reach: 'cgroup' },
  sk_skb: {
    attachs: ['sk_skb_stream_parser', 'sk_skb_stream_verdict', 'sk_skb_verdict', ATTACH_ZERO],
    reach: 'own',
  },
  sk_msg: { attachs: ['sk_msg_verdict', ATTACH_ZERO], reach: 'own' },
  cgroup_device: { attachs: ['cgroup_device', ATTACH_ZERO], reach: 'cgroup' },
  raw_tracepoint: { attachs: [ATTACH_ZERO], reach: 'host' },
  raw_tracepoint_writable: { attachs: [ATTACH_ZERO], reach: 'host' },
  cgroup_sock_addr: { attachs: [...SOCK_ADDR, ...UDP, ...UNIX], reach: 'cgroup' },
  lirc_mode2: { attachs: ['lirc_mode2', ATTACH_ZERO], reach: 'own' },
  sk_reuseport: {
    // Attach type 0 is rewritten to `select` before the token is asked.
    attachs: ['sk_reuseport_select', 'sk_reuseport_select_or_migrate'],
    reach: 'own',
  },
  flow_dissector: { attachs: ['flow_dissector', ATTACH_ZERO], reach: 'network' },
  cgroup_sysctl: { attachs: ['cgroup_sysctl', ATTACH_ZERO], reach: 'cgroup' },
  cgroup_sockopt: {
    attachs: ['cgroup_getsockopt', 'cgroup_setsockopt'],
    reach: 'cgroup',
  },
  tracing: {
    attachs: [
      'trace_raw_tp',
      'trace_fentry',
      'trace_fexit',
      'trace_iter',
      'modify_return',
      'trace_fsession',
      'trace_fentry_multi',
      'trace_fexit_multi',
      'trace_fsession_multi',
    ],
    reach: 'host',
  },
  // The expected attach type is the index of the callback in its struct: usually several low bits.
  struct_ops: { attachs: [ATTACH_ZERO], reach: 'host' },
  ext: { attachs: [ATTACH_ZERO], reach: 'host' },
  lsm: { attachs: ['lsm_mac', 'lsm_cgroup'], reach: 'host' },
  sk_lookup: { attachs: ['sk_lookup'], reach: 'network' },
  syscall: { attachs: [ATTACH_ZERO], reach: 'own' },
  netfilter: { attachs: ['netfilter'], reach: 'network' },
}

export const PROGRAM_CLASSES: Readonly<Record<string, ProgramClass>> = Object.fromEntries(
  Object.entries(ATTACHS_AND_REACH).map(([type, rest]) => [
    type,
    { capabilities: capabilitiesOf(type), attachCapabilities: attachCapabilitiesOf(type), ...rest },
  ]),
)

function attachCapabilitiesOf(type: string): Capability[] {
  return (NET_ADMIN_TO_ATTACH as readonly string[]).includes(type) ? ['net_admin'] : []
}

function capabilitiesOf(type: string): Capability[] {
  const isIn = (types: readonly string[]): boolean => types.includes(type)
  return [
    ...(isIn(NET_ADMIN_PROGS) ? (['net_admin'] as const) : []),
    ...(isIn(PERFMON_PROGS) ? (['perfmon'] as const) : []),
  ]
}

/** Attach types of links only: no program is loaded with them, and masks are consulted at load. */
export const LINK_ONLY_ATTACHS = ['perf_event', 'struct_ops'] as const

/** Map types that hand packets to other devices, CPUs or sockets of the network namespace. */
export const REDIRECT_MAPS = ['devmap', 'devmap_hash', 'xskmap', 'cpumap'] as const
