/* Commands of bpf(2) that the kernel judges by the descriptor alone: attachment; and what else a confined cgroup may call. */
#ifndef GUARD_ATTACH_H
#define GUARD_ATTACH_H

/* The beginning of union bpf_attr (include/uapi/linux/bpf.h). */
struct attach_attr {
	__u32 first;
	__u32 target; /* of a link: descriptor, or number of a device */
	__u32 type; /* of BPF_PROG_ATTACH and BPF_LINK_CREATE */
};

/* The descriptor of what is attached or run; -1: the command does neither. */
static __always_inline __u32 subject_fd(__u32 cmd, const struct attach_attr *attr)
{
	switch (cmd) {
	case BPF_LINK_CREATE:
	case BPF_PROG_TEST_RUN:
		return attr->first;
	case BPF_PROG_ATTACH:
	case BPF_LINK_UPDATE:
		return attr->target;
	case BPF_RAW_TRACEPOINT_OPEN:
		return attr->type;
	default:
		return -1;
	}
}

#define NO_TYPE (~0U)

#define BIT(n) (1ULL << (n))
/* Attached to a device, or to the network namespace itself. */
#define NETWORK_TYPES                                                                                                  \
	(BIT(BPF_FLOW_DISSECTOR) | BIT(BPF_SK_LOOKUP) | BIT(BPF_XDP) | BIT(BPF_NETFILTER) | BIT(BPF_TCX_INGRESS) |      \
	 BIT(BPF_TCX_EGRESS) | BIT(BPF_NETKIT_PRIMARY) | BIT(BPF_NETKIT_PEER))
/* Attached to a map, and gone with it. */
#define MAP_TYPES                                                                                                      \
	(BIT(BPF_SK_SKB_STREAM_PARSER) | BIT(BPF_SK_SKB_STREAM_VERDICT) | BIT(BPF_SK_MSG_VERDICT) | BIT(BPF_SK_SKB_VERDICT))
/* What the kernel asks a capability of the initial user namespace for, or a token's bit: nothing that a token holder has by itself. */
#define PRIVILEGED_COMMANDS                                                                                            \
	(BIT(BPF_MAP_CREATE) | BIT(BPF_PROG_LOAD) | BIT(BPF_PROG_GET_NEXT_ID) | BIT(BPF_MAP_GET_NEXT_ID) |              \
	 BIT(BPF_PROG_GET_FD_BY_ID) | BIT(BPF_MAP_GET_FD_BY_ID) | BIT(BPF_PROG_QUERY) | BIT(BPF_BTF_LOAD) |             \
	 BIT(BPF_BTF_GET_FD_BY_ID) | BIT(BPF_TASK_FD_QUERY) | BIT(BPF_BTF_GET_NEXT_ID) | BIT(BPF_LINK_GET_FD_BY_ID) |   \
	 BIT(BPF_LINK_GET_NEXT_ID) | BIT(BPF_ENABLE_STATS) | BIT(BPF_TOKEN_CREATE))

/* What attaches or runs something. */
#define ATTACH_COMMANDS                                                                                                \
	(BIT(BPF_PROG_ATTACH) | BIT(BPF_PROG_TEST_RUN) | BIT(BPF_RAW_TRACEPOINT_OPEN) | BIT(BPF_LINK_CREATE) |           \
	 BIT(BPF_LINK_UPDATE))

/* What rules hold for the current task's user namespace, or one above it; 0: nothing is lent there. */
static __noinline struct guard_namespace *rules_of_namespace(void)
{
	const struct cred *cred = READ(bpf_get_current_task_btf(), cred);
	struct user_namespace *at = READ(cred, user_ns);

	/* The kernel nests them no deeper. */
	for (int level = 0; at && level < 33; level++) {
		__u64 number = READ(at, ns.inum);
		struct guard_namespace *found;

		if (at == &init_user_ns)
			return 0;
		found = bpf_map_lookup_elem(&namespaces, &number);
		if (found && (found->enforced.own_network | found->enforced.revocable | found->watched.own_network |
			      found->watched.revocable))
			return found;
		at = READ(at, parent);
	}
	return 0;
}

static __always_inline int is_in_host_network(void)
{
	struct nsproxy *nsproxy = READ(bpf_get_current_task_btf(), nsproxy);

	return nsproxy && READ(nsproxy, net_ns) == &init_net;
}

/* What a descriptor is now; between our look and the kernel's another thread may change that. 0: nothing. */
static __noinline struct file *file_of(__u32 fd)
{
	struct files_struct *files = READ(bpf_get_current_task_btf(), files);
	struct fdtable *table = READ(files, fdt);
	struct file **all = READ(table, fd), *file = 0;

	if (fd < READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), all + fd);
	return file;
}

static __always_inline int is_host_network(__u32 fd)
{
	const struct net *host = (const void *)&init_net;
	struct inode *inode = READ(file_of(fd), f_inode);

	return READ(READ(inode, i_sb), s_magic) == NSFS_MAGIC && READ(inode, i_ino) == READ(host, ns.inum);
}

/* The delegation that a program or map is of, by its descriptor; 0: of none. */
static __noinline __u64 delegation_of_fd(__u32 fd)
{
	struct file *file = file_of(fd);
	const void *kind = READ(file, f_op);
	__u64 at = (__u64)READ(file, private_data);

	if (kind == &bpf_prog_fops) {
		struct guard_program *program = bpf_map_lookup_elem(&programs, &at);

		return program ? program->delegation : 0;
	}
	if (kind == &bpf_map_fops) {
		struct guard_map *map = bpf_map_lookup_elem(&maps, &at);

		return map ? map->delegation : 0;
	}
	return 0;
}

/* What was loaded under a delegation that has ended goes on where it is attached, and is attached no more. */
static __noinline int guard_ended(__u32 cmd, __u32 fd)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd };
	struct guard_delegation *of = delegation_by(delegation_of_fd(fd));

	if (!of)
		return 0;
	under(&what, of);
	what.reason = liveness(of);
	return what.reason ? judge(&what, -EACCES) : 0;
}

/* The first rule that an attachment breaks. A program that is only run (test_run) reaches the network too: it can send there. */
static __always_inline __u8 judge_attachment(__u32 cmd, __u32 type, __u32 target, __u32 own_network,
					     __u32 revocable)
{
	if (own_network && (cmd == BPF_PROG_TEST_RUN || (type < 64 && NETWORK_TYPES >> type & 1)) && is_in_host_network())
		return GUARD_NETWORK;
	/* Links of these name the network. */
	if (own_network && cmd == BPF_LINK_CREATE && (type == BPF_SK_LOOKUP || type == BPF_FLOW_DISSECTOR) &&
	    is_host_network(target))
		return GUARD_NETWORK;
	if (revocable && cmd == BPF_PROG_ATTACH && !(type < 64 && MAP_TYPES >> type & 1))
		return GUARD_OUTLIVES;
	return GUARD_NONE;
}

static __noinline int guard_attachment(__u32 cmd, __u32 type, __u32 target)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = type };
	struct guard_namespace *rules = rules_of_namespace();

	if (!rules)
		return 0;
	what.delegation = rules->delegation;
	what.mode = GUARD_ENFORCE;
	what.reason = judge_attachment(cmd, type, target, rules->enforced.own_network, rules->enforced.revocable);
	if (!what.reason) {
		what.mode = GUARD_PERMISSIVE;
		what.reason = judge_attachment(cmd, type, target, rules->watched.own_network, rules->watched.revocable);
	}
	return what.reason ? judge(&what, -EACCES) : 0;
}

static __noinline int guard_confined(__u32 cmd, __u32 type, __u32 target, __u64 id)
{
	struct judged what = { .point = GUARD_COMMAND, .cmd = cmd, .quiet = 1 };
	struct guard_delegation *of = judged_by(id, &what);
	struct guard_rules rules;

	if (!of)
		return judge(&what, -EPERM);
	if (cmd < 64 && PRIVILEGED_COMMANDS >> cmd & 1) {
		if (!what.reason && !(of->terms.masks.cmds >> cmd & 1))
			what.reason = GUARD_RIGHTS;
		return what.reason ? judge(&what, -EPERM) : 0;
	}
	if (cmd != BPF_PROG_ATTACH && cmd != BPF_LINK_CREATE)
		return 0;
	what.point = GUARD_ATTACH;
	what.type = type;
	rules = rules_of(&of->terms);
	what.reason = judge_attachment(cmd, type, target, rules.own_network, rules.revocable);
	return what.reason ? judge(&what, -EACCES) : 0;
}

HOOK("bpf")
int guard_bpf(__u64 *ctx)
{
	__u32 cmd = ctx[0], fd;
	struct attach_attr attr = {};
	__u64 id;
	int verdict;

	if (cmd > 63 || !((PRIVILEGED_COMMANDS | ATTACH_COMMANDS) >> cmd & 1))
		return 0;
	if (ATTACH_COMMANDS >> cmd & 1) {
		bpf_probe_read_kernel(&attr, sizeof(attr), (const void *)ctx[1]);
		fd = subject_fd(cmd, &attr);
		if (cmd != BPF_PROG_ATTACH && cmd != BPF_LINK_CREATE)
			attr.type = NO_TYPE;
		verdict = guard_ended(cmd, fd);
		if (verdict)
			return verdict;
		verdict = guard_attachment(cmd, attr.type, attr.target);
		if (verdict)
			return verdict;
	}
	if (!some_are_confined())
		return 0;
	id = confinement();
	return id ? guard_confined(cmd, attr.type, attr.target, id) : 0;
}

#endif
