/*
 * What lives of the guard's delegations, and which processes hold it: iterators over the kernel's programs, maps, links and
 * open files, for src/guard/inventory.ts. Loaded for as long as that reads, with the guard's own maps, which they only read.
 */
#include "kernel.h"
#include "guard/abi.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum inventory_kind {
	INVENTORY_PROGRAM = 1,
	INVENTORY_MAP = 2,
	INVENTORY_LINK = 3,
	INVENTORY_TOKEN = 4,
	INVENTORY_MEMBER = 5,
};

/*
 * One object; or with `holder`, one open file of that process by which it holds the object; or a
 * process in a user namespace to which something is lent, whose number is then the id.
 */
struct inventory_record {
	__u64 delegation;
	__u32 kind; /* enum inventory_kind */
	__u32 id; /* the kernel's; 0 for tokens, which have none */
	__u32 type; /* of a program, map or link */
	__u32 program; /* of a link: id; 0: it has none */
	__u32 holder; /* tgid; 0: this is about the object itself */
	__u32 within; /* 1: the holder is in the delegation's user namespace or confined cgroup, or in one below */
	char name[16]; /* of the program (for links, too) or map; or of the holder */
};

_Static_assert(sizeof(struct inventory_record) == 48, "inventory_record");

/* The guard's, see guard/state.h. */
#define SHARED(name_, type_, key_, value_, entries_, flags_)                                                          \
	struct {                                                                                                      \
		__uint(type, type_);                                                                                  \
		__uint(max_entries, entries_);                                                                        \
		__uint(map_flags, flags_);                                                                            \
		__type(key, key_);                                                                                    \
		__type(value, value_);                                                                                \
	} name_ SEC(".maps")

SHARED(programs, BPF_MAP_TYPE_HASH, __u64, struct guard_program, 65536, 0);
SHARED(maps, BPF_MAP_TYPE_HASH, __u64, struct guard_map, 65536, 0);
SHARED(tokens, BPF_MAP_TYPE_HASH, __u64, struct guard_token, 65536, 0);
SHARED(namespaces, BPF_MAP_TYPE_HASH, __u64, struct guard_namespace, 16384, BPF_F_NO_PREALLOC);
SHARED(delegations, BPF_MAP_TYPE_ARRAY, __u32, struct guard_delegation, GUARD_SLOTS, 0);

struct seq_file;
static long (*bpf_seq_write)(struct seq_file *seq, const void *data, __u32 bytes) = (void *)127;

struct bpf_iter_meta {
	struct seq_file *seq;
} __core;

struct task_struct___name {
	char comm[16];
} __core;

struct perf_event {
	struct bpf_prog *prog;
} __core;

struct sk_filter {
	struct bpf_prog *prog;
} __core;

struct sock {
	struct sk_filter *sk_filter;
} __core;

struct socket {
	struct sock *sk;
} __core;

struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
} __core;

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
} __core;

struct bpf_iter__bpf_link {
	struct bpf_iter_meta *meta;
	struct bpf_link *link;
} __core;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct file *file;
} __core;

extern const void bpf_prog_fops __ksym;
extern const void bpf_map_fops __ksym;
extern const void bpf_token_fops __ksym;
extern const void bpf_link_fops __ksym;
extern const void bpf_link_fops_poll __ksym __attribute__((weak)); /* since Linux 6.9, for struct_ops */
extern const void perf_fops __ksym;
extern const void socket_file_ops __ksym;

/*
 * Every record of the guard begins with its delegation. 0: the object is of none, as for each of these. What is on record is alive: no
 * other object has its address.
 */
static __always_inline __u64 find(void *table, const void *object, __u32 kind, struct inventory_record *record)
{
	__u64 at = (__u64)object, *found = bpf_map_lookup_elem(table, &at);

	if (!found)
		return 0;
	record->kind = kind;
	return record->delegation = *found;
}

static __always_inline __u64 find_program(struct bpf_prog *program, struct inventory_record *record)
{
	/* As the guard has it: struct bpf_prog may have moved since. */
	struct bpf_prog_aux *aux = READ(program, aux);

	if (!find(&programs, aux, INVENTORY_PROGRAM, record))
		return 0;
	record->id = READ(aux, id);
	return record->delegation;
}

static __always_inline __u64 find_map(struct bpf_map *map, struct inventory_record *record)
{
	if (!find(&maps, map, INVENTORY_MAP, record))
		return 0;
	record->id = READ(map, id);
	return record->delegation;
}

/* A link is its program's; one of struct_ops has none, and is its map's until it is detached. */
static __always_inline __u64 find_link(struct bpf_link *link, struct inventory_record *record)
{
	struct bpf_prog *program = READ(link, prog);

	record->type = READ(link, type);
	if (program) {
		if (!find_program(program, record))
			return 0;
		record->program = record->id;
	} else if (record->type != BPF_LINK_TYPE_STRUCT_OPS ||
		   !find_map(READ((struct bpf_struct_ops_link *)link, map), record)) {
		return 0;
	}
	record->kind = INVENTORY_LINK;
	record->id = READ(link, id);
	return record->delegation;
}

/* A function of its own, so that the type is in the object for a test to compare. */
static __noinline int write(struct seq_file *seq, const struct inventory_record *record)
{
	bpf_seq_write(seq, record, sizeof(*record));
	return 0;
}

SEC("iter/bpf_prog")
int inventory_programs(struct bpf_iter__bpf_prog *ctx)
{
	struct inventory_record record = {};
	struct bpf_prog *program = ctx->prog;

	if (!program || !find_program(program, &record))
		return 0;
	record.type = READ(program, type);
	bpf_probe_read_kernel(record.name, sizeof(record.name), READ(program, aux)->name);
	return write(ctx->meta->seq, &record);
}

SEC("iter/bpf_map")
int inventory_maps(struct bpf_iter__bpf_map *ctx)
{
	struct inventory_record record = {};
	struct bpf_map *map = ctx->map;

	if (!map || !find_map(map, &record))
		return 0;
	record.type = READ(map, map_type);
	bpf_probe_read_kernel(record.name, sizeof(record.name), map->name);
	return write(ctx->meta->seq, &record);
}

SEC("iter/bpf_link")
int inventory_links(struct bpf_iter__bpf_link *ctx)
{
	struct inventory_record record = {};
	struct bpf_link *link = ctx->link;
	struct bpf_prog *program;

	if (!link || !find_link(link, &record))
		return 0;
	program = READ(link, prog);
	if (program)
		bpf_probe_read_kernel(record.name, sizeof(record.name), READ(program, aux)->name);
	else
		bpf_probe_read_kernel(record.name, sizeof(record.name),
				      READ((struct bpf_struct_ops_link *)link, map)->name);
	return write(ctx->meta->seq, &record);
}

static __always_inline int is_in_namespace(struct task_struct *task, __u32 number)
{
	struct user_namespace *at = READ(READ(task, real_cred), user_ns);

	/* The kernel nests them no deeper. */
	for (int level = 0; at && level < 33; level++) {
		if (READ(at, ns.inum) == number)
			return 1;
		at = READ(at, parent);
	}
	return 0;
}

static __always_inline int is_in_cgroup(struct task_struct *task, __u64 id)
{
	struct cgroup *at = READ(READ(task, cgroups), dfl_cgrp);

	/* A task further below is not killed. */
	for (int level = 0; at && level < 64; level++) {
		struct cgroup_subsys_state *up = READ(at, self.parent);

		if (READ(READ(at, kn), id) == id)
			return 1;
		at = up ? CONTAINER(up, struct cgroup, self) : 0;
	}
	return 0;
}

/* Whether the delegation was made for this task. */
static __always_inline int is_within(struct task_struct *task, __u64 delegation)
{
	__u32 slot = delegation % GUARD_SLOTS;
	struct guard_delegation *of = bpf_map_lookup_elem(&delegations, &slot);

	if (!of || of->id != delegation)
		return 0;
	return of->user_namespace ? is_in_namespace(task, of->user_namespace) : is_in_cgroup(task, of->cgroup);
}

/* Programs are held by events and sockets that they were attached to without a link, too. */
static __always_inline __u64 find_held(struct file *file, struct inventory_record *record)
{
	void *data = READ(file, private_data);
	const void *fops = READ(file, f_op);

	if (fops == &bpf_link_fops || (&bpf_link_fops_poll && fops == &bpf_link_fops_poll))
		return find_link(data, record);
	if (fops == &perf_fops)
		return find_program(READ((struct perf_event *)data, prog), record);
	if (fops == &socket_file_ops)
		return find_program(READ(READ(READ((struct socket *)data, sk), sk_filter), prog), record);
	if (fops == &bpf_prog_fops)
		return find_program(data, record);
	if (fops == &bpf_map_fops)
		return find_map(data, record);
	return fops == &bpf_token_fops ? find(&tokens, data, INVENTORY_TOKEN, record) : 0;
}

SEC("iter/task_file")
int inventory_holders(struct bpf_iter__task_file *ctx)
{
	struct inventory_record record = {};
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file || !find_held(file, &record))
		return 0;
	record.holder = READ(task, tgid);
	record.within = is_within(task, record.delegation);
	bpf_probe_read_kernel(record.name, sizeof(record.name), ((struct task_struct___name *)task)->comm);
	return write(ctx->meta->seq, &record);
}

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __core;

SEC("iter/task")
int inventory_members(struct bpf_iter__task *ctx)
{
	struct inventory_record record = { .kind = INVENTORY_MEMBER, .within = 1 };
	struct task_struct *task = ctx->task;
	struct user_namespace *at;

	if (!task || task != task->group_leader)
		return 0;
	at = READ(READ(task, real_cred), user_ns);
	record.holder = task->tgid;
	bpf_probe_read_kernel(record.name, sizeof(record.name), ((struct task_struct___name *)task)->comm);
	/* The kernel nests them no deeper. */
	for (int level = 0; at && level < 33; level++) {
		__u64 number = READ(at, ns.inum);

		record.id = number;
		if (bpf_map_lookup_elem(&namespaces, &number) && write(ctx->meta->seq, &record))
			return 1;
		at = READ(at, parent);
	}
	return 0;
}
