/* What the guard knows: its maps, and how a record is found, made and let go. */
#ifndef GUARD_STATE_H
#define GUARD_STATE_H

#define TABLE(name_, key_, value_, entries_)                                                                          \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                      \
		__uint(max_entries, entries_);                                                                        \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                 \
		__type(key, key_);                                                                                    \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

/*
 * By the address of a kernel object. Elements are allocated beforehand, 72 bytes each, because one
 * is taken and given back with each object: so that takes a third of the time.
 */
#define OBJECTS(name_, value_)                                                                                        \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                      \
		__uint(max_entries, 65536);                                                                           \
		__type(key, __u64);                                                                                   \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

/* Looked up without a call: the kernel puts the arithmetic in its place. */
#define ARRAY(name_, value_, entries_)                                                                                \
	struct {                                                                                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                     \
		__uint(max_entries, entries_);                                                                        \
		__type(key, __u32);                                                                                   \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

#define STORAGE(name_, type_, value_)                                                                                 \
	struct {                                                                                                      \
		__uint(type, type_);                                                                                  \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                 \
		__type(key, int);                                                                                     \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

ARRAY(config, struct guard_config, 1);
ARRAY(totals, struct guard_totals, 1);

/* By src/guard: what may be delegated, by whom, and who is confined. */
TABLE(policies, struct guard_name, struct guard_terms, 1024);
TABLE(digests, struct guard_digest, __u32, 65536);
TABLE(functions, struct guard_function, __u32, 65536);
TABLE(processes, struct guard_process, struct guard_delegator, 1024);
TABLE(files, struct guard_file, struct guard_delegator, 256);
TABLE(cgroups, struct guard_cgroup, struct guard_delegator, 256);
TABLE(confined, __u64, __u64, GUARD_CONFINEMENTS);
TABLE(own_maps, __u32, __u32, 64);

/* Contexts that are marked, by their private data, which becomes the superblock's; and that by context. */
TABLE(pending, __u64, struct guard_pending, 1024);
TABLE(contexts, __u64, __u64, 1024);

/* Element id % GUARD_SLOTS of each belongs to the delegation whose id is in the first. */
ARRAY(delegations, struct guard_delegation, GUARD_SLOTS);
ARRAY(revocations, struct guard_revocation, GUARD_SLOTS);
ARRAY(usages, struct guard_usage, GUARD_SLOTS);
/* The tick at which the clock said last that it has not expired. */
ARRAY(unexpired, __u64, GUARD_SLOTS);
/* What was refused because its time was over stays refused, whatever is renewed later. */
ARRAY(expired, struct guard_expired, GUARD_SLOTS);
/*
 * By id: when it ends, instead of what its record says, and later than that. By src/guard; removed
 * with the record. In a hash table one end takes another's place as a whole. An element that was
 * replaced may be used again at once, but only for another end that has just been renewed, as its
 * own has.
 */
TABLE(renewals, __u64, __u64, GUARD_SLOTS);

/*
 * By the kernel's objects: addresses that stay for as long as the object lives, each removed when it is freed. A program is known by
 * its bpf_prog_aux, since the verifier moves struct bpf_prog when it grows.
 */
TABLE(superblocks, __u64, __u64, 16384);
OBJECTS(tokens, struct guard_token);
OBJECTS(programs, struct guard_program);
OBJECTS(maps, struct guard_map);

/* By inode number. Entries without rules are swept by src/guard. */
TABLE(namespaces, __u64, struct guard_namespace, 16384);

/* The delegation that a bpffs is, on the inode of its root: gone with it, so that no address is ever mistaken for another. */
STORAGE(roots, BPF_MAP_TYPE_INODE_STORAGE, __u64);
/* 1, on the first thread of a process: it means to change the guard. */
STORAGE(keepers, BPF_MAP_TYPE_TASK_STORAGE, __u32);

/* Of a task whose call of bpf(2) may make a link. */
struct link_call {
	__u32 expected; /* 1: it has not been seen yet */
	__u32 since; /* its number is not below this */
	__u32 cmd;
	__u32 type; /* attach type */
};

STORAGE(making_links, BPF_MAP_TYPE_TASK_STORAGE, struct link_call);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} events SEC(".maps");

#define NEVER (~0ULL)
#define NO_LIMIT (~0U)

static const __u32 first = 0;

static __always_inline struct guard_config *configuration(void)
{
	return bpf_map_lookup_elem(&config, &first);
}

enum { CAP_SYS_ADMIN = 21, CAP_BPF = 39 };

/*
 * Some of these capabilities over the machine. Containers may have them too. Whose task it is, its
 * real credentials say, here and everywhere: io_uring lends it others for single operations.
 */
static __always_inline int is_capable(struct task_struct *task, __u64 some)
{
	const struct cred *cred = task->real_cred;

	return cred->user_ns == &init_user_ns && cred->cap_effective.val & some;
}

static __always_inline int is_host_admin(struct task_struct *task)
{
	return is_capable(task, 1ULL << CAP_SYS_ADMIN);
}

/* The host's root, for bpf(2): who may load and attach on the machine without anybody's token. */
static __always_inline int is_root_of_host(struct task_struct *task)
{
	return is_capable(task, 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_BPF);
}

static __always_inline int is_host_root(void)
{
	return is_root_of_host(bpf_get_current_task_btf());
}

static __always_inline __u32 guard_mode_of_host(void)
{
	struct guard_config *found = configuration();

	return found ? found->mode : GUARD_ENFORCE;
}

static __always_inline struct guard_delegation *delegation_by(__u64 id)
{
	__u32 slot = id % GUARD_SLOTS;
	struct guard_delegation *found = bpf_map_lookup_elem(&delegations, &slot);

	return found && id && found->id == id ? found : 0;
}

static __always_inline struct guard_usage *usage_by(__u64 id)
{
	__u32 slot = id % GUARD_SLOTS;

	return bpf_map_lookup_elem(&usages, &slot);
}

/* When it ends, by what holds now. */
static __always_inline __u64 end_of(const struct guard_delegation *of, __u64 id)
{
	__u64 *renewed = bpf_map_lookup_elem(&renewals, &id);

	return renewed && *renewed > of->expires_ns ? *renewed : of->expires_ns;
}

/*
 * The clock is read once in a tick, since that costs as much as a lookup and each call is judged
 * several times. So a delegation may live on for a tick, 10 milliseconds at most.
 *
 * That it has expired is written down before anybody is told. Who renews waits for the programs that
 * run, and finds it written, or else nobody was refused.
 */
static __always_inline int is_expired(const struct guard_delegation *of, __u64 id, __u32 slot)
{
	__u64 tick = bpf_jiffies64(), *unexpired_at = bpf_map_lookup_elem(&unexpired, &slot), now;
	struct guard_expired *over = bpf_map_lookup_elem(&expired, &slot);

	if (!unexpired_at || !over || over->id == id)
		return 1;
	if (*unexpired_at == tick)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (now >= of->expires_ns && now >= end_of(of, id)) {
		over->id = id;
		return 1;
	}
	*unexpired_at = tick;
	return 0;
}

/* Of the delegation of this id, which the element may not have any more. */
static __always_inline __u8 liveness(const struct guard_delegation *of, __u64 id)
{
	__u32 slot = id % GUARD_SLOTS;
	struct guard_revocation *revoked = bpf_map_lookup_elem(&revocations, &slot);

	if (!revoked || revoked->id == id)
		return GUARD_REVOKED;
	if (of->expires_ns != NEVER && is_expired(of, id, slot))
		return GUARD_EXPIRED;
	return GUARD_NONE;
}

/* ---- counting ---- */

/* Takes so many; 1: that is more than there was room for. Counted before it is judged, so that no two tasks take the last one. */
static __always_inline int over32(__u32 *count, __u32 more, __u32 limit)
{
	__u32 before = __sync_fetch_and_add(count, more);

	return limit != NO_LIMIT && (before > limit || more > limit - before);
}

static __always_inline int over64(__u64 *count, __u64 more, __u64 limit)
{
	__u64 before = __sync_fetch_and_add(count, more);

	return limit != NEVER && (before > limit || more > limit - before);
}

/* What is counted of a delegation, one at a time. */
enum kind { TOKENS, PROGRAMS, MAPS };

static __always_inline __u32 *count_of(struct guard_usage *usage, __u32 kind)
{
	return kind == TOKENS ? &usage->tokens : kind == PROGRAMS ? &usage->programs : &usage->maps;
}

/* NO_LIMIT: not stated. */
static __always_inline __u32 stated(const struct guard_terms *terms, __u32 kind)
{
	return kind == TOKENS ? terms->tokens : kind == PROGRAMS ? terms->programs : terms->maps;
}

/* What holds of a limit that the policy may not state. */
static __always_inline __u32 limit_of(const struct guard_terms *terms, __u32 kind)
{
	__u32 limit = stated(terms, kind);

	if (limit != NO_LIMIT)
		return limit;
	return kind == TOKENS ? GUARD_DEFAULT_TOKENS : kind == PROGRAMS ? GUARD_DEFAULT_PROGRAMS : GUARD_DEFAULT_MAPS;
}

/* Up from a delegation, counting so many more, or less, of a kind. */
struct climb {
	__u64 id;
	__u32 kind;
	__u32 more;
	__u32 over; /* not 0: one of them had not that much room, or is missing */
};

/* The origin of this delegation, if its use counts there; else 0. */
static __always_inline __u64 origin_of(__u64 id, __u32 kind)
{
	struct guard_delegation *of = delegation_by(id);

	return of && stated(&of->terms, kind) == NO_LIMIT ? of->parent : 0;
}

static long count_at_origin(__u32 depth, struct climb *at)
{
	__u64 id = origin_of(at->id, at->kind);
	struct guard_delegation *origin;
	struct guard_usage *usage;
	__u32 limit;

	if (!id)
		return 1;
	/* It stays for as long as anything is derived from it. */
	origin = delegation_by(id);
	if (!origin) {
		at->over = 1;
		return 1;
	}
	limit = limit_of(&origin->terms, at->kind);
	usage = usage_by(id);
	if (!usage) {
		at->over = 1;
		return 1;
	}
	at->over |= over32(count_of(usage, at->kind), at->more, limit);
	at->id = id;
	return 0;
}

/*
 * A derived delegation that states no limit uses its origin's: what counts for it counts for the
 * origin, and so on up to one that states its own, which was taken from above as a whole. So many
 * more, or less; not 0: that is more than one of them had room for.
 */
static __noinline int over_origins(__u64 id, __u32 kind, __u32 more)
{
	struct climb at = { .id = id, .kind = kind, .more = more };

	if (origin_of(id, kind))
		bpf_loop(17, count_at_origin, &at, 0);
	return at.over;
}

/* The same, and for the delegation itself. */
static __always_inline void uncount(__u64 id, struct guard_usage *usage, __u32 kind, __u32 less)
{
	__sync_fetch_and_add(count_of(usage, kind), -less);
	over_origins(id, kind, -less);
}

/*
 * What a derived delegation may use is taken from its origin's as a whole, so that no use of it
 * needs to look further up: of a limit that it states. Bytes are taken where the origin states them.
 */
struct lent_on {
	__u64 map_bytes;
	__u32 tokens;
	__u32 programs;
	__u32 maps;
};

static __always_inline __u32 part_of(const struct guard_terms *child, __u32 kind)
{
	__u32 limit = stated(child, kind);

	return limit == NO_LIMIT ? 0 : limit;
}

static __always_inline struct lent_on lent_on(const struct guard_terms *parent, const struct guard_terms *child)
{
	struct lent_on part = {
		.map_bytes = parent->map_bytes == NEVER ? 0 : child->map_bytes,
		.tokens = part_of(child, TOKENS),
		.programs = part_of(child, PROGRAMS),
		.maps = part_of(child, MAPS),
	};

	return part;
}

/* To the delegation `id`, whose usage it is. */
static __always_inline void give_back(__u64 id, struct guard_usage *usage, const struct lent_on *part)
{
	__sync_fetch_and_add(&usage->map_bytes, -part->map_bytes);
	uncount(id, usage, TOKENS, part->tokens);
	uncount(id, usage, PROGRAMS, part->programs);
	uncount(id, usage, MAPS, part->maps);
	__sync_fetch_and_add(&usage->children, -1);
}

/* A function by itself, so that the verifier does not multiply the ways through several. */
static __noinline int over_part(__u64 id, __u32 kind, __u32 part)
{
	struct guard_delegation *from = delegation_by(id);
	struct guard_usage *usage = usage_by(id);

	__u32 limit = 0;

	if (!usage)
		return 1;
	if (from)
		limit = limit_of(&from->terms, kind);
	/* Counted in any case, since it is given back in any case. */
	return over32(count_of(usage, kind), part, limit) | over_origins(id, kind, part) | !from;
}

/* 0: that delegation has not that much left, and nothing is taken. */
static __always_inline int take_part(const struct guard_delegation *from, struct guard_usage *usage, const struct lent_on *part)
{
	int over = over64(&usage->map_bytes, part->map_bytes, from->terms.map_bytes);

	over |= over_part(from->id, TOKENS, part->tokens);
	over |= over_part(from->id, PROGRAMS, part->programs);
	over |= over_part(from->id, MAPS, part->maps);
	__sync_fetch_and_add(&usage->children, 1);
	if (over)
		give_back(from->id, usage, part);
	return !over;
}

/* ---- who fills a table ---- */

struct holder {
	__u64 delegation;
	__u32 most;
	__u32 kind;
};

static long compare_holder(__u32 slot, struct holder *best)
{
	struct guard_usage *usage = bpf_map_lookup_elem(&usages, &slot);
	struct guard_delegation *of = bpf_map_lookup_elem(&delegations, &slot);
	__u32 count;

	if (!usage || !of)
		return 1;
	count = *count_of(usage, best->kind);
	if (of->id && count > best->most) {
		best->most = count;
		best->delegation = of->id;
	}
	return 0;
}

/* The delegation that has most of what is counted there: asked only when a table is full. */
static __noinline __u64 holder_of_most(__u32 kind)
{
	struct holder best = { .kind = kind };

	bpf_loop(GUARD_SLOTS, compare_holder, &best, 0);
	return best.delegation;
}

/* ---- what tasks of a user namespace may attach ---- */

/* What counts of a delegation's terms, in the order of struct guard_rules. */
static __always_inline struct guard_rules rules_of(const struct guard_terms *terms)
{
	struct guard_rules rules = {
		.own_network = !(terms->flags & GUARD_HOST_NETWORK) && (terms->masks.progs & GUARD_NETWORK_PROGS),
		.revocable = !(terms->flags & GUARD_IRREVOCABLE),
	};

	return rules;
}

static __always_inline void count_rules(struct guard_namespace *of, __u32 mode, const struct guard_rules *one, int change)
{
	struct guard_rules *all = mode == GUARD_PERMISSIVE ? &of->watched : &of->enforced;

	__sync_fetch_and_add(&all->own_network, change * one->own_network);
	__sync_fetch_and_add(&all->revocable, change * one->revocable);
}

/* ---- the end of a record ---- */

/*
 * The record of a kernel object is taken out of its table: 1, and then it is in `entry`, and the caller counts it down. 0: there was
 * none, or somebody else has taken it: free hooks can fire twice.
 */
static __always_inline int take_out(void *table, __u64 at, void *entry, __u32 bytes)
{
	void *found = bpf_map_lookup_elem(table, &at);

	if (!found)
		return 0;
	__builtin_memcpy(entry, found, bytes);
	return bpf_map_delete_elem(table, &at) == 0;
}

/*
 * What a delegation's rules are for ends with its last superblock, token and program: they keep the
 * user namespace, and maps do not, whose inode number is then another one's.
 */
static __always_inline void forget_rules(struct guard_delegation *of, const struct guard_usage *usage)
{
	__u64 namespace = of->user_namespace;
	struct guard_namespace *rules;
	struct guard_rules counted;

	if (usage->superblocks | usage->tokens | usage->programs)
		return;
	/* Two may get here at once. */
	if (__sync_val_compare_and_swap(&of->ruled, 1, 0) != 1)
		return;
	rules = bpf_map_lookup_elem(&namespaces, &namespace);
	counted = rules_of(&of->terms);
	if (rules)
		count_rules(rules, of->terms.mode, &counted, -1);
}

/*
 * The record of a delegation goes when its superblock and its last token have gone: programs keep tokens, tokens the rest.
 * With it goes what it had of its parent, whose own record may have waited for that only.
 */
static long forget_one(__u32 depth, __u64 *at)
{
	__u64 id = *at, up;
	struct guard_delegation *of = delegation_by(id), *parent;
	struct guard_usage *usage = usage_by(id);
	struct lent_on part = {};

	if (!of || !usage || id < GUARD_CONFINEMENTS)
		return 1;
	forget_rules(of, usage);
	if (usage->superblocks | usage->tokens | usage->programs | usage->maps | usage->children)
		return 1;
	up = of->parent;
	parent = delegation_by(up);
	if (parent)
		part = lent_on(&parent->terms, &of->terms);
	/* Two may get here at once. From here on the element may be another's. */
	if (__sync_val_compare_and_swap(&of->id, id, 0) != id)
		return 1;
	bpf_map_delete_elem(&renewals, &id);
	usage = parent ? usage_by(up) : 0;
	if (!usage)
		return 1;
	give_back(up, usage, &part);
	*at = up;
	return 0;
}

static __noinline int forget(__u64 id)
{
	bpf_loop(17, forget_one, &id, 0);
	return 0;
}

#endif
