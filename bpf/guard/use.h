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
 * Verifiers take a hook's argument for a pointer that is never NULL, and remove a test of it against 0 as dead, with the branch
 * that every call without a token takes. No object lives in the first page.
 */
#define IS_SET(pointer) ((pointer) >= 4096)

/* The delegation under which the call is judged, with or without a token; 0 without a reason: it is none of our business. */
static __always_inline struct guard_delegation *subject_of(__u64 token, struct judged *what)
{
	struct guard_token *entry;
	__u64 id;

	if (IS_SET(token))
		return delegation_of(token, what, &entry);
	id = some_are_confined() ? confinement() : 0;
	return id ? judged_by(id, what) : 0;
}

/* ---- tokens ---- */

/* Whether a bpffs is where it was: the mount that tokens were made through first, at the place where it was then. */
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
	__u64 token = ctx[0], *root;
	struct guard_delegation *of;
	struct guard_token entry = {};
	struct guard_usage *usage;
	int verdict;

	if (bpf_map_lookup_elem(&tokens, &token))
		return 0;
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
	if (over32(&usage->tokens, 1, of->terms.tokens))
		what.reason = GUARD_TOKENS;
	verdict = pass(&what, -EDQUOT);
	if (verdict) {
		__sync_fetch_and_add(&usage->tokens, -1);
		return verdict;
	}
	if (bpf_map_update_elem(&tokens, &token, &entry, BPF_NOEXIST)) {
		__sync_fetch_and_add(&usage->tokens, -1);
		what.mode = GUARD_ENFORCE;
		what.reason = GUARD_FULL;
	}
	return judge(&what, -EACCES);
}

HOOK("bpf_token_free")
int guard_token_free(__u64 *ctx)
{
	__u64 id;
	struct guard_usage *usage = take_out(&tokens, ctx[0], &id);

	if (usage) {
		__sync_fetch_and_add(&usage->tokens, -1);
		forget(id);
	}
	return 0;
}

HOOK("bpf_token_cmd")
int guard_token_cmd(__u64 *ctx)
{
	struct judged what = { .point = GUARD_TOKEN_CMD, .cmd = ctx[1], .quiet = 1 };
	struct guard_token *entry;

	delegation_of(ctx[0], &what, &entry);
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

/* ---- maps ---- */

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
	/* Registered by a write to the map, and by nothing unregistered but another. */
	if (map->map_type == BPF_MAP_TYPE_STRUCT_OPS && !(map->map_flags & BPF_F_LINK) &&
	    !(terms->flags & GUARD_IRREVOCABLE))
		return GUARD_OUTLIVES;
	return GUARD_NONE;
}

HOOK("bpf_map_create")
int guard_map_create(__u64 *ctx)
{
	struct bpf_map *map = (void *)ctx[0];
	__u64 token = ctx[2], at = ctx[0];
	struct judged what = { .point = GUARD_MAP_CREATE, .cmd = BPF_MAP_CREATE };
	struct guard_delegation *of = subject_of(token, &what);
	struct guard_usage *usage;
	struct guard_map entry;
	long known;
	int verdict;

	if (!of && !what.reason)
		return 0;
	what.name = map->name;
	what.type = map->map_type;
	if (!of)
		return judge(&what, -EACCES);
	if (!what.reason)
		what.reason = judge_map(map, &of->terms, !IS_SET(token));
	/* As the kernel does for a token without the bit. */
	verdict = what.reason == GUARD_RIGHTS ? pass(&what, -EPERM) : pass(&what, -EACCES);
	if (verdict)
		return verdict;
	entry.delegation = what.delegation;
	entry.bytes = bytes_of(map);
	usage = usage_by(entry.delegation);
	if (!usage)
		return -EACCES;
	known = bpf_map_update_elem(&maps, &at, &entry, BPF_NOEXIST);
	/* Counted by another version of these programs. */
	if (known == -EEXIST)
		return 0;
	if (known) {
		what.reason = GUARD_FULL;
		what.mode = GUARD_ENFORCE;
		return judge(&what, -EDQUOT);
	}
	if (over32(&usage->maps, 1, of->terms.maps))
		what.reason = GUARD_MAPS;
	if (over64(&usage->map_bytes, entry.bytes, of->terms.map_bytes) && !what.reason)
		what.reason = GUARD_MAP_BYTES;
	verdict = judge(&what, -EDQUOT);
	if (verdict) {
		bpf_map_delete_elem(&maps, &at);
		__sync_fetch_and_add(&usage->maps, -1);
		__sync_fetch_and_add(&usage->map_bytes, -entry.bytes);
	}
	return verdict;
}

HOOK("bpf_map_free")
int guard_map_free(__u64 *ctx)
{
	__u64 at = ctx[0];
	struct guard_map *found = bpf_map_lookup_elem(&maps, &at), entry;
	struct guard_usage *usage;

	if (!found)
		return 0;
	entry = *found;
	usage = bpf_map_delete_elem(&maps, &at) ? 0 : usage_by(entry.delegation);
	if (usage) {
		__sync_fetch_and_add(&usage->map_bytes, -entry.bytes);
		__sync_fetch_and_add(&usage->maps, -1);
		forget(entry.delegation);
	}
	return 0;
}

/* ---- programs ---- */

/* Whether a program's attach target is on the list. Of another program's function (ext) no list knows. */
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

/* What is wrong with a program, apart from how many there are and its digest, which is not known before it is verified. */
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
	__u64 token = (__u64)prog->aux->token, at = ctx[0];
	struct judged what = { .point = GUARD_PROG_LOAD, .cmd = BPF_PROG_LOAD };
	struct guard_delegation *of = subject_of(token, &what);
	struct guard_program entry = {};
	struct guard_usage *usage;
	long known;
	int verdict;

	if (!of && !what.reason)
		return 0;
	what.name = prog->aux->name;
	what.type = prog->type;
	if (!of)
		return judge(&what, -EACCES);
	if (!what.reason)
		what.reason = judge_program(prog, &of->terms, !IS_SET(token));
	/* As the kernel does for a token without the bit. */
	verdict = what.reason == GUARD_RIGHTS ? pass(&what, -EPERM) : pass(&what, -EACCES);
	if (verdict)
		return verdict;
	entry.delegation = what.delegation;
	entry.admitted = of->terms.digests == 0;
	usage = usage_by(entry.delegation);
	if (!usage)
		return -EACCES;
	known = bpf_map_update_elem(&programs, &at, &entry, BPF_NOEXIST);
	if (known == -EEXIST)
		return 0;
	if (known) {
		what.reason = GUARD_FULL;
		what.mode = GUARD_ENFORCE;
		return judge(&what, -EDQUOT);
	}
	if (prog->len > of->terms.instructions)
		what.reason = GUARD_INSTRUCTIONS;
	if (over32(&usage->programs, 1, of->terms.programs) && !what.reason)
		what.reason = GUARD_PROGRAMS;
	verdict = judge(&what, -EDQUOT);
	if (verdict) {
		bpf_map_delete_elem(&programs, &at);
		__sync_fetch_and_add(&usage->programs, -1);
	}
	return verdict;
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

/* A program becomes a descriptor: verified, so that its digest is known. Afterwards each descriptor that is made of it comes by. */
HOOK("bpf_prog")
int guard_prog(__u64 *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];
	struct judged what = { .point = GUARD_PROG_LOAD, .cmd = BPF_PROG_LOAD };
	struct guard_delegation *of;
	struct guard_program *entry;
	__u64 at = ctx[0];
	int verdict;

	if (!prog->aux->token && !some_are_confined())
		return 0;
	entry = bpf_map_lookup_elem(&programs, &at);
	if (!entry || entry->admitted)
		return 0;
	of = delegation_by(entry->delegation);
	if (!of)
		return -EACCES;
	under(&what, of);
	what.quiet = 1;
	if (!is_listed_program(prog, of->terms.digests))
		what.reason = GUARD_DIGEST;
	what.name = prog->aux->name;
	what.type = prog->type;
	verdict = judge(&what, -EACCES);
	if (!verdict)
		entry->admitted = 1;
	return verdict;
}

HOOK("bpf_prog_free")
int guard_prog_free(__u64 *ctx)
{
	__u64 id;
	struct guard_usage *usage = take_out(&programs, ctx[0], &id);

	if (usage) {
		__sync_fetch_and_add(&usage->programs, -1);
		forget(id);
	}
	return 0;
}

#endif
