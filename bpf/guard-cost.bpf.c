/*
 * What the guard's judgements cost on a processor that runs BPF, but no LSM programs: its hooks as plain functions, called by
 * programs of type `syscall` with the kernel's own objects. For bench/guard.ts and its test; installed nowhere.
 *
 * The same C in another place, so three things differ. A hook's argument is cast here (bpf_rdonly_cast), which costs nothing
 * by itself, but a read through such a pointer is checked for faults, which costs an instruction or two. The trampoline that
 * calls an LSM program is not run. Tables have as many records as the caller makes.
 */
#define HOOK(name) static __noinline __attribute__((unused))

/*
 * Kernels without CONFIG_KALLSYMS_ALL do not tell these addresses, so the caller finds them out (find_object) and writes them into
 * variables. A program reads memory where an LSM program has a constant.
 */
#define KERNEL_SYMBOL(name) __u64 address_of_##name
#define fscontext_fops (*(const void *)address_of_fscontext_fops)
#define bpf_token_fops (*(const void *)address_of_bpf_token_fops)
#define bpf_prog_fops (*(const void *)address_of_bpf_prog_fops)
#define bpf_map_fops (*(const void *)address_of_bpf_map_fops)
#define init_user_ns (*(const void *)address_of_init_user_ns)
#define init_net (*(const void *)address_of_init_net)

#include "guard.bpf.c"

static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*repeat)(__u32 rounds, void *callback, void *context, __u64 flags) = (void *)181; /* bpf_loop */
/* LSM programs do not sleep, and read as if between these. */
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

/* The object at an address, for the verifier; `type` is looked for in the kernel's types. */
#define CAST(address, type) ((__u64)bpf_rdonly_cast((const void *)(address), __builtin_btf_type_id(*(type *)0, 1)))

/* Asked and answered in the same memory. */
struct request {
	__u64 calls; /* each for the next one of `objects` */
	__u64 first_object;
	__u64 token; /* address */
	__u64 number; /* command, or capability */
	/* How many calls were allowed, and nanoseconds of all. */
	__u64 allowed;
	__u64 ns;
};

#define MOST_OBJECTS 4096

/* Addresses of the kernel's objects. */
ARRAY(objects, __u64, MOST_OBJECTS);
/* What bpf(2) was given: the kernel's copy of union bpf_attr. */
__u32 attr[32];

/*
 * A program that calls `hook` with the arguments that the statements before it put into `ctx`; `object` is the next address.
 * Each hook is timed with its arguments made ready: measure_nothing() takes the same way to a function that does nothing.
 */
#define MEASURE(name, hook, arguments)                                                                                \
	static long name##_once(__u32 i, struct request *request)                                                     \
	{                                                                                                             \
		__u32 at = (request->first_object + i) % MOST_OBJECTS;                                                     \
		__u64 ctx[4] = {}, *object = bpf_map_lookup_elem(&objects, &at);                                      \
                                                                                                                      \
		if (!object)                                                                                          \
			return 1;                                                                                     \
		arguments;                                                                                            \
		request->allowed += hook(ctx) == 0;                                                                   \
		return 0;                                                                                             \
	}                                                                                                             \
                                                                                                                      \
	SEC("syscall") int name(struct request *asked)                                                                \
	{                                                                                                             \
		struct request request = *asked;                                                                      \
		__u64 began;                                                                                          \
                                                                                                                      \
		request.allowed = 0;                                                                                  \
		bpf_rcu_read_lock();                                                                                  \
		began = bpf_ktime_get_ns();                                                                           \
		repeat(request.calls, name##_once, &request, 0);                                                    \
		asked->ns = bpf_ktime_get_ns() - began;                                                               \
		bpf_rcu_read_unlock();                                                                                \
		asked->allowed = request.allowed;                                                                     \
		return 0;                                                                                             \
	}

static __noinline int nothing(__u64 *ctx)
{
	asm volatile("" : : "r"(ctx) : "memory");
	return 0;
}

#define OF_COMMAND ctx[0] = request->number, ctx[1] = (__u64)&attr
#define OF_TOKEN ctx[0] = request->token, ctx[1] = request->number
#define OF_MAP ctx[0] = CAST(*object, struct bpf_map), ctx[2] = request->token
#define OF_PROGRAM ctx[0] = CAST(*object, struct bpf_prog), ctx[2] = request->token
#define OF_FILE ctx[0] = CAST(*object, struct file)

MEASURE(measure_nothing, nothing, OF_MAP)
MEASURE(measure_bpf, guard_bpf, OF_COMMAND)
MEASURE(measure_token_cmd, guard_token_cmd, OF_TOKEN)
MEASURE(measure_token_capable, guard_token_capable, OF_TOKEN)
MEASURE(measure_token_free, guard_token_free, OF_TOKEN)
MEASURE(measure_map_create, guard_map_create, OF_MAP)
MEASURE(measure_map, guard_map, OF_MAP)
MEASURE(measure_map_free, guard_map_free, OF_MAP)
MEASURE(measure_prog_load, guard_prog_load, OF_PROGRAM)
MEASURE(measure_prog, guard_prog, OF_PROGRAM)
MEASURE(measure_prog_free, guard_prog_free, OF_PROGRAM)
MEASURE(measure_file_open, guard_file_open, OF_FILE)
MEASURE(measure_file_receive, guard_file_receive, OF_FILE)

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
	found->user_namespace = (__u64)READ(READ(task, cred), user_ns);
	found->network = (__u64)READ(READ(task, nsproxy), net_ns);
	return 0;
}
