/**
 * What a section's name says of the programs in it: `SEC("kprobe/vfs_read")`. Pure data with one
 * look-up.
 *
 * Source: libbpf, src/libbpf.c, `section_defs[]` (v1.8, f7081a6b), in its order, since the first
 * match counts. Programs for USDT are loaded for many uprobes at once, which libbpf does where the
 * kernel has them, since 6.6; an older kernel does not look. The looser matching that libbpf had
 * before 1.0, and cilium/ebpf still has, is `legacySection`.
 */
import type { AttachType, ProgType } from '../type-names.ts'

/**
 * How a program of this section is attached by itself; undefined: the section does not say where.
 */
export type AutoAttach =
  | 'kprobe'
  | 'kprobe_multi'
  | 'kprobe_session'
  | 'ksyscall'
  | 'uprobe'
  | 'uprobe_multi'
  | 'usdt'
  | 'tracepoint'
  | 'raw_tracepoint'
  | 'trace'
  | 'tracing_multi'
  | 'lsm'
  | 'iter'

/** What is known of a program from the name of its section. */
export interface SectionRule {
  /** As in the table: a `+` at the end stands for nothing, or a slash and a target. */
  readonly pattern: string
  readonly type: ProgType
  /** Attach types newer than our headers are numbers. */
  readonly attachType: AttachType | number | undefined
  /**
   * The target is a function or a type, found in the BTF of the kernel, of a module or of another
   * program.
   */
  readonly btfTarget: boolean
  readonly sleepable: boolean
  /** XDP: takes packets in several buffers. */
  readonly frags: boolean
  readonly autoAttach: AutoAttach | undefined
}

/** A section's name taken apart. */
export interface SectionName {
  readonly rule: SectionRule
  /**
   * What follows the first slash of a pattern with `+`: a function, `path:symbol`,
   * `category/event`.
   */
  readonly target: string | undefined
}

type Row = readonly [string, ProgType, AttachType | number | '', string, AutoAttach | '']

// biome-ignore format: a table
const ROWS: readonly Row[] = [
  ['socket', 'socket_filter', '', '', ''],
  ['sk_reuseport/migrate', 'sk_reuseport', 'sk_reuseport_select_or_migrate', '', ''],
  ['sk_reuseport', 'sk_reuseport', 'sk_reuseport_select', '', ''],
  ['kprobe+', 'kprobe', '', '', 'kprobe'],
  ['uprobe+', 'kprobe', '', '', 'uprobe'],
  ['uprobe.s+', 'kprobe', '', 'sleepable', 'uprobe'],
  ['kretprobe+', 'kprobe', '', '', 'kprobe'],
  ['uretprobe+', 'kprobe', '', '', 'uprobe'],
  ['uretprobe.s+', 'kprobe', '', 'sleepable', 'uprobe'],
  ['kprobe.multi+', 'kprobe', 'trace_kprobe_multi', '', 'kprobe_multi'],
  ['kretprobe.multi+', 'kprobe', 'trace_kprobe_multi', '', 'kprobe_multi'],
  ['kprobe.session+', 'kprobe', 'trace_kprobe_session', '', 'kprobe_session'],
  ['uprobe.multi+', 'kprobe', 'trace_uprobe_multi', '', 'uprobe_multi'],
  ['uretprobe.multi+', 'kprobe', 'trace_uprobe_multi', '', 'uprobe_multi'],
  ['uprobe.session+', 'kprobe', 'trace_uprobe_session', '', 'uprobe_multi'],
  ['uprobe.multi.s+', 'kprobe', 'trace_uprobe_multi', 'sleepable', 'uprobe_multi'],
  ['uretprobe.multi.s+', 'kprobe', 'trace_uprobe_multi', 'sleepable', 'uprobe_multi'],
  ['uprobe.session.s+', 'kprobe', 'trace_uprobe_session', 'sleepable', 'uprobe_multi'],
  ['ksyscall+', 'kprobe', '', '', 'ksyscall'],
  ['kretsyscall+', 'kprobe', '', '', 'ksyscall'],
  ['usdt+', 'kprobe', 'trace_uprobe_multi', '', 'usdt'],
  ['usdt.s+', 'kprobe', 'trace_uprobe_multi', 'sleepable', 'usdt'],
  ['tc/ingress', 'sched_cls', 'tcx_ingress', '', ''],
  ['tc/egress', 'sched_cls', 'tcx_egress', '', ''],
  ['tcx/ingress', 'sched_cls', 'tcx_ingress', '', ''],
  ['tcx/egress', 'sched_cls', 'tcx_egress', '', ''],
  ['tc', 'sched_cls', '', '', ''],
  ['classifier', 'sched_cls', '', '', ''],
  ['action', 'sched_act', '', '', ''],
  ['netkit/primary', 'sched_cls', 'netkit_primary', '', ''],
  ['netkit/peer', 'sched_cls', 'netkit_peer', '', ''],
  ['tracepoint+', 'tracepoint', '', '', 'tracepoint'],
  ['tp+', 'tracepoint', '', '', 'tracepoint'],
  ['tracepoint.s+', 'tracepoint', '', 'sleepable', 'tracepoint'],
  ['tp.s+', 'tracepoint', '', 'sleepable', 'tracepoint'],
  ['raw_tracepoint+', 'raw_tracepoint', '', '', 'raw_tracepoint'],
  ['raw_tp+', 'raw_tracepoint', '', '', 'raw_tracepoint'],
  ['raw_tracepoint.s+', 'raw_tracepoint', '', 'sleepable', 'raw_tracepoint'],
  ['raw_tp.s+', 'raw_tracepoint', '', 'sleepable', 'raw_tracepoint'],
  ['raw_tracepoint.w+', 'raw_tracepoint_writable', '', '', 'raw_tracepoint'],
  ['raw_tp.w+', 'raw_tracepoint_writable', '', '', 'raw_tracepoint'],
  ['tp_btf+', 'tracing', 'trace_raw_tp', 'btf', 'trace'],
  ['tp_btf.s+', 'tracing', 'trace_raw_tp', 'btf sleepable', 'trace'],
  ['fentry+', 'tracing', 'trace_fentry', 'btf', 'trace'],
  ['fmod_ret+', 'tracing', 'modify_return', 'btf', 'trace'],
  ['fexit+', 'tracing', 'trace_fexit', 'btf', 'trace'],
  ['fentry.s+', 'tracing', 'trace_fentry', 'btf sleepable', 'trace'],
  ['fmod_ret.s+', 'tracing', 'modify_return', 'btf sleepable', 'trace'],
  ['fexit.s+', 'tracing', 'trace_fexit', 'btf sleepable', 'trace'],
  ['fsession+', 'tracing', 'trace_fsession', 'btf', 'trace'],
  ['fsession.s+', 'tracing', 'trace_fsession', 'btf sleepable', 'trace'],
  ['fsession.multi+', 'tracing', 'trace_fsession_multi', '', 'tracing_multi'],
  ['fsession.multi.s+', 'tracing', 'trace_fsession_multi', 'sleepable', 'tracing_multi'],
  ['fentry.multi+', 'tracing', 'trace_fentry_multi', '', 'tracing_multi'],
  ['fexit.multi+', 'tracing', 'trace_fexit_multi', '', 'tracing_multi'],
  ['fentry.multi.s+', 'tracing', 'trace_fentry_multi', 'sleepable', 'tracing_multi'],
  ['fexit.multi.s+', 'tracing', 'trace_fexit_multi', 'sleepable', 'tracing_multi'],
  ['freplace+', 'ext', '', 'btf', 'trace'],
  ['lsm+', 'lsm', 'lsm_mac', 'btf', 'lsm'],
  ['lsm.s+', 'lsm', 'lsm_mac', 'btf sleepable', 'lsm'],
  ['lsm_cgroup+', 'lsm', 'lsm_cgroup', 'btf', ''],
  ['iter+', 'tracing', 'trace_iter', 'btf', 'iter'],
  ['iter.s+', 'tracing', 'trace_iter', 'btf sleepable', 'iter'],
  ['syscall', 'syscall', '', 'sleepable', ''],
  ['xdp.frags/devmap', 'xdp', 'xdp_devmap', 'frags', ''],
  ['xdp/devmap', 'xdp', 'xdp_devmap', '', ''],
  ['xdp.frags/cpumap', 'xdp', 'xdp_cpumap', 'frags', ''],
  ['xdp/cpumap', 'xdp', 'xdp_cpumap', '', ''],
  ['xdp.frags', 'xdp', 'xdp', 'frags', ''],
  ['xdp', 'xdp', 'xdp', '', ''],
  ['perf_event', 'perf_event', '', '', ''],
  ['lwt_in', 'lwt_in', '', '', ''],
  ['lwt_out', 'lwt_out', '', '', ''],
  ['lwt_xmit', 'lwt_xmit', '', '', ''],
  ['lwt_seg6local', 'lwt_seg6local', '', '', ''],
  ['sockops', 'sock_ops', 'cgroup_sock_ops', '', ''],
  ['sk_skb/stream_parser', 'sk_skb', 'sk_skb_stream_parser', '', ''],
  ['sk_skb/stream_verdict', 'sk_skb', 'sk_skb_stream_verdict', '', ''],
  ['sk_skb/verdict', 'sk_skb', 'sk_skb_verdict', '', ''],
  ['sk_skb', 'sk_skb', '', '', ''],
  ['sk_msg', 'sk_msg', 'sk_msg_verdict', '', ''],
  ['lirc_mode2', 'lirc_mode2', 'lirc_mode2', '', ''],
  ['flow_dissector', 'flow_dissector', 'flow_dissector', '', ''],
  ['cgroup_skb/ingress', 'cgroup_skb', 'cgroup_inet_ingress', '', ''],
  ['cgroup_skb/egress', 'cgroup_skb', 'cgroup_inet_egress', '', ''],
  ['cgroup/skb', 'cgroup_skb', '', '', ''],
  ['cgroup/sock_create', 'cgroup_sock', 'cgroup_inet_sock_create', '', ''],
  ['cgroup/sock_release', 'cgroup_sock', 'cgroup_inet_sock_release', '', ''],
  ['cgroup/sock', 'cgroup_sock', 'cgroup_inet_sock_create', '', ''],
  ['cgroup/post_bind4', 'cgroup_sock', 'cgroup_inet4_post_bind', '', ''],
  ['cgroup/post_bind6', 'cgroup_sock', 'cgroup_inet6_post_bind', '', ''],
  ['cgroup/bind4', 'cgroup_sock_addr', 'cgroup_inet4_bind', '', ''],
  ['cgroup/bind6', 'cgroup_sock_addr', 'cgroup_inet6_bind', '', ''],
  ['cgroup/connect4', 'cgroup_sock_addr', 'cgroup_inet4_connect', '', ''],
  ['cgroup/connect6', 'cgroup_sock_addr', 'cgroup_inet6_connect', '', ''],
  ['cgroup/connect_unix', 'cgroup_sock_addr', 'cgroup_unix_connect', '', ''],
  ['cgroup/sendmsg4', 'cgroup_sock_addr', 'cgroup_udp4_sendmsg', '', ''],
  ['cgroup/sendmsg6', 'cgroup_sock_addr', 'cgroup_udp6_sendmsg', '', ''],
  ['cgroup/sendmsg_unix', 'cgroup_sock_addr', 'cgroup_unix_sendmsg', '', ''],
  ['cgroup/recvmsg4', 'cgroup_sock_addr', 'cgroup_udp4_recvmsg', '', ''],
  ['cgroup/recvmsg6', 'cgroup_sock_addr', 'cgroup_udp6_recvmsg', '', ''],
  ['cgroup/recvmsg_unix', 'cgroup_sock_addr', 'cgroup_unix_recvmsg', '', ''],
  ['cgroup/getpeername4', 'cgroup_sock_addr', 'cgroup_inet4_getpeername', '', ''],
  ['cgroup/getpeername6', 'cgroup_sock_addr', 'cgroup_inet6_getpeername', '', ''],
  ['cgroup/getpeername_unix', 'cgroup_sock_addr', 'cgroup_unix_getpeername', '', ''],
  ['cgroup/getsockname4', 'cgroup_sock_addr', 'cgroup_inet4_getsockname', '', ''],
  ['cgroup/getsockname6', 'cgroup_sock_addr', 'cgroup_inet6_getsockname', '', ''],
  ['cgroup/getsockname_unix', 'cgroup_sock_addr', 'cgroup_unix_getsockname', '', ''],
  ['cgroup/sysctl', 'cgroup_sysctl', 'cgroup_sysctl', '', ''],
  ['cgroup/getsockopt', 'cgroup_sockopt', 'cgroup_getsockopt', '', ''],
  ['cgroup/setsockopt', 'cgroup_sockopt', 'cgroup_setsockopt', '', ''],
  ['cgroup/dev', 'cgroup_device', 'cgroup_device', '', ''],
  ['struct_ops+', 'struct_ops', '', '', ''],
  ['struct_ops.s+', 'struct_ops', '', 'sleepable', ''],
  ['sk_lookup', 'sk_lookup', 'sk_lookup', '', ''],
  ['netfilter', 'netfilter', 'netfilter', '', ''],
]

/** Every rule, in order of precedence. */
export const SECTION_RULES: readonly SectionRule[] = ROWS.map(([pattern, type, attachType, flags, via]) => ({
  pattern,
  type,
  attachType: attachType === '' ? undefined : attachType,
  btfTarget: flags.includes('btf'),
  sleepable: flags.includes('sleepable'),
  frags: flags.includes('frags'),
  autoAttach: via === '' ? undefined : via,
}))

/** Patterns by their text, for a look-up without a walk through the table. */
const EXACT = new Map(SECTION_RULES.filter(r => !r.pattern.endsWith('+')).map(r => [r.pattern, r]))
const WITH_TARGET = new Map(
  SECTION_RULES.filter(r => r.pattern.endsWith('+')).map(r => [r.pattern.slice(0, -1), r]),
)

/**
 * The rule for a section, as libbpf since 1.0 finds it; undefined: it has none. A leading `?` is no
 * part of the name.
 */
export function sectionName(name: string): SectionName | undefined {
  const exact = EXACT.get(name)
  if (exact !== undefined) return { rule: exact, target: undefined }
  const slash = name.indexOf('/')
  const rule = WITH_TARGET.get(slash === -1 ? name : name.slice(0, slash))
  if (rule === undefined) return undefined
  return { rule, target: slash === -1 || slash === name.length - 1 ? undefined : name.slice(slash + 1) }
}

/**
 * Types whose names libbpf before 1.0 took with anything behind them: `xdp_filter`,
 * `classifier/ingress`.
 */
const SLOPPY =
  /^(socket|classifier|action|xdp|perf_event|lwt_|sockops|sk_skb|sk_msg|lirc_mode2|flow_dissector|cgroup_skb\/|cgroup\/(skb|sock|dev))/

/**
 * The rule as libbpf before 1.0 found it, for objects of that time: a name that begins with the
 * pattern will do (SEC_SLOPPY_PFX in libbpf 0.8). The longest pattern wins.
 */
export function legacySection(name: string): SectionName | undefined {
  const strict = sectionName(name)
  if (strict !== undefined || !SLOPPY.test(name)) return strict
  let best: SectionRule | undefined
  for (const [pattern, rule] of EXACT)
    if (name.startsWith(pattern) && pattern.length > (best?.pattern.length ?? 0)) best = rule
  return best && { rule: best, target: undefined }
}
