/* Use: tokens, and maps and programs that are made under them or by a confined cgroup. */
#ifndef GUARD_USE_H
#define GUARD_USE_H

/* ---- whose call it is ---- */

/* The delegation of a token, and a first verdict in `what`; 0: there is none. */
static __always_inline struct guard_delegation *delegation_of(__u64 token, struct judged *what, struct guard_token **entry)
{
	*entry = bpf_map_lookup_elem(&tokens, &token);
	return judged_by(*entry ? (*entry)->delegation : 0, what);
}

/* What the current task's cgroup, or the nearest above it, is confined to; 0: it is free. */
static __noinline __u64 confinement(void)
{
	struct guard_config *found = configuration();

	if (!found)
		return 0;
	for (int level = GUARD_CGROUP_LEVELS - 1; level >= 0; level--) {
		__u64 cgroup, *id;

		if (!(found->confined_levels >> level & 1))
			continue;
		cgroup = bpf_get_current_ancestor_cgroup_id(level);
		id = cgroup ? bpf_map_lookup_elem(&confined, &cgroup) : 0;
		if (id)
			return *id;
	}
	return 0;
}

static __always_inline int some_are_confined(void)
{
	struct guard_config *found = configuration();

	return !found || found->confined_levels;
}

/*
 * Verifiers take a hook's argument for a pointer that is never NULL, and remove a test of it
 * against 0 as dead, with the branch that every call without a token takes. No object lives in the
 * first page.
 */
#define IS_SET(pointer) ((pointer) >= 4096)

/*
 * The delegation under which the call is judged, with or without a token; 0 without a reason: it is
 * none of our business.
 */
static __always_inline struct guard_delegation *subject_of(__u64 token, struct judged *what)
{
	struct guard_token *entry;
	__u64 id;

	if (IS_SET(token))
		return delegation_of(token, what, &entry);
	id = some_are_confined() ? confinement() : 0;
	return id ? judged_by(id, what) : 0;
}

/* Whether the current task is in a user namespace, by its inode number, or in one below it. */
static __noinline int is_inside(__u32 number)
{
	struct user_namespace *at = bpf_get_current_task_btf()->real_cred->user_ns;

	/* The kernel nests them no deeper. */
	for (int level = 0; at && level < 33; level++) {
		if (READ(at, ns.inum) == number)
			return 1;
		at = READ(at, parent);
	}
	return 0;
}

/*
 * Whether the current task is one that the delegation was not made for, and may not be handed it. A
 * descriptor says nothing of who holds it: tables of descriptors are shared across user namespaces,
 * and directories with pins are passed.
 */
static __always_inline int is_stranger(const struct guard_delegation *of)
{
	return !(of->terms.flags & GUARD_PASS_TOKEN) && of->user_namespace && !is_inside(of->user_namespace);
}

/* ---- objects on record ---- */

/* What of an object its delegation's limits count. */
struct counted {
	__u32 kind;
	__u32 limit;
	__u8 reason;
	__u64 bytes; /* of a map */
	__u64 bytes_limit;
};

static __always_inline void count_down(__u64 id, struct guard_usage *usage, __u32 kind, __u64 bytes)
{
	uncount(id, usage, kind, 1);
	if (kind == MAPS)
		__sync_fetch_and_add(&usage->map_bytes, -bytes);
}

/* All records of objects are of this size; of tokens and programs it holds no bytes. */
static __always_inline void drop_stale(void *table, __u64 at, const struct counted *as)
{
	struct guard_map stale;
	struct guard_usage *usage = take_out(table, at, &stale, sizeof(stale)) ? usage_by(stale.delegation) : 0;

	if (!usage)
		return;
	count_down(stale.delegation, usage, as->kind, stale.bytes);
	forget(stale.delegation);
}

/*
 * Puts an object on record and counts it: the one way for tokens, maps and programs. `entry` begins
 * with its delegation. Every hook may run twice for one call, so a record of the same delegation is
 * this object's, and counted: it is written anew. One of another delegation was left behind by an
 * object that is gone: it goes, and nothing is made on top of it.
 */
static __always_inline int enroll(void *table, __u64 at, const void *entry, struct judged *what, struct guard_usage *usage,
				  const struct counted *as)
{
	__u64 *known;
	int verdict;

	if (bpf_map_update_elem(table, &at, entry, BPF_NOEXIST)) {
		known = bpf_map_lookup_elem(table, &at);
		if (!known) {
			what->holder = holder_of_most(as->kind);
			beyond_mode(what, GUARD_FULL);
			return judge(what, -ENOSPC);
		}
		if (*known != what->delegation) {
			drop_stale(table, at, as);
			beyond_mode(what, GUARD_MISMATCH);
			return judge(what, -EACCES);
		}
		if (bpf_map_update_elem(table, &at, entry, BPF_EXIST))
			return -EACCES;
		return what->reason ? judge(what, -EDQUOT) : 0;
	}
	if ((over32(count_of(usage, as->kind), 1, as->limit) | over_origins(what->delegation, as->kind, 1)) && !what->reason)
		what->reason = as->reason;
	if (as->kind == MAPS && over64(&usage->map_bytes, as->bytes, as->bytes_limit) && !what->reason)
		what->reason = GUARD_MAP_BYTES;
	verdict = judge(what, -EDQUOT);
	if (verdict) {
		bpf_map_delete_elem(table, &at);
		count_down(what->delegation, usage, as->kind, as->bytes);
	}
	return verdict;
}

/* ---- tokens ---- */

/*
 * Whether a bpffs is where it was: the mount that tokens were made through first, at the place
 * where it was then.
 */
static __always_inline int is_in_place(struct guard_usage *usage, const struct path *path)
{
	struct mount *mount = CONTAINER(path->mnt, struct mount, mnt);
	struct mount *parent = READ(mount, mnt_parent);
	__u64 id = READ(mount, mnt_id_unique), known, place = 0;

	if (parent && parent != mount) {
		struct dentry *point = READ(mount, mnt_mountpoint);

		place = READ(parent, mnt_id_unique) * 0x9e3779b97f4a7c15ULL + READ(READ(point, d_inode), i_ino);
	}
	known = __sync_val_compare_and_swap(&usage->mount, 0, id);
	if (known && known != id)
		return 0;
	known = place ? __sync_val_compare_and_swap(&usage->place, 0, place) : 0;
	return !known || known == place;
}

HOOK("bpf_token_create")
int guard_token_create(__u64 *ctx)
{
	const struct path *path = (void *)ctx[2];
	struct judged what = { .point = GUARD_TOKEN_CREATE, .cmd = BPF_TOKEN_CREATE };
	__u64 *root;
	struct guard_delegation *of;
	struct guard_token entry = {};
	struct guard_usage *usage;
	struct counted as = { .kind = TOKENS, .reason = GUARD_TOKENS };
	int verdict;

	root = bpf_inode_storage_get(&roots, path->dentry->d_inode, 0, 0);
	if (root)
		entry.delegation = *root;
	of = judged_by(entry.delegation, &what);
	if (!of)
		return judge(&what, -EACCES);
	usage = usage_by(entry.delegation);
	if (!usage)
		return -EACCES;
	if (!what.reason && of->cgroup && bpf_get_current_ancestor_cgroup_id(of->cgroup_level) != of->cgroup)
		what.reason = GUARD_CGROUP;
	if (!what.reason && !(of->terms.flags & GUARD_BIND_MOUNT) && !is_in_place(usage, path))
		what.reason = GUARD_ELSEWHERE;
	verdict = pass(&what, -EACCES);
	if (verdict)
		return verdict;
	__sync_val_compare_and_swap(&usage->home, 0, bpf_get_current_cgroup_id());
	as.limit = limit_of(&of->terms, TOKENS);
	return enroll(&tokens, ctx[0], &entry, &what, usage, &as);
}

HOOK("bpf_token_free")
int guard_token_free(__u64 *ctx)
{
	struct guard_token entry;
	struct guard_usage *usage = take_out(&tokens, ctx[0], &entry, sizeof(entry)) ? usage_by(entry.delegation) : 0;

	if (usage) {
		uncount(entry.delegation, usage, TOKENS, 1);
		forget(entry.delegation);
	}
	return 0;
}

HOOK("bpf_token_cmd")
int guard_token_cmd(__u64 *ctx)
{
	struct judged what = { .point = GUARD_TOKEN_CMD, .cmd = ctx[1], .quiet = 1 };
	struct guard_token *entry;
	struct guard_delegation *of = delegation_of(ctx[0], &what, &entry);

	if (of && !what.reason && is_stranger(of))
		what.reason = GUARD_STRANGER;
	return what.reason ? judge(&what, -EPERM) : 0;
}

HOOK("bpf_token_capable")
int guard_token_capable(__u64 *ctx)
{
	struct judged what = { .point = GUARD_TOKEN_CAPABLE, .cmd = NO_CMD, .quiet = 1 };
	struct guard_token *entry;
	struct guard_delegation *of = delegation_of(ctx[0], &what, &entry);
	__u64 capability = ctx[1] & 63, bit = 1ULL << capability;

	if (of && !what.reason && !(of->terms.capabilities & bit)) {
		what.reason = GUARD_CAPABILITY;
		if (entry->told & bit)
			return of->terms.mode == GUARD_PERMISSIVE ? 0 : -EPERM;
		entry->told |= bit;
	}
	what.type = capability;
	return what.reason ? judge(&what, -EPERM) : 0;
}

/* ---- maps and programs ---- */

/*
 * What of an object was wrong before it was counted. As the kernel does for a token without the
 * bit: EPERM.
 */
static __always_inline int pass_object(struct judged *what)
{
	return what->reason == GUARD_RIGHTS ? pass(what, -EPERM) : pass(what, -EACCES);
}

/* For people to reckon with: without what the kernel adds, and for one processor. */
static __always_inline __u64 bytes_of(const struct bpf_map *map)
{
	__u64 entries = map->max_entries;

	if (map->map_type == BPF_MAP_TYPE_RINGBUF || map->map_type == BPF_MAP_TYPE_USER_RINGBUF)
		return entries;
	/* Pages, of 4 KiB at least. */
	if (map->map_type == BPF_MAP_TYPE_ARENA)
		return entries * 4096;
	return entries * ((__u64)map->key_size + map->value_size);
}

/* What is wrong with a map, apart from how many there are. */
static __always_inline __u8 judge_map(const struct bpf_map *map, const struct guard_terms *terms, int confined)
{
	if (confined && !(terms->masks.maps >> (map->map_type & 63) & 1))
		return GUARD_RIGHTS;
	/* A write to such a map registers it, and only the end of the map unregisters it. */
	if (map->map_type == BPF_MAP_TYPE_STRUCT_OPS && !(map->map_flags & BPF_F_LINK) &&
	    !(terms->flags & GUARD_IRREVOCABLE))
		return GUARD_OUTLIVES;
	return GUARD_NONE;
}

HOOK("bpf_map_create")
int guard_map_create(__u64 *ctx)
{
	struct bpf_map *map = (void *)ctx[0];
	__u64 token = ctx[2];
	struct judged what = { .point = GUARD_MAP_CREATE, .cmd = BPF_MAP_CREATE };
	struct guard_delegation *of = subject_of(token, &what);
	struct counted as = { .kind = MAPS, .reason = GUARD_MAPS };
	struct guard_usage *usage;
	struct guard_map entry;
	int verdict;

	if (!of && !what.reason)
		return 0;
	what.name = map->name;
	what.type = map->map_type;
	if (!of)
		return judge(&what, -EACCES);
	if (!what.reason)
		what.reason = judge_map(map, &of->terms, !IS_SET(token));
	verdict = pass_object(&what);
	if (verdict)
		return verdict;
	usage = usage_by(what.delegation);
	if (!usage)
		return -EACCES;
	entry.delegation = what.delegation;
	entry.bytes = as.bytes = bytes_of(map);
	as.bytes_limit = of->terms.map_bytes;
	as.limit = limit_of(&of->terms, MAPS);
	return enroll(&maps, ctx[0], &entry, &what, usage, &as);
}

HOOK("bpf_map_free")
int guard_map_free(__u64 *ctx)
{
	struct guard_map entry;
	struct guard_usage *usage = take_out(&maps, ctx[0], &entry, sizeof(entry)) ? usage_by(entry.delegation) : 0;

	if (usage) {
		count_down(entry.delegation, usage, MAPS, entry.bytes);
		forget(entry.delegation);
	}
	return 0;
}

/*
 * Whether a program's attach target is on the list. Of another program's function (ext) no list
 * knows.
 */
static __noinline int is_listed_target(const struct bpf_prog *prog, __u64 list)
{
	struct guard_function key = { .list = list };
	struct bpf_prog_aux *aux = READ(prog, aux);
	struct btf *btf = READ(aux, attach_btf);

	key.type = READ(aux, attach_btf_id);
	if (!btf || !key.type)
		return 0;
	key.btf = READ(btf, id);
	return bpf_map_lookup_elem(&functions, &key) != 0;
}

static __always_inline int has_target(__u32 type)
{
	return type == BPF_PROG_TYPE_TRACING || type == BPF_PROG_TYPE_LSM || type == BPF_PROG_TYPE_EXT ||
	       type == BPF_PROG_TYPE_STRUCT_OPS;
}

/*
 * What is wrong with a program, apart from its size, how many there are, and its digest, which is
 * known once it is verified.
 */
static __always_inline __u8 judge_program(const struct bpf_prog *prog, const struct guard_terms *terms, int confined)
{
	if (confined && (!(terms->masks.progs >> (prog->type & 63) & 1) ||
			 !(terms->masks.attachs >> (prog->expected_attach_type & 63) & 1)))
		return GUARD_RIGHTS;
	if (terms->functions && has_target(prog->type) && !is_listed_target(prog, terms->functions))
		return GUARD_FUNCTION;
	return GUARD_NONE;
}

HOOK("bpf_prog_load")
int guard_prog_load(__u64 *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	/* The hook's own argument is NULL up to Linux 7.2, for loads with a token too. */
	__u64 aux = (__u64)prog->aux, token = (__u64)prog->aux->token;
	struct judged what = { .point = GUARD_PROG_LOAD, .cmd = BPF_PROG_LOAD };
	struct guard_delegation *of = subject_of(token, &what);
	struct counted as = { .kind = PROGRAMS, .reason = GUARD_PROGRAMS };
	struct guard_program entry = {};
	struct guard_usage *usage;
	int verdict;

	if (!of && !what.reason)
		return 0;
	what.name = prog->aux->name;
	what.type = prog->type;
	if (!of)
		return judge(&what, -EACCES);
	if (!what.reason)
		what.reason = judge_program(prog, &of->terms, !IS_SET(token));
	verdict = pass_object(&what);
	if (verdict)
		return verdict;
	usage = usage_by(what.delegation);
	if (!usage)
		return -EACCES;
	entry.delegation = what.delegation;
	entry.admitted = of->terms.digests == 0;
	if (prog->len > of->terms.instructions)
		what.reason = GUARD_INSTRUCTIONS;
	as.limit = limit_of(&of->terms, PROGRAMS);
	return enroll(&programs, aux, &entry, &what, usage, &as);
}

static __noinline int is_listed_program(const struct bpf_prog *prog, __u64 list)
{
	struct guard_digest key = { .list = list };
	const struct bpf_prog___sha256 *newer = (const void *)prog;

	if (__builtin_preserve_field_info(newer->digest, 2)) {
		bpf_probe_read_kernel(key.bytes, sizeof(key.bytes), newer->digest);
		if (bpf_map_lookup_elem(&digests, &key))
			return 1;
		__builtin_memset(key.bytes, 0, sizeof(key.bytes));
	}
	bpf_probe_read_kernel(key.bytes, sizeof(prog->tag), prog->tag);
	return bpf_map_lookup_elem(&digests, &key) != 0;
}

/*
 * The record of a program under a delegation, and a first verdict in `what`; 0: it has none. With a
 * reason that is a refusal; without, it is none of our business. The token says whose the program
 * is; the record must say the same.
 */
static __noinline struct guard_program *program_of(__u64 aux, __u64 token, struct judged *what)
{
	struct guard_program *entry = bpf_map_lookup_elem(&programs, &aux);
	struct guard_token *lent;
	__u64 owner;

	if (!IS_SET(token)) {
		/*
		 * Of a cgroup that is or was confined; anything else was left behind by a program
		 * that is gone.
		 */
		if (!entry || entry->delegation >= GUARD_CONFINEMENTS || !judged_by(entry->delegation, what))
			return 0;
		return entry;
	}
	lent = bpf_map_lookup_elem(&tokens, &token);
	owner = lent ? lent->delegation : 0;
	if (!judged_by(owner, what))
		return 0;
	if (!entry || entry->delegation != owner) {
		beyond_mode(what, GUARD_MISMATCH);
		return 0;
	}
	return entry;
}

/*
 * A program becomes a descriptor: at first when it is verified, so that its digest is known; later
 * when it is opened from a pin, or by its id. Then it is the opener's user namespace that counts,
 * as for one that is passed; the host's root may.
 */
HOOK("bpf_prog")
int guard_prog(__u64 *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	__u64 aux = (__u64)prog->aux, token = (__u64)prog->aux->token;
	struct judged what = { .point = GUARD_OPEN, .cmd = NO_CMD, .quiet = 1 };
	struct guard_delegation *of;
	struct guard_program *entry;
	int verdict;

	if (!IS_SET(token) && !some_are_confined())
		return 0;
	entry = program_of(aux, token, &what);
	if (!entry && (!what.reason || is_host_root()))
		return 0;
	what.name = prog->aux->name;
	what.type = prog->type;
	if (!entry)
		return judge(&what, -EACCES);
	/* What was loaded before a delegation ended may be opened, and is attached no more. */
	what.reason = GUARD_NONE;
	of = delegation_by(entry->delegation);
	if (!of)
		return -EACCES;
	if (is_stranger(of) && !is_host_root())
		what.reason = GUARD_STRANGER;
	verdict = pass(&what, -EACCES);
	if (verdict || entry->admitted)
		return verdict;
	what.point = GUARD_PROG_LOAD;
	what.cmd = BPF_PROG_LOAD;
	if (!is_listed_program(prog, of->terms.digests))
		what.reason = GUARD_DIGEST;
	verdict = judge(&what, -EACCES);
	if (!verdict)
		entry->admitted = 1;
	return verdict;
}

HOOK("bpf_prog_free")
int guard_prog_free(__u64 *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	struct guard_program entry;
	struct guard_usage *usage = 0;

	if (take_out(&programs, (__u64)READ(prog, aux), &entry, sizeof(entry)))
		usage = usage_by(entry.delegation);
	if (usage) {
		uncount(entry.delegation, usage, PROGRAMS, 1);
		forget(entry.delegation);
	}
	return 0;
}

#endif
