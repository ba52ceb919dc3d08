/**
 * What bpf(2) wants from its caller besides CAP_BPF, and when it asks a token: by the words of
 * commands and types. Data, from kernel/bpf/syscall.c (map_create, is_net_admin_prog_type,
 * is_perfmon_prog_type); unchanged from Linux 6.9 to 7.3.
 *
 * Here because both the library and policies need it, and neither may see the other.
 */

/** The only commands for which the kernel asks a token. */
export const TOKEN_COMMANDS = ['map_create', 'prog_load', 'btf_load', 'btf_get_fd_by_id'] as const

/** Map types that need CAP_NET_ADMIN. */
export const NET_ADMIN_MAPS = ['sockmap', 'sockhash', 'devmap', 'devmap_hash', 'xskmap'] as const

/** Program types that need CAP_NET_ADMIN. */
export const NET_ADMIN_PROGS = [
  ...([
    'sched_cls',
    'sched_act',
    'xdp',
    'flow_dissector',
    'sk_skb',
    'sk_msg',
    'sock_ops',
    'netfilter',
  ] as const),
  ...(['lwt_in', 'lwt_out', 'lwt_xmit', 'lwt_seg6local', 'ext'] as const),
  ...(['cgroup_device', 'cgroup_sock', 'cgroup_sock_addr', 'cgroup_sockopt', 'cgroup_sysctl'] as const),
] as const

/**
 * Program types that are loaded without CAP_NET_ADMIN, and attached only with it: the kernel asks
 * the token that the program was loaded with (bpf_prog_attach_check_attach_type).
 */
export const NET_ADMIN_TO_ATTACH = ['cgroup_skb'] as const

/** Program types that need CAP_PERFMON. */
export const PERFMON_PROGS = [
  ...(['kprobe', 'tracepoint', 'perf_event', 'raw_tracepoint', 'raw_tracepoint_writable'] as const),
  ...(['tracing', 'lsm', 'struct_ops', 'ext'] as const),
] as const
