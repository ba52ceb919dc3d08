/* Enabling: a context is marked, abilities are named, and what took effect is judged when the superblock is created. */
#ifndef GUARD_ENABLE_H
#define GUARD_ENABLE_H

/* USER_HZ is 100 everywhere: /proc/PID/stat counts in these. */
#define NS_PER_TICK 10000000ULL

/* ---- who may delegate ---- */

static __noinline struct guard_delegator *delegator_by_cgroup(void)
{
	struct css_set *set = READ(bpf_get_current_task_btf(), cgroups);
	struct cgroup *at = READ(set, dfl_cgrp);

	for (int i = 0; at && i < GUARD_CGROUP_LEVELS; i++) {
		struct cgroup_subsys_state *up = READ(at, self.parent);
		struct cgroup *above = up ? CONTAINER(up, struct cgroup, self) : 0;
		struct kernfs_node *node = READ(at, kn), *parent = above ? READ(above, kn) : 0;
		struct guard_cgroup key = {};
		struct guard_delegator *found;

		key.parent = parent ? READ(parent, id) : 0;
		if (above)
			bpf_probe_read_kernel_str(key.name, sizeof(key.name), READ(node, name));
		/* A name that fills the field may have been cut. No delegator has one. */
		found = key.name[GUARD_NAME_BYTES - 2] ? 0 : bpf_map_lookup_elem(&cgroups, &key);
		if (found)
			return found;
		at = above;
	}
	return 0;
}

/*
 * The current task as a delegator; 0: it is none. Its process first, then its executable, then its cgroup. Whoever may not create
 * such a superblock is none either: a workload can run a listed executable, and have it say whatever it likes.
 */
static __noinline struct guard_delegator *delegator(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct guard_process process = {};
	struct guard_file file = {};
	struct guard_delegator *found;
	struct mm_struct *mm = task->mm;
	struct file *exe;

	if (!is_host_admin(task))
		return 0;
	process.tgid = task->tgid;
	process.start_ticks = task->group_leader->start_boottime / NS_PER_TICK;
	found = bpf_map_lookup_elem(&processes, &process);
	if (found || !mm)
		return found;
	exe = mm->exe_file;
	if (exe) {
		file.inode = exe->f_inode->i_ino;
		file.device = exe->f_inode->i_sb->s_dev;
		found = bpf_map_lookup_elem(&files, &file);
	}
	return found ? found : delegator_by_cgroup();
}

/* ---- what is lent ---- */

static __always_inline int is_within(const struct guard_masks *some, const struct guard_masks *all)
{
	return !((some->cmds & ~all->cmds) | (some->maps & ~all->maps) | (some->progs & ~all->progs) |
		 (some->attachs & ~all->attachs));
}

static __always_inline int is_empty(const struct guard_masks *masks)
{
	return !(masks->cmds | masks->maps | masks->progs | masks->attachs);
}

/* Nothing yet, and nothing beyond what the delegator may lend. */
static __always_inline void begin_terms(struct guard_terms *terms, const struct guard_terms *ceiling)
{
	*terms = *ceiling;
	__builtin_memset(&terms->masks, 0, sizeof(terms->masks));
	terms->capabilities = 0;
}

#define LOWER(field, other)                                                                                           \
	do {                                                                                                          \
		if ((other) < (field))                                                                                \
			(field) = (other);                                                                            \
	} while (0)

/* Rights add up, limits do not: the strictest of each holds. 0: two lists cannot hold at once. */
static __noinline int add_ability(struct guard_pending *to, const struct guard_terms *more)
{
	struct guard_terms *terms = &to->terms;

	if ((terms->digests && more->digests && terms->digests != more->digests) ||
	    (terms->functions && more->functions && terms->functions != more->functions))
		return 0;
	terms->digests |= more->digests;
	terms->functions |= more->functions;
	terms->masks.cmds |= more->masks.cmds;
	terms->masks.maps |= more->masks.maps;
	terms->masks.progs |= more->masks.progs;
	terms->masks.attachs |= more->masks.attachs;
	terms->capabilities |= more->capabilities;
	LOWER(terms->map_bytes, more->map_bytes);
	LOWER(terms->lifetime_ns, more->lifetime_ns);
	LOWER(terms->tokens, more->tokens);
	LOWER(terms->programs, more->programs);
	LOWER(terms->maps, more->maps);
	LOWER(terms->instructions, more->instructions);
	LOWER(terms->depth, more->depth);
	terms->flags &= more->flags;
	if (more->mode != GUARD_PERMISSIVE)
		terms->mode = GUARD_ENFORCE;
	if (more->events == GUARD_EVENTS_ALL || terms->events == GUARD_EVENTS_NONE)
		terms->events = more->events;
	to->abilities++;
	return 1;
}

static const struct guard_pending unmarked = {};

/* Marks the context, anew if it was marked before: what was there may be of a context that had this address. 0: cannot. */
static __noinline struct guard_pending *mark(__u64 context, __u64 data, struct guard_delegator *by)
{
	struct guard_pending *fresh;

	if (bpf_map_update_elem(&contexts, &context, &data, BPF_ANY))
		return 0;
	bpf_map_update_elem(&pending, &data, &unmarked, BPF_ANY);
	fresh = bpf_map_lookup_elem(&pending, &data);
	if (!fresh) {
		bpf_map_delete_elem(&contexts, &context);
		return 0;
	}
	fresh->context = context;
	fresh->tgid = bpf_get_current_pid_tgid() >> 32;
	fresh->ceiling = by->ceiling;
	fresh->parent = by->parent;
	fresh->cgroup = by->cgroup;
	fresh->cgroup_level = by->cgroup_level;
	if (by->implicit) {
		fresh->terms = by->ceiling;
		__builtin_memcpy(fresh->policy, by->name, sizeof(fresh->policy));
	} else {
		begin_terms(&fresh->terms, &by->ceiling);
	}
	return fresh;
}

/* ---- mount options ---- */

/* Longest key that means something to us or to bpffs, with its end and a byte more. */
#define KEY_BYTES 32

static __always_inline int begins(const char *key, const char *text, int bytes)
{
#pragma unroll
	for (int i = 0; i < bytes; i++)
		if (key[i] != text[i])
			return 0;
	return 1;
}

#define IS(key, text) begins(key, text, sizeof(text))
#define BEGINS(key, text) begins(key, text, sizeof(text) - 1)

static __always_inline int is_bpffs_type(struct fs_context *fc)
{
	char name[4] = {};

	bpf_probe_read_kernel(name, sizeof(name), fc->fs_type->name);
	return name[0] == 'b' && name[1] == 'p' && name[2] == 'f' && name[3] == 0;
}

/* `abilities=NAME`; an empty value resets. */
static __noinline int name_ability(struct guard_pending *now, struct fs_parameter *param)
{
	struct judged what = { .point = GUARD_MARK, .cmd = NO_CMD };
	struct guard_name name = {};
	struct guard_terms *terms;

	if (READ_BITS(param, type) == fs_value_is_string)
		bpf_probe_read_kernel_str(name.text, sizeof(name.text), READ(param, string));
	if (name.text[0] == 0) {
		begin_terms(&now->terms, &now->ceiling);
		__builtin_memset(now->policy, 0, sizeof(now->policy));
		now->abilities = 0;
		return 0;
	}
	what.name = name.text;
	/* A name that fills the field may have been cut. No policy has one. */
	terms = name.text[GUARD_NAME_BYTES - 2] ? 0 : bpf_map_lookup_elem(&policies, &name);
	if (!terms) {
		under_host(&what, GUARD_NO_ABILITY);
		return judge(&what, -ENOENT);
	}
	what.mode = GUARD_ENFORCE;
	if (!add_ability(now, terms)) {
		what.reason = GUARD_LISTS;
		return judge(&what, -EACCES);
	}
	if (now->abilities == 1)
		__builtin_memcpy(now->policy, name.text, sizeof(now->policy));
	what.events = now->terms.events;
	return judge(&what, -EACCES);
}

HOOK("fs_context_parse_param")
int guard_parse_param(__u64 *ctx)
{
	struct fs_context *fc = (void *)ctx[0];
	struct fs_parameter *param = (void *)ctx[1];
	struct guard_delegator *by;
	struct guard_pending *now;
	struct judged what = { .point = GUARD_OPTION, .cmd = NO_CMD };
	__u64 context = ctx[0], data = (__u64)fc->s_fs_info;
	char key[KEY_BYTES] = {};

	if (!is_bpffs_type(fc))
		return 0;
	bpf_probe_read_kernel_str(key, sizeof(key), param->key);
	if (IS(key, GUARD_PROBE_KEY))
		return -GUARD_PROBE_ERRNO;
	if (IS(key, GUARD_KEEPER_KEY))
		return make_keeper();
	if (!IS(key, "delegate") && !IS(key, "abilities") && !BEGINS(key, "delegate_"))
		return 0;
	/* A reconfiguration's options come to nothing. */
	if (READ_BITS(fc, purpose) != FS_CONTEXT_FOR_MOUNT || fc->root)
		return 0;

	what.mode = guard_mode_of_host();
	what.name = key;
	if (READ_BITS(fc, oldapi)) {
		what.reason = GUARD_OLD_MOUNT;
		return judge(&what, -EACCES);
	}
	by = delegator();
	if (!by) {
		what.reason = GUARD_NO_DELEGATOR;
		return judge(&what, -EACCES);
	}
	now = bpf_map_lookup_elem(&pending, &data);
	if (now && (now->context != context || now->tgid != (__u32)(bpf_get_current_pid_tgid() >> 32)))
		now = 0;
	if (IS(key, "delegate")) {
		what.point = GUARD_MARK;
		what.reason = mark(context, data, by) ? GUARD_NONE : GUARD_FULL;
		return judge(&what, -EACCES);
	}
	if (!now && by->implicit && !IS(key, "abilities"))
		now = mark(context, data, by);
	if (!now) {
		what.reason = GUARD_NOT_MARKED;
		return judge(&what, -EACCES);
	}
	return IS(key, "abilities") ? name_ability(now, param) : 0;
}

/* A context is closed: nothing that was said of it may be taken for another one's at the same address. */
HOOK("file_release")
int guard_file_release(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	__u64 context, *data;
	struct guard_pending *left;

	if (file->f_op != &fscontext_fops)
		return 0;
	context = (__u64)file->private_data;
	data = bpf_map_lookup_elem(&contexts, &context);
	if (!data)
		return 0;
	__u64 key = *data;
	left = bpf_map_lookup_elem(&pending, &key);
	if (left && left->context == context)
		bpf_map_delete_elem(&pending, &key);
	bpf_map_delete_elem(&contexts, &context);
	return 0;
}

/* ---- the superblock ---- */

static long claim_next(__u32 turn, __u64 *claimed)
{
	struct guard_totals *total = bpf_map_lookup_elem(&totals, &first);
	struct guard_delegation *made;
	__u32 slot;
	__u64 id;

	if (!total)
		return 1;
	id = __sync_fetch_and_add(&total->last_id, 1) + 1;
	slot = id % GUARD_SLOTS;
	if (slot < GUARD_CONFINEMENTS)
		return 0;
	made = bpf_map_lookup_elem(&delegations, &slot);
	if (!made || __sync_val_compare_and_swap(&made->id, 0, id) != 0)
		return 0;
	*claimed = id;
	return 1;
}

/* An element for a new delegation: its id, or 0: all are taken. */
static __noinline __u64 claim(void)
{
	__u64 id = 0;

	bpf_loop(GUARD_SLOTS, claim_next, &id, 0);
	return id;
}

extern struct cgroup *bpf_cgroup_from_id(__u64 id) __ksym;
extern void bpf_cgroup_release(struct cgroup *cgroup) __ksym;

/* Whether a cgroup lives, and is the other one or below it. By their ids. */
static __noinline int is_cgroup_within(__u64 id, __u64 other)
{
	struct cgroup *cgroup = bpf_cgroup_from_id(id), *at = cgroup;
	int found = 0;

	if (!cgroup)
		return 0;
	for (int level = 0; at && level < 64; level++) {
		struct cgroup_subsys_state *up = READ(at, self.parent);

		found = READ(READ(at, kn), id) == other;
		if (found || !up)
			break;
		at = CONTAINER(up, struct cgroup, self);
	}
	bpf_cgroup_release(cgroup);
	return found;
}

/* An origin that is bound to a cgroup binds what is derived from it there, or further below. */
static __noinline int inherit_cgroup(struct guard_delegation *made, const struct guard_delegation *from)
{
	if (!from->cgroup)
		return 1;
	if (made->cgroup)
		return is_cgroup_within(made->cgroup, from->cgroup);
	made->cgroup = from->cgroup;
	made->cgroup_level = from->cgroup_level;
	return 1;
}

/* The new one is within what it is derived from, and what it may use has been taken from there. */
static __noinline int derive(struct guard_delegation *made)
{
	struct guard_delegation *from = delegation_by(made->parent);
	struct guard_usage *usage = usage_by(made->parent);
	const struct guard_terms *all, *some = &made->terms;

	if (!from || !usage || liveness(from, made->parent))
		return 0;
	all = &from->terms;
	if (!is_within(&some->masks, &all->masks) || some->capabilities & ~all->capabilities ||
	    some->flags & ~all->flags || some->instructions > all->instructions || some->depth >= all->depth ||
	    limit_of(some, TOKENS) > limit_of(all, TOKENS) || limit_of(some, PROGRAMS) > limit_of(all, PROGRAMS) ||
	    limit_of(some, MAPS) > limit_of(all, MAPS) ||
	    (all->digests && !some->digests) || (all->functions && !some->functions) ||
	    (all->mode != GUARD_PERMISSIVE && some->mode == GUARD_PERMISSIVE) || !inherit_cgroup(made, from))
		return 0;
	LOWER(made->expires_ns, end_of(from, made->parent));
	/* Of what the origin tells, nothing is kept back. */
	if (all->events == GUARD_EVENTS_ALL || made->terms.events == GUARD_EVENTS_NONE)
		made->terms.events = all->events;
	struct lent_on part = lent_on(all, some);

	return take_part(from, usage, &part);
}

static const struct guard_namespace no_rules = {};

/* The new superblock's delegation, as a reason why there is none. Then nothing is left of it. */
static __noinline int enlist(const struct super_block *sb, const struct guard_pending *from, const struct guard_masks *masks,
			     __u64 *made_id)
{
	__u64 id = claim(), at = (__u64)sb, *root, namespace = sb->s_user_ns->ns.inum;
	struct guard_delegation *made = delegation_by(id);
	struct guard_usage *usage = usage_by(id);
	struct guard_namespace *rules;
	struct guard_rules counted;
	struct guard_delegator *by;

	if (!made || !usage)
		return GUARD_FULL;
	made->terms = from->terms;
	made->terms.masks = *masks;
	made->terms.capabilities &= from->ceiling.capabilities;
	made->created_ns = bpf_ktime_get_boot_ns();
	made->expires_ns = from->terms.lifetime_ns == NEVER ? NEVER : made->created_ns + from->terms.lifetime_ns;
	made->parent = from->parent;
	made->cgroup = from->cgroup;
	made->cgroup_level = from->cgroup_level;
	made->user_namespace = namespace;
	made->delegator = from->tgid;
	made->ruled = 0;
	__builtin_memcpy(made->policy, from->policy, sizeof(made->policy));
	usage->map_bytes = usage->mount = usage->place = usage->home = 0;
	usage->tokens = usage->programs = usage->maps = usage->children = 0;
	usage->superblocks = 1;
	if (made->parent && !derive(made)) {
		made->parent = 0;
		usage->superblocks = 0;
		made->id = 0;
		return GUARD_BEYOND_PARENT;
	}
	bpf_map_update_elem(&namespaces, &namespace, &no_rules, BPF_NOEXIST);
	rules = bpf_map_lookup_elem(&namespaces, &namespace);
	if (rules) {
		rules->delegation = id;
		made->ruled = 1;
		counted = rules_of(&made->terms);
		count_rules(rules, made->terms.mode, &counted, 1);
		if (!bpf_map_update_elem(&superblocks, &at, &id, BPF_ANY)) {
			root = bpf_inode_storage_get(&roots, sb->s_root->d_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
			if (root) {
				*root = id;
				by = delegator();
				if (by)
					by->last_id = id;
				*made_id = id;
				return GUARD_NONE;
			}
			bpf_map_delete_elem(&superblocks, &at);
		}
	}
	usage->superblocks = 0;
	forget(id);
	return GUARD_FULL;
}

HOOK("sb_kern_mount")
int guard_sb_kern_mount(__u64 *ctx)
{
	const struct super_block *sb = (void *)ctx[0];
	struct judged what = { .point = GUARD_SUPERBLOCK, .cmd = NO_CMD };
	const struct bpf_mount_opts *opts;
	struct guard_masks masks = {};
	struct guard_pending *from;
	__u64 data, at = ctx[0], context;
	int verdict = 0;

	if (sb->s_magic != BPF_FS_MAGIC)
		return 0;
	opts = sb->s_fs_info;
	data = (__u64)opts;
	masks.cmds = READ(opts, delegate_cmds);
	masks.maps = READ(opts, delegate_maps);
	masks.progs = READ(opts, delegate_progs);
	masks.attachs = READ(opts, delegate_attachs);
	if (is_empty(&masks) || bpf_map_lookup_elem(&superblocks, &at))
		return 0;
	from = bpf_map_lookup_elem(&pending, &data);
	/* The superblock is created by the process that marked the context, or not at all. */
	if (!from || from->tgid != (__u32)(bpf_get_current_pid_tgid() >> 32)) {
		under_host(&what, GUARD_NOT_MARKED);
		return judge(&what, -EACCES);
	}
	what.mode = from->terms.mode;
	what.events = from->terms.events;
	if (!is_within(&masks, &from->terms.masks) || !is_within(&masks, &from->ceiling.masks)) {
		what.reason = GUARD_BEYOND_ABILITIES;
		/* Without any ability named there is no policy to be permissive. */
		if (is_empty(&from->terms.masks))
			under_host(&what, GUARD_BEYOND_ABILITIES);
		verdict = judge(&what, -EACCES);
		what.mode = from->terms.mode;
		what.events = from->terms.events;
	}
	if (!verdict) {
		what.reason = enlist(sb, from, &masks, &what.delegation);
		/* What has no record cannot be held to anything. */
		if (what.reason)
			what.mode = GUARD_ENFORCE;
		verdict = judge(&what, -EACCES);
	}
	/* The record stays readable until this program ends. */
	context = from->context;
	bpf_map_delete_elem(&contexts, &context);
	bpf_map_delete_elem(&pending, &data);
	return verdict;
}

HOOK("sb_free_security")
int guard_sb_free(__u64 *ctx)
{
	__u64 id;
	struct guard_usage *usage = take_out(&superblocks, ctx[0], &id, sizeof(id)) ? usage_by(id) : 0;

	if (usage) {
		__sync_fetch_and_add(&usage->superblocks, -1);
		forget(id);
	}
	return 0;
}

#endif
