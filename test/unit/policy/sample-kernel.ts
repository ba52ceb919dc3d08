/** The enumerators of a 6.18-like kernel, as its BTF gives them, and policies to test with. */
import { parsePolicy } from '../../../src/policy/parse.ts'
import type { Policy, Terms } from '../../../src/policy/policy.ts'
import { type KernelEnums, vocabularyFrom } from '../../../src/policy/vocabulary.ts'

function inOrder(prefix: string, names: string): Record<string, number> {
  const words = names.trim().split(/\s+/)
  return Object.fromEntries(words.map((name, value) => [`${prefix}${name.toUpperCase()}`, value]))
}

export const ENUMS: KernelEnums = {
  bpf_cmd: {
    ...inOrder(
      'BPF_',
      `map_create map_lookup_elem map_update_elem map_delete_elem map_get_next_key prog_load obj_pin obj_get
       prog_attach prog_detach prog_test_run`,
    ),
    BPF_PROG_RUN: 10,
    BPF_BTF_LOAD: 18,
    BPF_BTF_GET_FD_BY_ID: 19,
    BPF_TOKEN_CREATE: 36,
    BPF_COMMON_ATTRS: 65536,
    __MAX_BPF_CMD: 39,
  },
  bpf_map_type: {
    ...inOrder(
      'BPF_MAP_TYPE_',
      `unspec hash array prog_array perf_event_array percpu_hash percpu_array stack_trace cgroup_array lru_hash
       lru_percpu_hash lpm_trie array_of_maps hash_of_maps devmap sockmap cpumap xskmap sockhash
       cgroup_storage_deprecated`,
    ),
    BPF_MAP_TYPE_CGROUP_STORAGE: 19,
    BPF_MAP_TYPE_STRUCT_OPS: 26,
    BPF_MAP_TYPE_RINGBUF: 27,
    __MAX_BPF_MAP_TYPE: 34,
  },
  bpf_prog_type: {
    ...inOrder(
      'BPF_PROG_TYPE_',
      `unspec socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb cgroup_sock lwt_in lwt_out
       lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint cgroup_sock_addr lwt_seg6local lirc_mode2
       sk_reuseport flow_dissector cgroup_sysctl raw_tracepoint_writable cgroup_sockopt tracing struct_ops ext lsm
       sk_lookup syscall netfilter`,
    ),
    __MAX_BPF_PROG_TYPE: 33,
  },
  bpf_attach_type: {
    ...inOrder('BPF_', 'cgroup_inet_ingress cgroup_inet_egress cgroup_inet_sock_create cgroup_sock_ops'),
    BPF_TRACE_FENTRY: 24,
    BPF_TRACE_FEXIT: 25,
    BPF_LSM_MAC: 27,
    BPF_XDP: 37,
    BPF_PERF_EVENT: 41,
    BPF_TRACE_KPROBE_MULTI: 42,
    BPF_TCX_INGRESS: 46,
    BPF_TRACE_UPROBE_MULTI: 48,
    __MAX_BPF_ATTACH_TYPE: 58,
  },
}

export const VOCABULARY = vocabularyFrom(ENUMS)

/** A document whose spec is the given lines, two spaces deep. */
export function documentOf(spec: string): string {
  return `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: sample }\nspec:\n${spec}`
}

export function policyOf(spec: string): Policy {
  return parsePolicy(documentOf(spec), { source: 'sample.yaml', vocabulary: VOCABULARY })
}

/** A policy with rights in flow form: `cmds: [map_create], maps: [array]`. */
export function policyWithRights(rights: string, more = ''): Policy {
  return policyOf(`  rights: { ${rights} }\n${more}`)
}

/**
 * Terms that lend everything: the top of the lattice. A count that is not stated has a default, so
 * these are stated.
 */
export const TOP: Terms = policyOf(`
  rights: { cmds: [any], maps: [any], progs: [any], attachs: [any], capabilities: [bpf, net_admin, perfmon, sys_admin] }
  limits: { tokens: 4294967295, programs: 4294967295, maps: 4294967295 }
  sharing: { bindMount: true, passToken: true }
  revocable: false
  network: host
  cgroups: any
  guard: optional
  derive: { allowed: true, maxDepth: 16 }
  mode: permissive
  events: none
`)
