/**
 * What the kernel asks for per map and program type: capabilities, attach bits, and how far the type reaches.
 *
 * Data, from kernel/bpf/syscall.c (bpf_prog_load, map_create, bpf_prog_load_check_attach); unchanged from
 * Linux 6.9 to 7.3. Only knowledge about words is here, never their bits: types that a newer kernel adds
 * are missing here and treated with caution by the callers.
 */
import type { Capability } from './policy.ts'

/** Commands whose bit the kernel ever consults. All others are neither helped nor hindered by a token. */
export const CONSULTED_COMMANDS = ['map_create', 'prog_load', 'btf_load', 'btf_get_fd_by_id'] as const

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
  /** Attach bits, any of which makes the type loadable. */
  readonly attachs: readonly string[]
  readonly reach: Reach
}

const NET: readonly Capability[] = ['net_admin']
const PERF: readonly Capability[] = ['perfmon']
const NONE: readonly Capability[] = []

const SOCK_ADDR = ['bind', 'connect', 'getpeername', 'getsockname'].flatMap(call => [
  `cgroup_inet4_${call}`,
  `cgroup_inet6_${call}`,
])
const UDP = ['sendmsg', 'recvmsg'].flatMap(call => [`cgroup_udp4_${call}`, `cgroup_udp6_${call}`])
const UNIX = ['connect', 'sendmsg', 'recvmsg', 'getpeername', 'getsockname'].map(
  call => `cgroup_unix_${call}`,
)

export const PROGRAM_CLASSES: Readonly<Record<string, ProgramClass>> = {
  socket_filter: { capabilities: NONE, attachs: [ATTACH_ZERO], reach: 'own' },
  kprobe: {
    capabilities: PERF,
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
    capabilities: NET,
    attachs: [ATTACH_ZERO, 'tcx_ingress', 'tcx_egress', 'netkit_primary', 'netkit_peer'],
    reach: 'network',
  },
  sched_act: { capabilities: NET, attachs: [ATTACH_ZERO], reach: 'network' },
  tracepoint: { capabilities: PERF, attachs: [ATTACH_ZERO], reach: 'host' },
  xdp: {
    capabilities: NET,
    attachs: ['xdp', 'xdp_devmap', 'xdp_cpumap', ATTACH_ZERO],
    reach: 'network',
  },
  perf_event: { capabilities: PERF, attachs: [ATTACH_ZERO], reach: 'host' },
  cgroup_skb: {
    capabilities: NONE,
    attachs: ['cgroup_inet_ingress', 'cgroup_inet_egress'],
    reach: 'cgroup',
  },
  cgroup_sock: {
    capabilities: NET,
    attachs: [
      'cgroup_inet_sock_create',
      'cgroup_inet_sock_release',
      'cgroup_inet4_post_bind',
      'cgroup_inet6_post_bind',
    ],
    reach: 'cgroup',
  },
  lwt_in: { capabilities: NET, attachs: [ATTACH_ZERO], reach: 'network' },
  lwt_out: { capabilities: NET, attachs: [ATTACH_ZERO], reach: 'network' },
  lwt_xmit: { capabilities: NET, attachs: [ATTACH_ZERO], reach: 'network' },
  lwt_seg6local: { capabilities: NET, attachs: [ATTACH_ZERO], reach: 'network' },
  sock_ops: { capabilities: NET, attachs: ['cgroup_sock_ops', ATTACH_ZERO], reach: 'cgroup' },
  sk_skb: {
    capabilities: NET,
    attachs: ['sk_skb_stream_parser', 'sk_skb_stream_verdict', 'sk_skb_verdict', ATTACH_ZERO],
    reach: 'own',
  },
  sk_msg: { capabilities: NET, attachs: ['sk_msg_verdict', ATTACH_ZERO], reach: 'own' },
  cgroup_device: { capabilities: NET, attachs: ['cgroup_device', ATTACH_ZERO], reach: 'cgroup' },
  raw_tracepoint: { capabilities: PERF, attachs: [ATTACH_ZERO], reach: 'host' },
  raw_tracepoint_writable: { capabilities: PERF, attachs: [ATTACH_ZERO], reach: 'host' },
  cgroup_sock_addr: { capabilities: NET, attachs: [...SOCK_ADDR, ...UDP, ...UNIX], reach: 'cgroup' },
  lirc_mode2: { capabilities: NONE, attachs: ['lirc_mode2', ATTACH_ZERO], reach: 'own' },
  sk_reuseport: {
    capabilities: NONE,
    // Attach type 0 is rewritten to `select` before the token is asked.
    attachs: ['sk_reuseport_select', 'sk_reuseport_select_or_migrate'],
    reach: 'own',
  },
  flow_dissector: { capabilities: NET, attachs: ['flow_dissector', ATTACH_ZERO], reach: 'network' },
  cgroup_sysctl: { capabilities: NET, attachs: ['cgroup_sysctl', ATTACH_ZERO], reach: 'cgroup' },
  cgroup_sockopt: {
    capabilities: NET,
    attachs: ['cgroup_getsockopt', 'cgroup_setsockopt'],
    reach: 'cgroup',
  },
  tracing: {
    capabilities: PERF,
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
  struct_ops: { capabilities: PERF, attachs: [ATTACH_ZERO], reach: 'host' },
  ext: { capabilities: ['net_admin', 'perfmon'], attachs: [ATTACH_ZERO], reach: 'host' },
  lsm: { capabilities: PERF, attachs: ['lsm_mac', 'lsm_cgroup'], reach: 'host' },
  sk_lookup: { capabilities: NONE, attachs: ['sk_lookup'], reach: 'network' },
  syscall: { capabilities: NONE, attachs: [ATTACH_ZERO], reach: 'own' },
  netfilter: { capabilities: NET, attachs: ['netfilter'], reach: 'network' },
}

/** Attach types of links only: no program is loaded with them, and masks are consulted at load. */
export const LINK_ONLY_ATTACHS = ['perf_event', 'struct_ops'] as const

/** Map types that need CAP_NET_ADMIN besides CAP_BPF. */
export const NET_ADMIN_MAPS = ['sockmap', 'sockhash', 'devmap', 'devmap_hash', 'xskmap'] as const

/** Map types that hand packets to other devices, CPUs or sockets of the network namespace. */
export const REDIRECT_MAPS = ['devmap', 'devmap_hash', 'xskmap', 'cpumap'] as const
