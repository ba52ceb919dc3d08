/*
 * What the guard's judgements cost on a processor that runs BPF, but no LSM programs: its hooks as
 * plain functions, within programs of type `syscall` that hand them the kernel's own objects. For
 * bench/guard.ts and its test; installed nowhere.
 *
 * The same C in another place, so three things differ. A hook's argument is cast here
 * (bpf_rdonly_cast), which costs nothing by itself, but a read through such a pointer is checked
 * for faults, which costs an instruction or two. The trampoline that calls an LSM program is not
 * run. Tables have as many records as the caller makes.
 */
#define HOOK(name) static __always_inline __attribute__((unused))
#define FUNCTION(name) HOOK(name)

/*
 * Kernels without CONFIG_KALLSYMS_ALL do not tell these addresses, so the caller finds them out
 * (find_object) and writes them into variables. A program reads memory where an LSM program has a
 * constant.
 */
#define KERNEL_SYMBOL(name) __u64 address_of_##name
#define fscontext_fops (*(const void *)address_of_fscontext_fops)
#define bpf_token_fops (*(const void *)address_of_bpf_token_fops)
#define bpf_prog_fops (*(const void *)address_of_bpf_prog_fops)
#define bpf_map_fops (*(const void *)address_of_bpf_map_fops)
#define bpf_iter_fops (*(const void *)address_of_bpf_iter_fops)
#define bpf_link_fops (*(const void *)address_of_bpf_link_fops)
#define bpf_link_fops_poll (*(const void *)address_of_bpf_link_fops_poll)
#define init_user_ns (*(const void *)address_of_init_user_ns)
#define init_net (*(const void *)address_of_init_net)
#define link_idr (*(const void *)address_of_link_idr)

#include "guard.bpf.c"

static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
/* LSM programs do not sleep, and read as if between these. */
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

/* The object at an address, for the verifier; `type` is looked for in the kernel's types. */
#define CAST(address, type) ((__u64)bpf_rdonly_cast((const void *)(address), __builtin_btf_type_id(*(type *)0, 1)))

/* Asked and answered in the same memory. */
struct request {
	__u64 object; /* number of the one that it is about */
	__u64 token; /* address */
	__u64 number; /* command, or capability */
	__u64 allowed; /* answer: 1 or 0 */
	__u64 ns; /* answer: how long it took, with reading the clock */
};

#define MOST_OBJECTS 1024

/* Addresses of the kernel's objects. */
ARRAY(objects, __u64, MOST_OBJECTS);
/* What bpf(2) was given: the kernel's copy of union bpf_attr. */
__u32 attr[32];

/*
 * Fields that hooks read: what the kernel has just made or found is in the processor's caches when
 * it asks.
 */
static __noinline __u64 touch_map(__u64 address)
{
	struct bpf_map *map = (void *)address;

	return READ(map, map_type) + READ(map, max_entries) + READ(map, map_flags) + READ(map, id) + READ(map, name[0]);
}

static __noinline __u64 touch_program(__u64 address)
{
	struct bpf_prog *prog = (void *)address;
	struct bpf_prog_aux *aux = READ(prog, aux);

	return READ(prog, type) + READ(prog, len) + READ(aux, attach_btf_id) + READ(aux, name[0]) + (READ(aux, token) != 0);
}

static __noinline __u64 touch_file(__u64 address)
{
	struct file *file = (void *)address;

	return (READ(file, f_op) != 0) + (READ(file, private_data) != 0);
}

__u64 touched;

/*
 * A program that asks `hook` once, with the arguments that the statements put into `ctx`; `object`
 * is an address. What these and the clock cost is in the time, too: measure_nothing() takes the
 * same way and asks nothing. No loop: it would take a nested function, of which the kernel allows
 * eight, and the hooks may need them all.
 */
#define MEASURE(name, hook, touch, arguments)                                                                         \
	SEC("syscall") int name(struct request *request)                                                              \
	{                                                                                                             \
		__u32 at = request->object % MOST_OBJECTS;                                                            \
		__u64 ctx[4] = {}, *object = bpf_map_lookup_elem(&objects, &at), began;                               \
                                                                                                                      \
		if (!object)                                                                                          \
			return 1;                                                                                     \
		bpf_rcu_read_lock();                                                                                  \
		touched += touch(*object);                                                                            \
		began = bpf_ktime_get_ns();                                                                           \
		arguments;                                                                                            \
		/* The hook reads its arguments from memory, as there. */                                             \
		asm volatile("" : : "r"(ctx) : "memory");                                                             \
		request->allowed = hook(ctx) == 0;                                                                    \
		request->ns = bpf_ktime_get_ns() - began;                                                             \
		bpf_rcu_read_unlock();                                                                                \
		return 0;                                                                                             \
	}

static __always_inline int nothing(__u64 *ctx)
{
	return ctx[3];
}

#define OF_COMMAND ctx[0] = request->number, ctx[1] = (__u64)&attr
#define OF_TOKEN ctx[0] = request->token, ctx[1] = request->number
#define OF_MAP ctx[0] = CAST(*object, struct bpf_map), ctx[2] = request->token
#define OF_PROGRAM ctx[0] = CAST(*object, struct bpf_prog), ctx[2] = request->token
#define OF_FILE ctx[0] = CAST(*object, struct file)

MEASURE(measure_nothing, nothing, touch_map, OF_MAP)
MEASURE(measure_bpf, guard_bpf, touch_map, OF_COMMAND)
MEASURE(measure_token_cmd, guard_token_cmd, touch_map, OF_TOKEN)
MEASURE(measure_token_capable, guard_token_capable, touch_map, OF_TOKEN)
MEASURE(measure_token_free, guard_token_free, touch_map, OF_TOKEN)
MEASURE(measure_map_create, guard_map_create, touch_map, OF_MAP)
MEASURE(measure_map, guard_map, touch_map, OF_MAP)
MEASURE(measure_map_free, guard_map_free, touch_map, OF_MAP)
MEASURE(measure_prog_load, guard_prog_load, touch_program, OF_PROGRAM)
MEASURE(measure_prog, guard_prog, touch_program, OF_PROGRAM)
MEASURE(measure_prog_free, guard_prog_free, touch_program, OF_PROGRAM)
MEASURE(measure_file_open, guard_file_open, touch_file, OF_FILE)
MEASURE(measure_file_receive, guard_file_receive, touch_file, OF_FILE)
MEASURE(measure_file_alloc, guard_file_alloc, touch_file, OF_FILE)

/* What an open file is, and where the current task is: addresses. */
struct found {
	__u64 fd;
	__u64 file;
	__u64 object; /* the token, map or program */
	__u64 operations;
	__u64 user_namespace;
	__u64 network;
};

SEC("syscall")
int find_object(struct found *found)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file = file_of(found->fd);

	found->file = (__u64)file;
	found->object = (__u64)READ(file, private_data);
	found->operations = (__u64)READ(file, f_op);
	found->user_namespace = (__u64)READ(READ(task, real_cred), user_ns);
	found->network = (__u64)READ(READ(task, nsproxy), net_ns);
	return 0;
}
