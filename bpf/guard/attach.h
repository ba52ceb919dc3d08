/*
 * Commands of bpf(2) that the kernel judges by the descriptor alone: attachment, what comes to the
 * same, and what undoes it; and what else a confined cgroup may call. The object's delegation
 * decides, whoever calls.
 */
#ifndef GUARD_ATTACH_H
#define GUARD_ATTACH_H

/* The beginning of union bpf_attr (include/uapi/linux/bpf.h), as these commands have it. */
union attach_attr {
	struct {
		__u32 program; /* of a link, or the link */
		__u32 target; /* of a link: descriptor, or number of a device */
		__u32 type;
	};
	struct {
		__u32 target;
		__u32 program;
		__u32 type;
		__u32 flags;
		__u32 replaced; /* descriptor; under BPF_F_REPLACE */
	} attach; /* PROG_ATTACH, PROG_DETACH */
	struct {
		__u32 link;
		__u32 program;
	} update; /* LINK_UPDATE, LINK_DETACH, ITER_CREATE */
	struct {
		__u64 name;
		__u32 program;
	} tracepoint;
	struct {
		__u32 map;
		__u64 key;
		__u64 value;
	} element;
	struct {
		__u64 in;
		__u64 out;
		__u64 keys;
		__u64 values;
		__u32 count;
		__u32 map;
	} batch;
};

#define NO_TYPE (~0U)
#define NO_FD (~0U)

/* ---- what a descriptor is ---- */

/*
 * Now: between our look and the kernel's another thread may change that. 0: nothing. The table is of
 * pointers, through which the verifier lets nobody read; a structure of one pointer is read for each.
 */
static __always_inline struct file *file_in(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = task->files->fdt;

	if (fd >= table->max_fds)
		return 0;
	return (struct file *)READ((struct hlist_head *)(table->fd + fd), first);
}

static __noinline struct file *file_of(__u32 fd)
{
	return file_in(bpf_get_current_task_btf(), fd);
}

/* What the file is of, if it is a file of this kind; else 0. */
static __always_inline void *object_of(struct file *file, const void *kind)
{
	return READ(file, f_op) == kind ? READ(file, private_data) : 0;
}

static __always_inline struct bpf_link *link_of(struct file *file)
{
	const void *kind = READ(file, f_op);

	if (kind == &bpf_link_fops || (&bpf_link_fops_poll && kind == &bpf_link_fops_poll))
		return READ(file, private_data);
	return 0;
}

/*
 * The cgroup whose directory the file is; 0: it is none. The kernel goes on only with a directory,
 * as we do.
 */
static __always_inline struct cgroup *cgroup_of(struct file *file)
{
	struct inode *inode = READ(file, f_inode);

	if (READ(READ(inode, i_sb), s_magic) != CGROUP2_MAGIC)
		return 0;
	return READ((struct kernfs_node *)READ(inode, i_private), priv);
}

/* What `target` of BPF_LINK_CREATE, BPF_PROG_ATTACH and BPF_PROG_DETACH is, by the attach type. */
enum target {
	TARGET_CGROUP, /* descriptor */
	TARGET_DEVICE, /* number, which may be that of a descriptor by chance */
	TARGET_NAMESPACE, /* descriptor, of BPF_LINK_CREATE; else the caller's own */
	TARGET_MAP, /* descriptor */
	TARGET_OTHER, /* descriptor of something else, or nothing */
	TARGET_UNKNOWN, /* each rule takes it for what is stricter */
};

static __always_inline enum target target_of(__u32 type)
{
	if (type > LAST_TYPE)
		return TARGET_UNKNOWN;
	if (DEVICE_TYPES >> type & 1)
		return TARGET_DEVICE;
	if (NAMESPACE_TYPES >> type & 1)
		return TARGET_NAMESPACE;
	if (MAP_TYPES >> type & 1)
		return TARGET_MAP;
	return OTHER_TYPES >> type & 1 ? TARGET_OTHER : TARGET_CGROUP;
}

/* The cgroup that something is attached to; 0: it is none. */
static __always_inline struct cgroup *target_cgroup(__u32 type, __u32 target)
{
	enum target what = target_of(type);

	return what == TARGET_CGROUP || what == TARGET_UNKNOWN ? cgroup_of(file_of(target)) : 0;
}

/* Whether that is the network, or may be. */
static __always_inline int is_network_type(__u32 type)
{
	return type != NO_TYPE && (type > LAST_TYPE || NETWORK_TYPES >> type & 1);
}

/* ---- whose it is ---- */

/*
 * The delegation of a program, and a first verdict in `what`; 0 without a reason: it is nobody's.
 */
static __noinline struct guard_delegation *owner_of_program(struct bpf_prog *program, struct judged *what)
{
	struct bpf_prog_aux *aux = READ(program, aux);
	struct guard_program *entry;

	if (!aux)
		return 0;
	entry = program_of((__u64)aux, (__u64)READ(aux, token), what);
	return entry ? delegation_by(entry->delegation) : 0;
}

static __always_inline struct guard_delegation *owner_of_map(struct bpf_map *map, struct judged *what)
{
	__u64 at = (__u64)map;
	struct guard_map *entry = bpf_map_lookup_elem(&maps, &at);

	return entry ? judged_by(entry->delegation, what) : 0;
}

/* A link is its program's; one of struct_ops has none, and is its map's. */
static __always_inline struct guard_delegation *owner_of_link(struct bpf_link *link, struct judged *what)
{
	struct bpf_prog *program = READ(link, prog);

	if (program)
		return owner_of_program(program, what);
	if (READ(link, type) != BPF_LINK_TYPE_STRUCT_OPS)
		return 0;
	return owner_of_map(READ((struct bpf_struct_ops_link *)link, map), what);
}

/* Of whatever the descriptor is. */
static __noinline struct guard_delegation *owner_of(__u32 fd, struct judged *what)
{
	struct file *file = file_of(fd);
	void *object = object_of(file, &bpf_prog_fops);

	if (object)
		return owner_of_program(object, what);
	object = object_of(file, &bpf_map_fops);
	if (object)
		return owner_of_map(object, what);
	object = link_of(file);
	return object ? owner_of_link(object, what) : 0;
}

/* ---- the rules of the current task's user namespace ---- */

/* What is lent to it, and to those above it, all together; its delegation is 0: nothing. */
static __noinline int rules_of_namespace(struct guard_namespace *all)
{
	const struct cred *cred = READ(bpf_get_current_task_btf(), real_cred);
	struct user_namespace *at = READ(cred, user_ns);

	/* The kernel nests them no deeper. */
	for (int level = 0; at && level < 33; level++) {
		__u64 number = READ(at, ns.inum);
		struct guard_namespace *found;

		if (at == &init_user_ns)
			return 0;
		found = bpf_map_lookup_elem(&namespaces, &number);
		if (found) {
			all->enforced.own_network |= found->enforced.own_network;
			all->enforced.revocable |= found->enforced.revocable;
			all->watched.own_network |= found->watched.own_network;
			all->watched.revocable |= found->watched.revocable;
			/* For events: the nearest one. */
			if (!all->delegation)
				all->delegation = found->delegation;
		}
		at = READ(at, parent);
	}
	return 0;
}

/* ---- rules ---- */

/*
 * Whether another task can exchange what a descriptor is after we have looked. A table that is not
 * shared stays as it is while its only task is in a call.
 */
static __always_inline int shares_descriptors(void)
{
	struct files_struct *files = READ(bpf_get_current_task_btf(), files);

	return READ(files, count.counter) > 1;
}

static __always_inline int is_in_host_network(void)
{
	struct nsproxy *nsproxy = READ(bpf_get_current_task_btf(), nsproxy);

	return nsproxy && READ(nsproxy, net_ns) == &init_net;
}

static __always_inline int is_host_network(__u32 fd)
{
	const struct net *host = (const void *)&init_net;
	struct inode *inode = READ(file_of(fd), f_inode);

	return READ(READ(inode, i_sb), s_magic) == NSFS_MAGIC && READ(inode, i_ino) == READ(host, ns.inum);
}

/*
 * The first rule that an attachment breaks. A program that is only run (test_run) reaches the
 * network too: it can send there.
 */
static __always_inline __u8 judge_attachment(__u32 cmd, __u32 type, __u32 target, __u32 own_network,
					     __u32 revocable)
{
	if (own_network && (cmd == BPF_PROG_TEST_RUN || is_network_type(type)) && is_in_host_network())
		return GUARD_NETWORK;
	/* Links of these name the network. */
	if (own_network && cmd == BPF_LINK_CREATE && target_of(type) == TARGET_NAMESPACE && is_host_network(target))
		return GUARD_NETWORK;
	if (revocable && cmd == BPF_PROG_ATTACH && target_of(type) != TARGET_MAP)
		return GUARD_OUTLIVES;
	return GUARD_NONE;
}

/*
 * Whether a cgroup is the workload's own, or below it: where its tokens may be made, or else where
 * the first one was made. The root of all is nobody's.
 */
static __noinline int is_own_cgroup(struct cgroup *at, const struct guard_delegation *of)
{
	struct guard_usage *usage = usage_by(of->id);
	__u64 own = of->cgroup;

	if (!own && usage)
		own = usage->home;
	for (int level = 0; at && level < 64; level++) {
		struct cgroup_subsys_state *up = READ(at, self.parent);

		if (!up)
			return 0;
		if (READ(READ(at, kn), id) == own)
			return 1;
		at = CONTAINER(up, struct cgroup, self);
	}
	return 0;
}

static __always_inline __u8 judge_cgroup(__u32 cmd, __u32 type, __u32 target, const struct guard_delegation *of)
{
	struct cgroup *cgroup;

	if (of->terms.flags & GUARD_ANY_CGROUP || (cmd != BPF_LINK_CREATE && cmd != BPF_PROG_ATTACH))
		return GUARD_NONE;
	cgroup = target_cgroup(type, target);
	return cgroup && !is_own_cgroup(cgroup, of) ? GUARD_CGROUP : GUARD_NONE;
}

/* All that is asked of an attachment under a delegation. */
static __noinline __u8 judge_terms(__u32 cmd, __u32 type, __u32 target, const struct guard_delegation *of)
{
	struct guard_rules rules = rules_of(&of->terms);
	__u8 reason = judge_attachment(cmd, type, target, rules.own_network, rules.revocable);

	return reason ? reason : judge_cgroup(cmd, type, target, of);
}

/*
 * A map that carries devices or sockets becomes somebody's descriptor. In another user namespace he
 * could be in the host's network, and exchange it for a harmless map while he is judged.
 */
static __noinline int guard_passed_map(struct bpf_map *map)
{
	struct judged what = { .point = GUARD_RECEIVE, .cmd = NO_CMD, .quiet = 1 };
	struct guard_delegation *of;
	__u32 type = READ(map, map_type);

	if (type > 63 || !(DEVICE_MAPS >> type & 1) || is_host_root())
		return 0;
	of = owner_of_map(map, &what);
	if (!of)
		return 0;
	/* An ended delegation's programs may run on. */
	what.reason = rules_of(&of->terms).own_network && is_stranger(of) ? GUARD_STRANGER : GUARD_NONE;
	return judge(&what, -EACCES);
}

/* ---- attaching ---- */

static __always_inline int verdict_of(struct judged *what)
{
	return what->reason ? judge(what, -EACCES) : 0;
}

/*
 * What is attached or run is judged by its own delegation: it has ended; it is not the caller's;
 * its terms do not allow it. The host's root may attach what it likes, but not what has ended.
 */
static __always_inline int judge_object(const struct guard_delegation *of, struct judged *what)
{
	if (is_host_root())
		return of ? verdict_of(what) : 0;
	if (of && !what->reason && is_stranger(of))
		what->reason = GUARD_STRANGER;
	return verdict_of(what);
}

/* The same of what a descriptor is, and with the terms of what it is attached to. */
static __noinline int guard_attachment(__u32 cmd, __u32 fd, __u32 type, __u32 target)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = type };
	struct guard_delegation *of = owner_of(fd, &what);

	if (is_host_root())
		return of ? verdict_of(&what) : 0;
	if (of && !what.reason && is_stranger(of))
		what.reason = GUARD_STRANGER;
	if (of && !what.reason)
		what.reason = judge_terms(cmd, type, target, of);
	return verdict_of(&what);
}

/* The same by the caller's user namespace, for which the descriptor does not matter. */
static __noinline int guard_namespace_rules(__u32 cmd, __u32 type, __u32 target)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = type };
	struct guard_namespace rules = {};

	rules_of_namespace(&rules);
	if (!rules.delegation)
		return 0;
	what.delegation = rules.delegation;
	what.mode = GUARD_ENFORCE;
	what.reason = judge_attachment(cmd, type, target, rules.enforced.own_network, rules.enforced.revocable);
	if (!what.reason) {
		what.mode = GUARD_PERMISSIVE;
		what.reason = judge_attachment(cmd, type, target, rules.watched.own_network, rules.watched.revocable);
	}
	return verdict_of(&what);
}

/* ---- taking away ---- */

/*
 * Of one who is not the host's root, and holds a descriptor of it. What is of no delegation that
 * was lent to a user namespace is the host's: there the kernel's rule stays, by which the
 * descriptor is enough.
 */
static __always_inline int may_take_away(const struct guard_delegation *of, const struct judged *what)
{
	if (of && of->user_namespace)
		return !is_stranger(of);
	return (of || !what->reason) && bpf_get_current_task_btf()->real_cred->user_ns == &init_user_ns;
}

/* What is attached to a cgroup: one list and one byte of flags for each type. Addresses. */
struct others {
	__u64 flags;
	__u64 lists;
	__u32 found;
};

/*
 * Whether something is attached to this cgroup that is not the caller's, and that the kernel lets
 * anybody take away or replace: all that was attached without BPF_F_ALLOW_MULTI. For the rest it
 * wants the program's descriptor. Links are never attached so.
 */
static long find_others(__u32 i, struct others *among)
{
	struct judged whose = {};
	struct guard_delegation *of;
	struct hlist_node *node;
	__u8 flag = 0;

	bpf_probe_read_kernel(&node, sizeof(node), (void *)(among->lists + i * sizeof(node)));
	bpf_probe_read_kernel(&flag, sizeof(flag), (void *)(among->flags + i));
	if (!node || flag & BPF_F_ALLOW_MULTI)
		return 0;
	of = owner_of_program(READ(CONTAINER(node, struct bpf_prog_list, node), prog), &whose);
	if (of && of->user_namespace && is_inside(of->user_namespace))
		return 0;
	among->found = 1;
	return 1;
}

static __noinline int has_others(struct cgroup *cgroup)
{
	__u32 types = __builtin_preserve_field_info(cgroup->bpf.flags, 1);
	struct others among = {
		.flags = (__u64)cgroup + __builtin_preserve_field_info(cgroup->bpf.flags, 0),
		.lists = (__u64)cgroup + __builtin_preserve_field_info(cgroup->bpf.progs, 0),
	};

	bpf_loop(types, find_others, &among, 0);
	return among.found;
}

static __noinline int refuse_taking(__u32 cmd, __u32 type, const struct guard_delegation *of)
{
	struct judged what = { .point = GUARD_DETACH, .cmd = cmd, .type = type };

	if (of)
		under(&what, of);
	else
		under_host(&what, GUARD_NONE);
	what.reason = GUARD_NOT_OWN;
	return judge(&what, -EACCES);
}

/* Of the program that a descriptor names, which must be one. */
static __noinline int guard_taking_named(__u32 cmd, __u32 type, __u32 fd)
{
	struct bpf_prog *program = object_of(file_of(fd), &bpf_prog_fops);
	struct guard_delegation *of = 0;
	struct judged whose = {};

	if (program)
		of = owner_of_program(program, &whose);
	return program && may_take_away(of, &whose) ? 0 : refuse_taking(cmd, type, of);
}

/* A map keeps one program of each type. */
static __noinline int guard_taking_of_map(__u32 cmd, __u32 type, __u32 fd)
{
	struct bpf_map *map = object_of(file_of(fd), &bpf_map_fops);
	struct guard_delegation *of = 0;
	struct judged whose = {};

	if (map)
		of = owner_of_map(map, &whose);
	return !map || may_take_away(of, &whose) ? 0 : refuse_taking(cmd, type, of);
}

/* A network namespace keeps one flow dissector; that of a link is not replaced. */
static __noinline int guard_taking_dissector(__u32 cmd)
{
	struct nsproxy *nsproxy = READ(bpf_get_current_task_btf(), nsproxy);
	struct net *net = READ(nsproxy, net_ns);
	/* The first of them: NETNS_BPF_FLOW_DISSECTOR. */
	struct hlist_head *first_of = (void *)net + __builtin_preserve_field_info(net->bpf.progs, 0);
	struct bpf_prog *program = (struct bpf_prog *)READ(first_of, first);
	struct guard_delegation *of;
	struct judged whose = {};

	if (!program)
		return 0;
	of = owner_of_program(program, &whose);
	return may_take_away(of, &whose) ? 0 : refuse_taking(cmd, BPF_FLOW_DISSECTOR, of);
}

/*
 * BPF_PROG_ATTACH and BPF_LINK_CREATE replace what was there: in a cgroup what was attached alone,
 * in a map or network namespace what was attached without a link, and what BPF_F_REPLACE names.
 */
static __noinline int guard_replacing(__u32 cmd, __u32 type, __u32 target, __u32 flags, __u32 replaced)
{
	enum target what = target_of(type);

	if (what == TARGET_MAP || what == TARGET_UNKNOWN) {
		int verdict = guard_taking_of_map(cmd, type, target);

		if (verdict)
			return verdict;
	}
	if (cmd != BPF_PROG_ATTACH)
		return 0;
	if (flags & BPF_F_REPLACE) {
		int verdict = guard_taking_named(cmd, type, replaced);

		if (verdict)
			return verdict;
	}
	if (what == TARGET_NAMESPACE)
		return guard_taking_dissector(cmd);
	if (!(flags & BPF_F_ALLOW_MULTI)) {
		struct cgroup *cgroup = target_cgroup(type, target);

		if (cgroup && has_others(cgroup))
			return refuse_taking(cmd, type, 0);
	}
	return 0;
}

/*
 * BPF_PROG_DETACH. Of a cgroup the kernel takes what was attached alone, whatever program is named;
 * of a device without a program, which 0 stands for, the first or last one.
 */
static __noinline int guard_detaching(__u32 cmd, __u32 type, __u32 target, __u32 fd)
{
	enum target what = target_of(type);
	int unnamed = !fd && (what == TARGET_DEVICE || what == TARGET_UNKNOWN);
	struct cgroup *cgroup = target_cgroup(type, target);
	struct bpf_prog *program = unnamed ? 0 : object_of(file_of(fd), &bpf_prog_fops);
	struct guard_delegation *of = 0;
	struct judged whose = {};

	if (program)
		of = owner_of_program(program, &whose);
	if (program && !may_take_away(of, &whose))
		return refuse_taking(cmd, type, of);
	if (cgroup && has_others(cgroup))
		return refuse_taking(cmd, type, of);
	return program || what == TARGET_CGROUP ? 0 : refuse_taking(cmd, type, of);
}

/* BPF_LINK_DETACH, and BPF_LINK_UPDATE, whose new program must be of the same delegation. */
static __noinline int guard_taking_link(__u32 cmd, __u32 fd, __u32 program)
{
	struct bpf_link *link = link_of(file_of(fd));
	struct judged whose = {}, whose_next = {};
	struct guard_delegation *of, *next;

	if (!link)
		return 0;
	of = owner_of_link(link, &whose);
	if (!may_take_away(of, &whose))
		return refuse_taking(cmd, NO_TYPE, of);
	if (cmd != BPF_LINK_UPDATE)
		return 0;
	next = owner_of(program, &whose_next);
	if ((of ? of->id : 0) == (next ? next->id : 0))
		return 0;
	return refuse_taking(cmd, NO_TYPE, next ? next : of);
}

/* ---- what is put into a map ---- */

/* A descriptor in a value: the program or map that it puts to work is attached by that. */
static __noinline int guard_value(__u32 cmd, __u64 value, __u32 type)
{
	__u32 fd = 0, at = 0;

	/* In these the program follows the device or the size of a queue, and may be left out. */
	if (type == BPF_MAP_TYPE_DEVMAP || type == BPF_MAP_TYPE_DEVMAP_HASH || type == BPF_MAP_TYPE_CPUMAP)
		at = 4;
	/* A program of the kernel's own loader has its values in kernel memory. */
	if (bpf_probe_read_user(&fd, sizeof(fd), (const void *)value + at) &&
	    bpf_probe_read_kernel(&fd, sizeof(fd), (const void *)value + at)) {
		struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = NO_TYPE };

		under_host(&what, GUARD_UNREADABLE);
		return judge(&what, -EACCES);
	}
	if (at && !fd)
		return 0;
	return guard_attachment(cmd, fd, NO_TYPE, NO_FD);
}

struct batch {
	__u64 values;
	__u32 cmd;
	__u32 type;
	int verdict;
};

/* Of map-in-map, which alone have batches. */
static long guard_one_of(__u32 i, struct batch *of)
{
	of->verdict = guard_value(of->cmd, of->values + 4 * i, of->type);
	return of->verdict != 0;
}

static __always_inline int guard_batch(__u32 cmd, __u64 values, __u32 count, __u32 type)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = NO_TYPE };
	struct batch of = { .values = values, .cmd = cmd, .type = type };

	bpf_loop(count < BATCH_MAX ? count : BATCH_MAX, guard_one_of, &of, 0);
	if (of.verdict || count <= BATCH_MAX)
		return of.verdict ? -EACCES : 0;
	under_host(&what, GUARD_UNREADABLE);
	return judge(&what, -EACCES);
}

/*
 * The map itself, whose programs a write to one of struct_ops may register; and the network that
 * devices and sockets are of: that of whoever puts them in.
 */
static __noinline int guard_carrier(__u32 cmd, struct bpf_map *map, __u32 type)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = NO_TYPE };
	struct guard_delegation *of = owner_of_map(map, &what);
	struct guard_namespace rules = {};

	if (of && !what.reason && type == BPF_MAP_TYPE_STRUCT_OPS && is_stranger(of))
		what.reason = GUARD_STRANGER;
	if (what.reason || !(DEVICE_MAPS >> type & 1) || !is_in_host_network())
		return verdict_of(&what);
	if (of && rules_of(&of->terms).own_network)
		what.reason = GUARD_NETWORK;
	/* A permissive delegation does not speak for the others of the caller's user namespace. */
	if (verdict_of(&what))
		return -EACCES;
	what.reason = GUARD_NONE;
	rules_of_namespace(&rules);
	if (!rules.delegation)
		return 0;
	what.delegation = rules.delegation;
	what.mode = rules.enforced.own_network ? GUARD_ENFORCE : GUARD_PERMISSIVE;
	if (rules.enforced.own_network | rules.watched.own_network)
		what.reason = GUARD_NETWORK;
	return verdict_of(&what);
}

/*
 * A task in the host's network, of a user namespace that may not reach it. Where the descriptor can
 * be exchanged it does not say which map is written to, so that none is.
 */
static __noinline int guard_exchange(__u32 cmd)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = cmd, .type = NO_TYPE, .mode = GUARD_ENFORCE };
	struct guard_namespace rules = {};

	if (!shares_descriptors())
		return 0;
	rules_of_namespace(&rules);
	if (!rules.enforced.own_network)
		return 0;
	what.delegation = rules.delegation;
	what.reason = GUARD_NETWORK;
	return verdict_of(&what);
}

static __noinline int guard_update(__u32 cmd, struct bpf_map *map, const void *ctx_attr)
{
	union attach_attr attr = {};
	__u32 type = READ(map, map_type);
	int verdict;

	if (type > 63 || !(CARRIER_MAPS >> type & 1))
		return 0;
	verdict = guard_carrier(cmd, map, type);
	if (verdict || cmd == BPF_MAP_FREEZE || !(OBJECT_MAPS >> type & 1))
		return verdict;
	bpf_probe_read_kernel(&attr, sizeof(attr), ctx_attr);
	if (cmd == BPF_MAP_UPDATE_BATCH)
		return guard_batch(cmd, attr.batch.values, attr.batch.count, type);
	/* A devmap's or cpumap's value may be without a program altogether. */
	if (READ(map, value_size) < 8 && type != BPF_MAP_TYPE_PROG_ARRAY && type != BPF_MAP_TYPE_ARRAY_OF_MAPS &&
	    type != BPF_MAP_TYPE_HASH_OF_MAPS)
		return 0;
	return guard_value(cmd, attr.element.value, type);
}

/*
 * The map that is written to, if it is one that carries something; else 0. Inline and with one call,
 * since most writes are to others, and on some processors a return costs as much as a lookup.
 */
static __always_inline struct bpf_map *carrier_of(struct task_struct *task, __u32 cmd, const void *ctx_attr)
{
	__u32 fd = *(const __u32 *)ctx_attr, type;
	struct bpf_map *map;

	if (cmd == BPF_MAP_UPDATE_BATCH)
		bpf_probe_read_kernel(&fd, sizeof(fd), ctx_attr + __builtin_offsetof(union attach_attr, batch.map));
	map = object_of(file_in(task, fd), &bpf_map_fops);
	if (!map)
		return 0;
	type = READ(map, map_type);
	return type < 64 && CARRIER_MAPS >> type & 1 ? map : 0;
}

/* ---- confined cgroups ---- */

static __noinline int guard_confined(__u32 cmd, __u32 type, __u32 target, __u64 id)
{
	struct judged what = { .point = GUARD_COMMAND, .cmd = cmd, .quiet = 1 };
	struct guard_delegation *of = judged_by(id, &what);

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
	what.reason = judge_terms(cmd, type, target, of);
	return verdict_of(&what);
}

/* ---- the hook ---- */

static int expect_link(__u32 cmd, __u32 type);

/* What is attached or run, of what type and to what. NO_FD: there is none. */
struct attachment {
	__u32 fd;
	__u32 type;
	__u32 target;
};

static __always_inline struct attachment attachment_of(__u32 cmd, const union attach_attr *attr)
{
	struct attachment is = { .fd = attr->program, .type = NO_TYPE, .target = NO_FD };

	switch (cmd) {
	case BPF_LINK_CREATE:
		is.type = attr->type;
		is.target = attr->target;
		break;
	case BPF_PROG_ATTACH:
		is.fd = attr->attach.program;
		is.type = attr->attach.type;
		is.target = attr->attach.target;
		break;
	case BPF_LINK_UPDATE:
		is.fd = attr->update.program;
		break;
	case BPF_PROG_ASSOC_STRUCT_OPS:
		/* The map comes first. */
		is.fd = attr->update.program;
		break;
	case BPF_RAW_TRACEPOINT_OPEN:
		is.fd = attr->tracepoint.program;
		break;
	}
	return is;
}

static __noinline int guard_taking(__u32 cmd, const union attach_attr *attr)
{
	if (is_host_root())
		return 0;
	switch (cmd) {
	case BPF_PROG_ATTACH:
		return guard_replacing(cmd, attr->attach.type, attr->attach.target, attr->attach.flags,
				       attr->attach.replaced);
	case BPF_LINK_CREATE:
		return guard_replacing(cmd, attr->type, attr->target, 0, NO_FD);
	case BPF_PROG_DETACH:
		return guard_detaching(cmd, attr->attach.type, attr->attach.target, attr->attach.program);
	case BPF_LINK_DETACH:
	case BPF_LINK_UPDATE:
		return guard_taking_link(cmd, attr->update.link, attr->update.program);
	}
	return 0;
}

HOOK("bpf")
int guard_bpf(__u64 *ctx)
{
	__u32 cmd = ctx[0];
	union attach_attr attr = {};
	struct attachment is = { .type = NO_TYPE, .target = NO_FD };
	__u64 id;
	int verdict;

	if (cmd > 63 || !((PRIVILEGED_COMMANDS | ATTACH_COMMANDS | DETACH_COMMANDS | UPDATE_COMMANDS) >> cmd & 1))
		return 0;
	/*
	 * The host's root, where it is not confined, is not looked at here: what it could put into
	 * a map it could attach.
	 */
	if (UPDATE_COMMANDS >> cmd & 1) {
		struct task_struct *task = bpf_get_current_task_btf();
		struct bpf_map *map;

		if (is_root_of_host(task) && !(some_are_confined() && confinement()))
			return 0;
		verdict = is_in_host_network() ? guard_exchange(cmd) : 0;
		if (verdict)
			return verdict;
		map = carrier_of(task, cmd, (const void *)ctx[1]);
		return map ? guard_update(cmd, map, (const void *)ctx[1]) : 0;
	}
	if ((ATTACH_COMMANDS | DETACH_COMMANDS) >> cmd & 1) {
		bpf_probe_read_kernel(&attr, sizeof(attr), (const void *)ctx[1]);
		verdict = guard_taking(cmd, &attr);
		if (verdict)
			return verdict;
	}
	if (ATTACH_COMMANDS >> cmd & 1) {
		is = attachment_of(cmd, &attr);
		verdict = guard_attachment(cmd, is.fd, is.type, is.target);
		if (verdict)
			return verdict;
		verdict = guard_namespace_rules(cmd, is.type, is.target);
		if (verdict)
			return verdict;
		if (LINK_COMMANDS >> cmd & 1 && !is_host_root() && !expect_link(cmd, is.type))
			return -EACCES;
	}
	if (!some_are_confined())
		return 0;
	id = confinement();
	return id ? guard_confined(cmd, is.type, is.target, id) : 0;
}

#endif
