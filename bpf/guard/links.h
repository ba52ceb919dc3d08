/*
 * Links are judged once more. When bpf(2) is called another thread can exchange a descriptor after
 * the guard has looked and before the kernel does. What the kernel has taken is in the link that it
 * makes: program, cgroup, network. It gives the link a number, then it allocates the link's file,
 * which asks a hook, and only then it attaches. Which of the links is the caller's the hook is not
 * told; so all are judged that were begun since the call was, and have not come to anything yet.
 * The caller's own is among them.
 */
#ifndef GUARD_LINKS_H
#define GUARD_LINKS_H

/* Links that may have been begun meanwhile; where there are more, the call is refused. */
#define LINKS_MAX 64

/* The number that the next link gets. They only go up, until they are all used up and begin anew. */
static __always_inline __u32 next_link(void)
{
	return READ((struct idr *)&link_idr, idr_next);
}

/* The call may make a link. 0: that cannot be remembered. */
static __noinline int expect_link(__u32 cmd, __u32 type)
{
	struct link_call *making =
		bpf_task_storage_get(&making_links, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!making)
		return 0;
	making->cmd = cmd;
	making->type = type;
	making->since = next_link();
	making->expected = 1;
	return 1;
}

/* The pointer at this place, as a number: verifiers let nobody look at the bits of a pointer. */
static __always_inline __u64 pointer_at(__u64 place)
{
	__u64 pointer = 0;

	bpf_probe_read_kernel(&pointer, sizeof(pointer), (const void *)place);
	return pointer;
}

/* The link of this number; 0: there is none. Nodes have the lowest bits 10. */
static __noinline __u64 link_by(__u32 number)
{
	__u64 at = (__u64)&link_idr + __builtin_preserve_field_info(((struct idr *)0)->idr_rt.xa_head, 0);
	__u32 bytes = __builtin_preserve_field_info(((struct xa_node *)0)->slots, 1);

	at = pointer_at(at);
	for (int level = 0; level < 7 && (at & 3) == 2 && at > 4096; level++) {
		struct xa_node *node = (struct xa_node *)(at - 2);
		__u64 place = (__u64)(number >> (READ(node, shift) & 31)) * sizeof(void *);

		/* In the topmost node: the tree is not that high. */
		if (level == 0 && place >= bytes)
			return 0;
		place &= bytes - 1;
		at = pointer_at(at - 2 + __builtin_preserve_field_info(((struct xa_node *)0)->slots, 0) + place);
	}
	return at & 3 ? 0 : at;
}

static __always_inline int is_of_host_network(struct bpf_link *link)
{
	return READ(link, type) == BPF_LINK_TYPE_NETNS &&
	       READ((struct bpf_netns_link *)link, net) == (const void *)&init_net;
}

/* The first rule of its delegation that the link breaks, whosever it is. */
static __noinline __u8 judge_link(struct bpf_link *link, __u32 type, const struct guard_delegation *of)
{
	struct guard_rules rules = rules_of(&of->terms);

	if (rules.own_network && is_of_host_network(link))
		return GUARD_NETWORK;
	/* Where the caller is says nothing of a link that may be another's. */
	if (rules.own_network && is_network_type(type) && is_in_host_network() && of->user_namespace &&
	    is_inside(of->user_namespace))
		return GUARD_NETWORK;
	if (READ(link, type) == BPF_LINK_TYPE_CGROUP && !(of->terms.flags & GUARD_ANY_CGROUP) &&
	    !is_own_cgroup(READ((struct bpf_cgroup_link *)link, cgroup), of))
		return GUARD_CGROUP;
	return GUARD_NONE;
}

/*
 * Only what is refused is said: of the rest the call itself has told. A link of somebody else's is
 * refused to him, too, so that nobody is refused anything because of a call that is allowed; but
 * for one of the host's root to the host's network, at that very moment.
 */
static __noinline int refuses_link(struct bpf_link *link, const struct link_call *by)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = by->cmd, .type = by->type, .quiet = 1 };
	struct bpf_prog *program = READ(link, prog);
	struct guard_namespace rules = {};
	struct guard_delegation *of;

	if (!program)
		return 0;
	of = owner_of_program(program, &what);
	if (of) {
		if (!what.reason)
			what.reason = judge_link(link, by->type, of);
		if (what.mode != GUARD_PERMISSIVE && verdict_of(&what))
			return 1;
	}
	if (!is_of_host_network(link))
		return 0;
	rules_of_namespace(&rules);
	if (!rules.enforced.own_network)
		return 0;
	what.delegation = rules.delegation;
	what.mode = GUARD_ENFORCE;
	what.reason = GUARD_NETWORK;
	return verdict_of(&what) != 0;
}

struct making {
	struct link_call call;
	int refused;
};

static long judge_next_link(__u32 i, struct making *making)
{
	struct bpf_link *link = (struct bpf_link *)link_by(making->call.since + i);

	/* It gets its id when it has come to something. */
	if (link && !READ(link, id))
		making->refused = refuses_link(link, &making->call);
	return making->refused;
}

static __noinline int guard_links(struct link_call *expected)
{
	struct making making = { .call = *expected };
	__u32 count = next_link() - expected->since;

	/* This file is something else's, and the call has made no link. */
	if (!count)
		return 0;
	expected->expected = 0;
	if (count > LINKS_MAX) {
		struct judged what = { .point = GUARD_ATTACH, .cmd = making.call.cmd, .type = making.call.type };

		beyond_mode(&what, GUARD_UNREADABLE);
		return judge(&what, -EACCES);
	}
	bpf_loop(count, judge_next_link, &making, 0);
	return making.refused ? -EACCES : 0;
}

struct pt_regs___x86 {
	unsigned long di, bx, orig_ax;
} __core;

struct pt_regs___arm64 {
	__u64 orig_x0;
	int syscallno;
} __core;

static void *(*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

enum {
	FIELD_EXISTS = 2,
	X32_BIT = 0x40000000,
	NR_BPF = 321,
	NR_BPF_32 = 357,
	NR_BPF_ARM64 = 280,
	COMMON_ATTRS = 1 << 16, /* Since Linux 7.2 a flag beside the command. */
	NO_COMMAND = ~0u,
};

/* The command of the call of bpf(2) that the task is in. */
static __always_inline __u32 command_of(struct task_struct *task)
{
	void *given = bpf_task_pt_regs(task);
	struct pt_regs___x86 *regs = given;
	__u32 number;

	if (!__builtin_preserve_field_info(((struct pt_regs___x86 *)0)->orig_ax, FIELD_EXISTS)) {
		struct pt_regs___arm64 *arm64 = given;

		return arm64->syscallno == NR_BPF_ARM64 ? (__u32)arm64->orig_x0 & ~COMMON_ATTRS : NO_COMMAND;
	}
	number = (__u32)regs->orig_ax & ~X32_BIT;
	if (number == NR_BPF)
		return (__u32)regs->di & ~COMMON_ATTRS;
	return number == NR_BPF_32 ? (__u32)regs->bx & ~COMMON_ATTRS : NO_COMMAND;
}

/* A call that failed before it made a link leaves what it expected. Programs that are run call bpf(2), too. */
static __always_inline int is_still_in(const struct link_call *making, struct task_struct *task)
{
	__u32 cmd = command_of(task);

	return cmd == making->cmd || cmd == BPF_PROG_TEST_RUN;
}

/* The hook file_alloc_security itself takes no BPF programs since Linux 7; who asks it does. */
#ifndef FUNCTION
#define FUNCTION(name) SEC("fmod_ret/" name)
#endif

FUNCTION("security_file_alloc")
int guard_file_alloc(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct link_call *making = bpf_task_storage_get(&making_links, task, 0, 0);

	if (!making || !making->expected)
		return 0;
	if (is_still_in(making, task))
		return guard_links(making);
	making->expected = 0;
	return 0;
}

#endif
