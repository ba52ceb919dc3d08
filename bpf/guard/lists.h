/*
 * By which list a command, an attach type or a map is judged. Beside the programs the kernel model
 * goes by these: scripts/gen-guard-layout.ts reads this file, and takes each macro whose value is
 * made of BIT(), | and other lists.
 */
#ifndef GUARD_LISTS_H
#define GUARD_LISTS_H

#define BIT(n) (1ULL << (n))
/* Attached to a device. */
#define DEVICE_TYPES                                                                                                   \
	(BIT(BPF_XDP) | BIT(BPF_TCX_INGRESS) | BIT(BPF_TCX_EGRESS) | BIT(BPF_NETKIT_PRIMARY) | BIT(BPF_NETKIT_PEER))
/* Attached to a network namespace. */
#define NAMESPACE_TYPES (BIT(BPF_FLOW_DISSECTOR) | BIT(BPF_SK_LOOKUP))
/* All that is attached to the network. */
#define NETWORK_TYPES (DEVICE_TYPES | NAMESPACE_TYPES | BIT(BPF_NETFILTER))
/* Attached to a map, and gone with it. */
#define MAP_TYPES                                                                                                      \
	(BIT(BPF_SK_SKB_STREAM_PARSER) | BIT(BPF_SK_SKB_STREAM_VERDICT) | BIT(BPF_SK_MSG_VERDICT) | BIT(BPF_SK_SKB_VERDICT))
/* Attached to a function, event, remote control or hook, or to nothing: never to a cgroup. */
#define OTHER_TYPES                                                                                                    \
	(BIT(BPF_LIRC_MODE2) | BIT(BPF_TRACE_RAW_TP) | BIT(BPF_TRACE_FENTRY) | BIT(BPF_TRACE_FEXIT) |                    \
	 BIT(BPF_MODIFY_RETURN) | BIT(BPF_LSM_MAC) | BIT(BPF_TRACE_ITER) | BIT(BPF_XDP_DEVMAP) | BIT(BPF_XDP_CPUMAP) |   \
	 BIT(BPF_SK_REUSEPORT_SELECT) | BIT(BPF_SK_REUSEPORT_SELECT_OR_MIGRATE) | BIT(BPF_PERF_EVENT) |                 \
	 BIT(BPF_TRACE_KPROBE_MULTI) | BIT(BPF_STRUCT_OPS) | BIT(BPF_NETFILTER) | BIT(BPF_TRACE_UPROBE_MULTI) |          \
	 BIT(BPF_TRACE_KPROBE_SESSION) | BIT(BPF_TRACE_UPROBE_SESSION))
/* The last that we know. What is newer may be attached to anything. */
#define LAST_TYPE BPF_TRACE_UPROBE_SESSION
/*
 * What the kernel asks a capability of the initial user namespace for, or a token's bit: nothing
 * that a token holder has by itself.
 */
#define PRIVILEGED_COMMANDS                                                                                            \
	(BIT(BPF_MAP_CREATE) | BIT(BPF_PROG_LOAD) | BIT(BPF_PROG_GET_NEXT_ID) | BIT(BPF_MAP_GET_NEXT_ID) |              \
	 BIT(BPF_PROG_GET_FD_BY_ID) | BIT(BPF_MAP_GET_FD_BY_ID) | BIT(BPF_PROG_QUERY) | BIT(BPF_BTF_LOAD) |             \
	 BIT(BPF_BTF_GET_FD_BY_ID) | BIT(BPF_TASK_FD_QUERY) | BIT(BPF_BTF_GET_NEXT_ID) | BIT(BPF_LINK_GET_FD_BY_ID) |   \
	 BIT(BPF_LINK_GET_NEXT_ID) | BIT(BPF_ENABLE_STATS) | BIT(BPF_TOKEN_CREATE))

/* What attaches or runs something. */
#define ATTACH_COMMANDS                                                                                                \
	(BIT(BPF_PROG_ATTACH) | BIT(BPF_PROG_TEST_RUN) | BIT(BPF_RAW_TRACEPOINT_OPEN) | BIT(BPF_LINK_CREATE) |           \
	 BIT(BPF_LINK_UPDATE) | BIT(BPF_ITER_CREATE) | BIT(BPF_PROG_BIND_MAP) | BIT(BPF_PROG_ASSOC_STRUCT_OPS))
/* Of these what makes a link, which is judged once more when the kernel has made it. */
#define LINK_COMMANDS (BIT(BPF_LINK_CREATE) | BIT(BPF_RAW_TRACEPOINT_OPEN))
/* What takes away an attachment. BPF_PROG_ATTACH and BPF_LINK_UPDATE may, too. */
#define DETACH_COMMANDS (BIT(BPF_PROG_DETACH) | BIT(BPF_LINK_DETACH))
/* What puts something into a map, or closes it. */
#define UPDATE_COMMANDS (BIT(BPF_MAP_UPDATE_ELEM) | BIT(BPF_MAP_UPDATE_BATCH) | BIT(BPF_MAP_FREEZE))

/*
 * Maps that carry devices, processors or sockets, to which packets go from wherever the program
 * runs.
 */
#define DEVICE_MAPS                                                                                                    \
	(BIT(BPF_MAP_TYPE_DEVMAP) | BIT(BPF_MAP_TYPE_DEVMAP_HASH) | BIT(BPF_MAP_TYPE_CPUMAP) | BIT(BPF_MAP_TYPE_XSKMAP) | \
	 BIT(BPF_MAP_TYPE_SOCKMAP) | BIT(BPF_MAP_TYPE_SOCKHASH) | BIT(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY))
/* Maps whose values are, or end with, the descriptor of a program or map. */
#define OBJECT_MAPS                                                                                                    \
	(BIT(BPF_MAP_TYPE_PROG_ARRAY) | BIT(BPF_MAP_TYPE_ARRAY_OF_MAPS) | BIT(BPF_MAP_TYPE_HASH_OF_MAPS) |              \
	 BIT(BPF_MAP_TYPE_DEVMAP) | BIT(BPF_MAP_TYPE_DEVMAP_HASH) | BIT(BPF_MAP_TYPE_CPUMAP))
/* A write to one of struct_ops attaches all of its programs. */
#define CARRIER_MAPS (DEVICE_MAPS | OBJECT_MAPS | BIT(BPF_MAP_TYPE_STRUCT_OPS))

/* Elements of one batch that are looked at; more are refused. */
#define BATCH_MAX 64

#endif
