/*
 * The guard: policy for delegated eBPF, enforced where a task enables delegation and where a task makes use of it.
 *
 * Enabling: a bpffs context may carry `delegate_*` only after an allowed delegator has marked it (`delegate`), and only what
 * the named abilities (`abilities=NAME`) give; judged when the superblock is created. Use: tokens are made, and maps and
 * programs under them, only for a delegation that is live, and within its limits.
 *
 * Fail closed: what cannot be read, recorded or found is refused. One exception: mode `permissive` lets through and records.
 * A call without a token and a mount without delegate_* are none of our business and cost next to nothing.
 *
 * Every hook may run twice for one call, while one version of the guard replaces another: to record is idempotent. Free hooks may
 * fire twice by themselves; only who deletes the record counts down. No program sleeps, so records do not move under us.
 * A hook's previous verdict needs no look: the kernel stops at the first refusal.
 */
#include "kernel.h"
#include "guard.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum { EPERM = 1, ENOENT = 2, EACCES = 13, EDQUOT = 122 };
enum { BPF_FS_MAGIC = 0xcafe4a11, S_IFMT = 0170000, S_IFREG = 0100000 };
enum { BPF_MAP_CREATE = 0, BPF_PROG_LOAD = 5, NO_CMD = ~0U };
/* USER_HZ is 100 everywhere: /proc/PID/stat counts in these. */
#define NS_PER_TICK 10000000ULL
#define NEVER (~0ULL)

#define TABLE(name_, key_, value_, entries_)                                                                          \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                      \
		__uint(max_entries, entries_);                                                                        \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                 \
		__type(key, key_);                                                                                    \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

#define SINGLE(name_, value_)                                                                                         \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                     \
		__uint(max_entries, 1);                                                                               \
		__type(key, __u32);                                                                                   \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

SINGLE(config, struct guard_config);
SINGLE(totals, struct guard_totals);
/* By src/guard: what may be delegated, and by whom. */
TABLE(policies, struct guard_name, struct guard_terms, 1024);
TABLE(processes, struct guard_process, struct guard_delegator, 1024);
TABLE(files, struct guard_file, struct guard_delegator, 256);
/* Contexts that are marked, by their private data, which becomes the superblock's; and that by context. */
TABLE(pending, __u64, struct guard_pending, 1024);
TABLE(contexts, __u64, __u64, 1024);
/* By id. */
TABLE(delegations, __u64, struct guard_delegation, 16384);
TABLE(usages, __u64, struct guard_usage, 16384);
/* Ids by the kernel's objects: addresses, each removed when its object is freed. */
TABLE(superblocks, __u64, __u64, 16384);
TABLE(tokens, __u64, __u64, 65536);
TABLE(programs, __u64, __u64, 65536);
TABLE(maps, __u64, struct guard_map, 65536);

/* The delegation that a bpffs is, on the inode of its root: gone with it, so that no address is ever mistaken for another. */
struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} roots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} events SEC(".maps");

extern const void fscontext_fops __ksym;
extern const void bpf_token_fops __ksym;

static const __u32 first = 0;

static __always_inline __u32 guard_mode_of_host(void)
{
	struct guard_config *found = bpf_map_lookup_elem(&config, &first);

	return found ? found->mode : GUARD_ENFORCE;
}

/* What an event says beside the task, and what the caller gets. */
struct judged {
	__u64 delegation;
	__u32 mode;
	__u16 point;
	__u8 reason;
	__u8 quiet; /* no event unless refused */
	__u32 cmd;
	__u32 type;
	int errno; /* negative as it is: verifiers lose the range of what is negated late */
	const void *name; /* 16 bytes on the stack; 0: none */
};

static __noinline int record(struct guard_event *event)
{
	struct guard_totals *total = bpf_map_lookup_elem(&totals, &first);
	__u64 task = bpf_get_current_pid_tgid();

	event->time_ns = bpf_ktime_get_boot_ns();
	event->cgroup = bpf_get_current_cgroup_id();
	event->tgid = task >> 32;
	event->tid = task;
	event->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event->task, sizeof(event->task));
	if (total) {
		if (event->verdict == GUARD_REFUSED)
			__sync_fetch_and_add(&total->refused, 1);
		else if (event->verdict == GUARD_WOULD_REFUSE)
			__sync_fetch_and_add(&total->would_refuse, 1);
	}
	if (bpf_ringbuf_output(&events, event, sizeof(*event), 0) && total)
		__sync_fetch_and_add(&total->lost_events, 1);
	return 0;
}

/* The verdict for `reason`, recorded: 0 or -errno. */
static __always_inline int judge(const struct judged *what)
{
	struct guard_event event = {};

	if (what->reason == GUARD_NONE) {
		struct guard_config *found = bpf_map_lookup_elem(&config, &first);

		if (what->quiet || !found || !found->audit)
			return 0;
		event.verdict = GUARD_ALLOWED;
	} else {
		event.verdict = what->mode == GUARD_PERMISSIVE ? GUARD_WOULD_REFUSE : GUARD_REFUSED;
	}
	event.delegation = what->delegation;
	event.point = what->point;
	event.reason = what->reason;
	event.cmd = what->cmd;
	event.type = what->type;
	if (what->name)
		__builtin_memcpy(event.name, what->name, sizeof(event.name));
	record(&event);
	return event.verdict == GUARD_REFUSED ? what->errno : 0;
}

/* ---- who may delegate ---- */

/* The current task as a delegator; 0: it is none. Its process first, then its executable. */
static __noinline struct guard_delegator *delegator(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct guard_process process = {};
	struct guard_file file = {};
	struct guard_delegator *found;
	struct mm_struct *mm = task->mm;
	struct file *exe;

	process.tgid = task->tgid;
	process.start_ticks = task->group_leader->start_boottime / NS_PER_TICK;
	found = bpf_map_lookup_elem(&processes, &process);
	if (found || !mm)
		return found;
	exe = mm->exe_file;
	if (!exe)
		return 0;
	file.inode = exe->f_inode->i_ino;
	file.device = exe->f_inode->i_sb->s_dev;
	return bpf_map_lookup_elem(&files, &file);
}

static __always_inline int is_within(const struct guard_masks *some, const struct guard_masks *all)
{
	return !((some->cmds & ~all->cmds) | (some->maps & ~all->maps) | (some->progs & ~all->progs) |
		 (some->attachs & ~all->attachs));
}

static __always_inline void no_terms(struct guard_terms *terms)
{
	__builtin_memset(terms, 0, sizeof(*terms));
	terms->map_bytes = terms->lifetime_ns = NEVER;
	terms->tokens = terms->programs = terms->maps = terms->instructions = ~0U;
	terms->mode = GUARD_PERMISSIVE;
	terms->flags = GUARD_PASS_TOKEN;
}

#define LOWER(field, other)                                                                                           \
	do {                                                                                                          \
		if ((other) < (field))                                                                                \
			(field) = (other);                                                                            \
	} while (0)

/* Rights add up, limits do not: the strictest of each holds. */
static __noinline int add_ability(struct guard_pending *to, const struct guard_terms *more)
{
	struct guard_terms *terms = &to->terms;

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
	terms->flags &= more->flags;
	if (more->mode != GUARD_PERMISSIVE)
		terms->mode = GUARD_ENFORCE;
	to->abilities++;
	return 0;
}

/* Marks the context, anew if it was marked before: what was there may be of a context that had this address. 0: cannot. */
static __noinline struct guard_pending *mark(__u64 context, __u64 data, struct guard_delegator *by)
{
	struct guard_pending fresh = {};

	fresh.context = context;
	fresh.tgid = bpf_get_current_pid_tgid() >> 32;
	fresh.ceiling = by->ceiling;
	no_terms(&fresh.terms);
	if (by->implicit) {
		fresh.terms.masks = by->ceiling;
		fresh.terms.capabilities = NEVER;
		fresh.terms.mode = GUARD_ENFORCE;
		fresh.terms.flags = 0;
	}
	if (bpf_map_update_elem(&contexts, &context, &data, BPF_ANY))
		return 0;
	if (bpf_map_update_elem(&pending, &data, &fresh, BPF_ANY)) {
		bpf_map_delete_elem(&contexts, &context);
		return 0;
	}
	return bpf_map_lookup_elem(&pending, &data);
}

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

SEC("lsm/fs_context_parse_param")
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
	if (!IS(key, "delegate") && !IS(key, "abilities") && !BEGINS(key, "delegate_"))
		return 0;
	/* A reconfiguration's options come to nothing. */
	if (READ_BITS(fc, purpose) != FS_CONTEXT_FOR_MOUNT || fc->root)
		return 0;

	what.mode = guard_mode_of_host();
	what.name = key;
	what.errno = -EACCES;
	if (READ_BITS(fc, oldapi)) {
		what.reason = GUARD_OLD_MOUNT;
		return judge(&what);
	}
	by = delegator();
	if (!by) {
		what.reason = GUARD_NO_DELEGATOR;
		return judge(&what);
	}
	now = bpf_map_lookup_elem(&pending, &data);
	if (now && (now->context != context || now->tgid != (__u32)(bpf_get_current_pid_tgid() >> 32)))
		now = 0;
	if (IS(key, "delegate")) {
		what.point = GUARD_MARK;
		what.reason = mark(context, data, by) ? GUARD_NONE : GUARD_FULL;
		return judge(&what);
	}
	if (!now && by->implicit && !IS(key, "abilities"))
		now = mark(context, data, by);
	if (!now) {
		what.reason = GUARD_NOT_MARKED;
		return judge(&what);
	}
	if (IS(key, "abilities")) {
		struct guard_name name = {};
		struct guard_terms *terms;

		what.point = GUARD_MARK;
		if (READ_BITS(param, type) == fs_value_is_string)
			bpf_probe_read_kernel_str(name.text, sizeof(name.text), param->string);
		if (name.text[0] == 0) {
			no_terms(&now->terms);
			now->abilities = 0;
			return 0;
		}
		/* A name that fills the field may have been cut. No policy has one. */
		terms = name.text[GUARD_NAME_BYTES - 2] ? 0 : bpf_map_lookup_elem(&policies, &name);
		what.name = name.text;
		if (terms) {
			add_ability(now, terms);
			return judge(&what);
		}
		what.reason = GUARD_NO_ABILITY;
		what.errno = -ENOENT;
		return judge(&what);
	}
	return 0;
}

/* A context is closed: nothing that was said of it may be taken for another one's at the same address. */
SEC("lsm/file_release")
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

static __noinline __u64 next_id(void)
{
	struct guard_totals *total = bpf_map_lookup_elem(&totals, &first);

	return total ? __sync_fetch_and_add(&total->last_id, 1) + 1 : 0;
}

/* The new superblock's delegation; 0: it cannot be recorded, and nothing is left of it. */
static __noinline __u64 enlist(const struct super_block *sb, const struct guard_pending *from,
			       const struct guard_masks *masks)
{
	struct guard_delegation made = {};
	struct guard_usage usage = { .superblocks = 1 };
	struct guard_delegator *by;
	__u64 id = next_id(), at = (__u64)sb, *root;

	made.terms = from->terms;
	made.terms.masks = *masks;
	made.created_ns = bpf_ktime_get_boot_ns();
	made.expires_ns = from->terms.lifetime_ns == NEVER ? NEVER : made.created_ns + from->terms.lifetime_ns;
	made.user_namespace = sb->s_user_ns->ns.inum;
	made.delegator = from->tgid;
	if (!id || bpf_map_update_elem(&usages, &id, &usage, BPF_NOEXIST))
		return 0;
	if (bpf_map_update_elem(&delegations, &id, &made, BPF_NOEXIST))
		goto usage;
	if (bpf_map_update_elem(&superblocks, &at, &id, BPF_ANY))
		goto delegation;
	root = bpf_inode_storage_get(&roots, sb->s_root->d_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!root)
		goto superblock;
	*root = id;
	by = delegator();
	if (by)
		by->last_id = id;
	return id;

superblock:
	bpf_map_delete_elem(&superblocks, &at);
delegation:
	bpf_map_delete_elem(&delegations, &id);
usage:
	bpf_map_delete_elem(&usages, &id);
	return 0;
}

SEC("lsm/sb_kern_mount")
int guard_sb_kern_mount(__u64 *ctx)
{
	const struct super_block *sb = (void *)ctx[0];
	struct judged what = { .point = GUARD_SUPERBLOCK, .cmd = NO_CMD, .errno = -EACCES };
	const struct bpf_mount_opts *opts;
	struct guard_masks masks = {};
	struct guard_pending *marked, from;
	__u64 data, at = ctx[0];

	if (sb->s_magic != BPF_FS_MAGIC)
		return 0;
	opts = sb->s_fs_info;
	data = (__u64)opts;
	bpf_probe_read_kernel(&masks.cmds, 8, &opts->delegate_cmds);
	bpf_probe_read_kernel(&masks.maps, 8, &opts->delegate_maps);
	bpf_probe_read_kernel(&masks.progs, 8, &opts->delegate_progs);
	bpf_probe_read_kernel(&masks.attachs, 8, &opts->delegate_attachs);
	if (!(masks.cmds | masks.maps | masks.progs | masks.attachs) || bpf_map_lookup_elem(&superblocks, &at))
		return 0;
	marked = bpf_map_lookup_elem(&pending, &data);
	/* The superblock is created by the process that marked the context, or not at all. */
	if (!marked || marked->tgid != (__u32)(bpf_get_current_pid_tgid() >> 32)) {
		what.mode = guard_mode_of_host();
		what.reason = GUARD_NOT_MARKED;
		return judge(&what);
	}
	__builtin_memcpy(&from, marked, sizeof(from));
	bpf_map_delete_elem(&pending, &data);
	bpf_map_delete_elem(&contexts, &from.context);
	what.mode = from.terms.mode;
	if (!is_within(&masks, &from.terms.masks) || !is_within(&masks, &from.ceiling)) {
		/* Without any ability named there is no policy to be permissive. */
		if (from.abilities == 0)
			what.mode = guard_mode_of_host();
		what.reason = GUARD_BEYOND_ABILITIES;
		int verdict = judge(&what);
		if (verdict)
			return verdict;
		what.reason = GUARD_NONE;
	}
	what.delegation = enlist(sb, &from, &masks);
	if (!what.delegation)
		what.reason = GUARD_FULL;
	return judge(&what);
}

/* ---- use ---- */

/* The record of a delegation goes when its superblock and its last token have gone: programs keep tokens, tokens the rest. */
static __noinline int forget(__u64 id, struct guard_usage *usage)
{
	if (usage->superblocks || usage->tokens || usage->programs || usage->maps)
		return 0;
	bpf_map_delete_elem(&delegations, &id);
	bpf_map_delete_elem(&usages, &id);
	return 0;
}

SEC("lsm/sb_free_security")
int guard_sb_free(__u64 *ctx)
{
	__u64 at = ctx[0], id, *found = bpf_map_lookup_elem(&superblocks, &at);
	struct guard_usage *usage;

	if (!found)
		return 0;
	id = *found;
	if (bpf_map_delete_elem(&superblocks, &at))
		return 0;
	usage = bpf_map_lookup_elem(&usages, &id);
	if (!usage)
		return 0;
	__sync_fetch_and_add(&usage->superblocks, -1);
	forget(id, usage);
	return 0;
}

static __always_inline __u8 liveness(const struct guard_delegation *of)
{
	if (of->revoked_ns)
		return GUARD_REVOKED;
	/* No clock is read where nothing expires. */
	if (of->expires_ns != NEVER && bpf_ktime_get_boot_ns() >= of->expires_ns)
		return GUARD_EXPIRED;
	return GUARD_NONE;
}

/* The delegation of a token, and a first verdict in `what`; 0: there is none. */
static __always_inline struct guard_delegation *delegation_of(__u64 token, struct judged *what)
{
	__u64 *id = bpf_map_lookup_elem(&tokens, &token);
	struct guard_delegation *of = 0;

	if (id) {
		what->delegation = *id;
		of = bpf_map_lookup_elem(&delegations, id);
	}
	if (!of) {
		what->mode = guard_mode_of_host();
		what->reason = GUARD_UNREGISTERED;
		return 0;
	}
	what->mode = of->terms.mode;
	what->reason = liveness(of);
	return of;
}

/* Takes one from a limit; 0: there is no room. Counted before it is judged, so that no two tasks take the last one. */
static __always_inline int take(__u32 *count, __u32 limit)
{
	return __sync_fetch_and_add(count, 1) < limit;
}

SEC("lsm/bpf_token_create")
int guard_token_create(__u64 *ctx)
{
	const struct path *path = (void *)ctx[2];
	struct judged what = { .point = GUARD_TOKEN_CREATE, .cmd = BPF_TOKEN_CREATE, .errno = -EACCES };
	__u64 token = ctx[0], id, *root;
	struct guard_delegation *of = 0;
	struct guard_usage *usage = 0;

	if (bpf_map_lookup_elem(&tokens, &token))
		return 0;
	root = bpf_inode_storage_get(&roots, path->dentry->d_inode, 0, 0);
	if (root) {
		id = *root;
		what.delegation = id;
		of = bpf_map_lookup_elem(&delegations, &id);
		usage = bpf_map_lookup_elem(&usages, &id);
	}
	if (!of || !usage) {
		what.mode = guard_mode_of_host();
		what.reason = GUARD_UNREGISTERED;
		return judge(&what);
	}
	what.mode = of->terms.mode;
	what.reason = liveness(of);
	if (!what.reason && of->cgroup && bpf_get_current_ancestor_cgroup_id(of->cgroup_level) != of->cgroup)
		what.reason = GUARD_CGROUP;
	if (what.reason) {
		int verdict = judge(&what);
		if (verdict)
			return verdict;
		what.quiet = 1;
		what.reason = GUARD_NONE;
	}
	if (!take(&usage->tokens, of->terms.tokens)) {
		what.errno = -EDQUOT;
		what.reason = GUARD_TOKENS;
		int verdict = judge(&what);
		if (verdict) {
			__sync_fetch_and_add(&usage->tokens, -1);
			return verdict;
		}
		what.quiet = 1;
		what.reason = GUARD_NONE;
	}
	if (bpf_map_update_elem(&tokens, &token, &id, BPF_NOEXIST)) {
		__sync_fetch_and_add(&usage->tokens, -1);
		what.reason = GUARD_FULL;
	}
	return judge(&what);
}

SEC("lsm/bpf_token_free")
int guard_token_free(__u64 *ctx)
{
	__u64 token = ctx[0], id, *found = bpf_map_lookup_elem(&tokens, &token);
	struct guard_usage *usage;

	if (!found)
		return 0;
	id = *found;
	if (bpf_map_delete_elem(&tokens, &token))
		return 0;
	usage = bpf_map_lookup_elem(&usages, &id);
	if (!usage)
		return 0;
	__sync_fetch_and_add(&usage->tokens, -1);
	forget(id, usage);
	return 0;
}

SEC("lsm/bpf_token_cmd")
int guard_token_cmd(__u64 *ctx)
{
	struct judged what = { .point = GUARD_TOKEN_CMD, .cmd = ctx[1], .errno = -EPERM, .quiet = 1 };

	delegation_of(ctx[0], &what);
	return what.reason ? judge(&what) : 0;
}

SEC("lsm/bpf_token_capable")
int guard_token_capable(__u64 *ctx)
{
	struct judged what = { .point = GUARD_TOKEN_CAPABLE, .cmd = NO_CMD, .errno = -EPERM, .quiet = 1 };
	struct guard_delegation *of = delegation_of(ctx[0], &what);
	__u32 capability = ctx[1];

	if (of && !what.reason && (capability > 63 || !(of->terms.capabilities >> capability & 1)))
		what.reason = GUARD_CAPABILITY;
	what.type = capability;
	return what.reason ? judge(&what) : 0;
}

SEC("lsm/bpf_map_create")
int guard_map_create(__u64 *ctx)
{
	struct bpf_map *map = (void *)ctx[0];
	__u64 token = ctx[2], at = ctx[0];
	struct judged what = { .point = GUARD_MAP_CREATE, .cmd = BPF_MAP_CREATE, .errno = -EACCES };
	struct guard_delegation *of;
	struct guard_usage *usage;
	struct guard_map entry;
	char name[16];

	if (!token)
		return 0;
	of = delegation_of(token, &what);
	bpf_probe_read_kernel(name, sizeof(name), map->name);
	what.name = name;
	what.type = map->map_type;
	if (!of)
		return judge(&what);
	if (bpf_map_lookup_elem(&maps, &at))
		return 0;
	if (what.reason) {
		int verdict = judge(&what);
		if (verdict)
			return verdict;
	}
	what.reason = GUARD_NONE;
	entry.delegation = what.delegation;
	entry.bytes = (__u64)map->max_entries * ((__u64)map->key_size + map->value_size);
	usage = bpf_map_lookup_elem(&usages, &entry.delegation);
	if (!usage) {
		what.reason = GUARD_UNREGISTERED;
		return judge(&what);
	}
	if (!take(&usage->maps, of->terms.maps))
		what.reason = GUARD_MAPS;
	/* What is there already is never above the limit, so that this sum cannot wrap around. */
	__u64 before = __sync_fetch_and_add(&usage->map_bytes, entry.bytes);
	if (!what.reason && (before > of->terms.map_bytes || entry.bytes > of->terms.map_bytes - before))
		what.reason = GUARD_MAP_BYTES;
	what.errno = -EDQUOT;
	int verdict = judge(&what);
	if (!verdict && bpf_map_update_elem(&maps, &at, &entry, BPF_NOEXIST)) {
		what.reason = GUARD_FULL;
		what.mode = GUARD_ENFORCE;
		verdict = judge(&what);
	}
	if (verdict) {
		__sync_fetch_and_add(&usage->maps, -1);
		__sync_fetch_and_add(&usage->map_bytes, -entry.bytes);
	}
	return verdict;
}

SEC("lsm/bpf_map_free")
int guard_map_free(__u64 *ctx)
{
	__u64 at = ctx[0];
	struct guard_map *found = bpf_map_lookup_elem(&maps, &at), entry;
	struct guard_usage *usage;

	if (!found)
		return 0;
	entry = *found;
	if (bpf_map_delete_elem(&maps, &at))
		return 0;
	usage = bpf_map_lookup_elem(&usages, &entry.delegation);
	if (!usage)
		return 0;
	__sync_fetch_and_add(&usage->map_bytes, -entry.bytes);
	__sync_fetch_and_add(&usage->maps, -1);
	forget(entry.delegation, usage);
	return 0;
}

SEC("lsm/bpf_prog_load")
int guard_prog_load(__u64 *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	/* The hook's own argument is NULL up to Linux 7.2, for loads with a token too. */
	__u64 token = (__u64)prog->aux->token, at = ctx[0];
	struct judged what = { .point = GUARD_PROG_LOAD, .cmd = BPF_PROG_LOAD, .errno = -EACCES };
	struct guard_delegation *of;
	struct guard_usage *usage;
	char name[16];

	if (!token)
		return 0;
	of = delegation_of(token, &what);
	bpf_probe_read_kernel(name, sizeof(name), prog->aux->name);
	what.name = name;
	what.type = prog->type;
	if (!of)
		return judge(&what);
	if (bpf_map_lookup_elem(&programs, &at))
		return 0;
	if (what.reason) {
		int verdict = judge(&what);
		if (verdict)
			return verdict;
	}
	what.reason = GUARD_NONE;
	usage = bpf_map_lookup_elem(&usages, &what.delegation);
	if (!usage) {
		what.reason = GUARD_UNREGISTERED;
		return judge(&what);
	}
	what.errno = -EDQUOT;
	if (prog->len > of->terms.instructions)
		what.reason = GUARD_INSTRUCTIONS;
	if (!take(&usage->programs, of->terms.programs) && !what.reason)
		what.reason = GUARD_PROGRAMS;
	int verdict = judge(&what);
	if (!verdict && bpf_map_update_elem(&programs, &at, &what.delegation, BPF_NOEXIST)) {
		what.reason = GUARD_FULL;
		what.mode = GUARD_ENFORCE;
		verdict = judge(&what);
	}
	if (verdict)
		__sync_fetch_and_add(&usage->programs, -1);
	return verdict;
}

SEC("lsm/bpf_prog_free")
int guard_prog_free(__u64 *ctx)
{
	__u64 at = ctx[0], id, *found = bpf_map_lookup_elem(&programs, &at);
	struct guard_usage *usage;

	if (!found)
		return 0;
	id = *found;
	if (bpf_map_delete_elem(&programs, &at))
		return 0;
	usage = bpf_map_lookup_elem(&usages, &id);
	if (!usage)
		return 0;
	__sync_fetch_and_add(&usage->programs, -1);
	forget(id, usage);
	return 0;
}

/*
 * A token that is opened again through /proc has no private data, and kernels up to 7.3 at least crash on its use. Refused in
 * every mode: regular files of a bpffs that have no name are tokens and nothing else.
 */
SEC("lsm/file_open")
int guard_file_open(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct inode *inode = file->f_inode;
	struct judged what = { .point = GUARD_REOPEN, .cmd = NO_CMD, .errno = -EACCES };

	if (inode->i_sb->s_magic != BPF_FS_MAGIC || inode->i_nlink || (inode->i_mode & S_IFMT) != S_IFREG)
		return 0;
	what.mode = GUARD_ENFORCE;
	what.reason = GUARD_REOPENED;
	return judge(&what);
}

/*
 * A token stays with its workload: descriptors travel by SCM_RIGHTS and pidfd_getfd(2), and whoever holds one and has the
 * capabilities there can use it, the host's root for one. Fork and exec do not come by here.
 */
SEC("lsm/file_receive")
int guard_file_receive(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct judged what = { .point = GUARD_RECEIVE, .cmd = NO_CMD, .errno = -EACCES };
	struct bpf_token *token;
	struct guard_delegation *of;
	struct user_namespace *lent;

	if (file->f_op != &bpf_token_fops)
		return 0;
	token = file->private_data;
	of = delegation_of((__u64)token, &what);
	/* Of a token that is revoked nothing can be made; what counts here is where it goes. */
	if (of) {
		what.reason = GUARD_NONE;
		bpf_probe_read_kernel(&lent, sizeof(lent), &token->userns);
		if (!(of->terms.flags & GUARD_PASS_TOKEN) && bpf_get_current_task_btf()->cred->user_ns != lent)
			what.reason = GUARD_STRANGER;
	}
	return judge(&what);
}
