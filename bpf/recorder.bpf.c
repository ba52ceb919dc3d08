/*
 * What watched processes ask of bpf(2), and what comes of it: raw tracepoints on system calls, for src/record/recorder.ts. They
 * load where programs of the LSM do not.
 *
 * Watched are a process and all that it forks, or a cgroup or a PID namespace and all below. Processes are known by their numbers in the recorder's
 * own PID namespace: they are those that it can name, and no other process has them.
 */
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

typedef int __s32;

enum { HEAD_BYTES = 72, ATTR_BYTES = 168, TEXT_BYTES = 64 };

enum recorder_call_flags {
	RECORDER_ENTERED = 1, /* The kernel was asked; else something before it has answered, such as a seccomp filter. */
	RECORDER_COMPAT = 2, /* A system call of 32 bits. */
	RECORDER_PERF = 4, /* perf_event_open(2); `cmd` is its type. */
	RECORDER_HELD = 8, /* Its thread was asked to stop. */
	RECORDER_SIGNALLED = 16, /* Instead of an answer its thread got SIGSYS. */
};

/* One call, once it has its answer. */
struct recorder_call {
	__u64 at; /* CLOCK_MONOTONIC, nanoseconds */
	__u64 cgroup;
	__u32 user_namespace;
	__u32 tgid; /* in the recorder's PID namespace; 0: it has no number there */
	__u32 tid;
	__u32 inner; /* tgid in its own PID namespace */
	__u32 uid; /* in the initial user namespace */
	__u32 flags; /* enum recorder_call_flags */
	__u32 cmd; /* as it was given */
	__u32 size;
	__s32 result;
	__u32 pad;
	char comm[16];
	__u8 attr[ATTR_BYTES]; /* union bpf_attr, as far as it was given */
	char text[TEXT_BYTES]; /* the path of a pin, the name of a raw tracepoint; left out where there is none */
};

_Static_assert(sizeof(struct recorder_call) == 304, "recorder_call");

enum { WATCHED = 1, ITS_CHILDREN_ONLY = 2 };

/* Processes, by number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} watched SEC(".maps");

/* Of a thread that has called bpf(2) or perf_event_open(2). The kernel frees it with the thread. */
struct caller {
	__u64 numbers; /* in the initial PID namespace: others are found again when these change, as by execve(2) */
	__u32 tgid, tid, inner; /* as in recorder_call */
	__u8 pending; /* `call` has no answer yet. */
	__u8 is_watched; /* It has been seen to be, and remains so. */
	__u8 unread; /* What the call is given was in no memory yet when it began. */
	__u16 bytes; /* of `call`, from its beginning */
	struct recorder_call call;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct caller);
} callers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} calls SEC(".maps");

/* Calls by command that no capability is about: they are many, and only counted. Then what was lost, and when the
 * reader was woken last. */
enum { COMMANDS = 64, LOST_CALLS = COMMANDS, LOST_PROCESSES, LAST_WAKE, COUNTERS };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

const volatile __u32 arm64;
const volatile __u32 pid_namespace; /* the recorder's own */
const volatile __u64 cgroup; /* 0: processes are watched, or what is in a PID namespace */
const volatile __u32 watched_namespace; /* and those below it; 0: none */

static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_probe_read_user_str)(void *to, __u32 bytes, const void *from) = (void *)114;
static struct pt_regs *(*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

/*
 * A field of a structure that is known by its address alone. READ needs Linux 6.2. Where the verifier
 * follows pointers, as from the running task, a plain read does.
 */
#define FETCH(ptr, field)                                                                                             \
	({                                                                                                            \
		typeof((ptr)->field) value_;                                                                          \
		bpf_probe_read_kernel(&value_, sizeof(value_),                                                        \
				      (const char *)(ptr) +                                                           \
					      __builtin_preserve_field_info(((typeof(ptr))0)->field, 0));             \
		value_;                                                                                               \
	})

/* Since Linux 7.2 a flag beside the command: there are attributes for all commands. */
enum { BPF_COMMON_ATTRS = 1 << 16 };

#include "recorder/hold.h"
#include "recorder/log.h"

struct pt_regs___x86 {
	unsigned long bx, cx, dx, si, di, orig_ax;
} __core;

struct pt_regs___arm64 {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
} __core;

struct thread_info___x86 {
	__u32 status;
} __core;

struct atomic___live {
	int counter;
} __core;

struct signal_struct {
	struct atomic___live live;
	unsigned int flags;
} __core;

struct seccomp {
	int mode;
} __core;

struct task_struct___more {
	struct thread_info___x86 thread_info;
	struct signal_struct *signal;
	int exit_code;
} __core;

/* A kernel can be built without. */
struct task_struct___filtered {
	struct seccomp seccomp;
} __core;

struct upid {
	__s32 nr;
	struct pid_namespace *ns;
};

struct pid_namespace {
	struct ns_common ns;
} __core;

struct pid___numbers {
	unsigned int level;
	struct upid numbers[1];
} __core;

/* Commands that no capability is about. */
static const __u64 PLAIN = 1ull << 1 | 1ull << 2 | 1ull << 3 | 1ull << 4 | 1ull << 10 | 1ull << 15 | 1ull << 21 | 1ull << 22 |
			   1ull << 24 | 1ull << 25 | 1ull << 26 | 1ull << 27 | 1ull << 29 | 1ull << 33 | 1ull << 34 |
			   1ull << 35 | 1ull << 37;

enum { BPF_OBJ_PIN = 6, BPF_OBJ_GET = 7 };
enum { TS_COMPAT = 2, X32_SYSCALL_BIT = 0x40000000, SIGSYS = 31, SIGNAL_GROUP_EXIT = 4, FIELD_EXISTS = 2 };

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* Of a process by its first thread, or of a thread: its number in that PID namespace, 0 if it is not in there; and in its own. */
static __always_inline __u32 number_in(struct task_struct *task, __u32 namespace, __u32 *inner)
{
	struct pid *pid = FETCH(task, thread_pid);
	__u32 level = FETCH(pid, level), number = 0;
	const char *numbers = (const char *)pid + __builtin_preserve_field_info(((struct pid___numbers *)0)->numbers, 0);

	/* The kernel nests them no deeper. */
	for (__u32 at = 0; at < 33 && at <= level; at++) {
		struct upid one = {};

		bpf_probe_read_kernel(&one, sizeof(one), numbers + at * sizeof(one));
		if (inner)
			*inner = one.nr;
		if (FETCH(one.ns, ns.inum) == namespace)
			number = one.nr;
	}
	return number;
}

/* In the recorder's. */
static __always_inline __u32 number_of(struct task_struct *task, __u32 *inner)
{
	return number_in(task, pid_namespace, inner);
}

static __always_inline __u32 process_of(struct task_struct *task, __u32 *inner)
{
	return number_of(FETCH(task, group_leader), inner);
}

/* What is kept of the running thread; 0: there is no room. */
static __always_inline struct caller *caller_of(struct task_struct *task)
{
	struct caller *caller = bpf_task_storage_get(&callers, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	__u64 numbers = bpf_get_current_pid_tgid();

	if (!caller || caller->numbers == numbers)
		return caller;
	caller->tgid = process_of(task, &caller->inner);
	caller->tid = number_of(task, 0);
	caller->is_watched = watched_namespace && number_in(task, watched_namespace, 0);
	caller->numbers = numbers;
	return caller;
}

static __always_inline int is_in_cgroup(void)
{
	/* A task further below is not watched; docs/record.md says so. */
	for (int level = 0; level < 64; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			return 0;
		if (id == cgroup)
			return 1;
	}
	return 0;
}

static __always_inline int is_watched(struct caller *caller)
{
	__u32 process, *how;

	if (cgroup)
		return is_in_cgroup();
	if (caller->is_watched || watched_namespace)
		return caller->is_watched;
	process = caller->tgid;
	how = bpf_map_lookup_elem(&watched, &process);
	if (how && *how == WATCHED)
		caller->is_watched = 1;
	return caller->is_watched;
}

struct request {
	__u64 first, second, third;
	__u32 flags;
};

/* Whether a system call may be ours: every one of the machine comes by here. */
static __always_inline int may_be_ours(__u32 number)
{
	if (arm64)
		return number == 280 || number == 241;
	number &= ~X32_SYSCALL_BIT;
	return number == 321 || number == 298 || number == 357 || number == 336;
}

/* Whether this is a call of bpf(2) or perf_event_open(2), with its arguments. */
static __always_inline int is_ours(struct task_struct *task, __u32 number, struct request *request)
{
	struct pt_regs *given = bpf_task_pt_regs(task);

	request->flags = RECORDER_ENTERED;
	if (arm64) {
		struct pt_regs___arm64 *regs = (void *)given;

		/* The first register has the result later. */
		request->first = regs->orig_x0;
		request->second = regs->regs[1];
		request->third = regs->regs[2];
		if (number == 241)
			request->flags |= RECORDER_PERF;
	} else {
		struct pt_regs___x86 *regs = (void *)given;
		int is_bpf, is_perf;

		number &= ~X32_SYSCALL_BIT;
		if (((struct task_struct___more *)task)->thread_info.status & TS_COMPAT) {
			request->flags |= RECORDER_COMPAT;
			is_bpf = number == 357;
			is_perf = number == 336;
			request->first = (__u32)regs->bx;
			request->second = (__u32)regs->cx;
			request->third = (__u32)regs->dx;
		} else {
			is_bpf = number == 321;
			is_perf = number == 298;
			request->first = regs->di;
			request->second = regs->si;
			request->third = regs->dx;
		}
		if (!is_bpf && !is_perf)
			return 0;
		if (is_perf)
			request->flags |= RECORDER_PERF;
	}
	return 1;
}

/* The kernel, too, takes 32 bits of what the caller has put there. */
static __always_inline __u32 system_call_of(struct task_struct *task)
{
	struct pt_regs *regs = bpf_task_pt_regs(task);

	return arm64 ? (__u32)((struct pt_regs___arm64 *)regs)->syscallno : (__u32)((struct pt_regs___x86 *)regs)->orig_ax;
}

/* Whether a seccomp filter of it may answer in the kernel's place. */
static __always_inline int is_filtered(struct task_struct *task)
{
	struct task_struct___filtered *filtered = (void *)task;

	if (!__builtin_preserve_field_info(filtered->seccomp.mode, FIELD_EXISTS))
		return 0;
	return filtered->seccomp.mode != 0;
}

/* Whether a filter sent SIGSYS: the registers are put back then, so that the "result" is what was there before. */
static __always_inline int is_signalled(const struct request *request, __u32 number, __u64 result)
{
	return arm64 ? result == request->first : (__u32)result == number;
}

static __always_inline int is_plain(const struct request *request)
{
	__u32 cmd = (__u32)request->first & ~BPF_COMMON_ATTRS;

	return !(request->flags & RECORDER_PERF) && cmd < COMMANDS && (PLAIN >> cmd & 1);
}

/*
 * What the call is given. It may be in no memory yet, which the kernel's function changes and we cannot:
 * false, and what was not read is zero.
 */
static __always_inline int read_given(struct caller *caller, const struct request *request)
{
	struct recorder_call *call = &caller->call;
	__u32 bytes = request->third > ATTR_BYTES ? ATTR_BYTES : request->third;
	__u32 cmd = (__u32)request->first & ~BPF_COMMON_ATTRS;

	/* struct perf_event_attr begins with its type. */
	if (request->flags & RECORDER_PERF)
		return !bpf_probe_read_user(&call->cmd, sizeof(call->cmd), (const void *)request->first);
	/* The verifier of Linux 6.1 forgets a bound that was put away meanwhile. */
	__asm__ volatile("" : "+r"(bytes));
	bytes &= 0xff;
	if (bytes > ATTR_BYTES)
		return 0;
	if (bpf_probe_read_user(call->attr, bytes, (const void *)request->second))
		return 0;
	if (cmd != BPF_OBJ_PIN && cmd != BPF_OBJ_GET && cmd != BPF_RAW_TRACEPOINT_OPEN)
		return 1;
	call->text[0] = 0;
	/* A raw tracepoint may have no name. */
	return !*(__u64 *)call->attr ||
	       bpf_probe_read_user_str(call->text, sizeof(call->text), (const void *)*(__u64 *)call->attr) >= 0;
}

static __always_inline void describe(struct caller *caller, const struct request *request, struct task_struct *task)
{
	struct recorder_call *call = &caller->call;
	__u32 bytes = request->third > ATTR_BYTES ? ATTR_BYTES : request->third;
	__u32 cmd = (__u32)request->first & ~BPF_COMMON_ATTRS;

	call->at = bpf_ktime_get_ns();
	call->cgroup = bpf_get_current_cgroup_id();
	call->user_namespace = task->real_cred->user_ns->ns.inum;
	call->tgid = caller->tgid;
	call->tid = caller->tid;
	call->inner = caller->inner;
	call->uid = bpf_get_current_uid_gid();
	call->flags = request->flags;
	bpf_get_current_comm(call->comm, sizeof(call->comm));
	caller->bytes = HEAD_BYTES;
	call->cmd = request->first;
	call->size = request->third > 0xffffffff ? 0xffffffff : request->third;
	if (request->flags & RECORDER_PERF) {
		call->cmd = call->size = 0;
	} else if (cmd != BPF_OBJ_PIN && cmd != BPF_OBJ_GET && cmd != BPF_RAW_TRACEPOINT_OPEN) {
		caller->bytes += bytes;
	} else {
		/* The text is behind all of the attributes. */
		caller->bytes = sizeof(*call);
		__builtin_memset(call->attr, 0, sizeof(call->attr));
	}
	caller->unread = !read_given(caller, request);
}

/* Waking the reader for each call would cost more than all the rest: what was refused wakes it, and else time. */
enum { WAKE_AFTER_NS = 2000000, BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };

static __always_inline void tell(struct caller *caller, __s32 result)
{
	struct recorder_call *call = &caller->call;
	__u32 bytes = caller->bytes;
	__u32 which = LAST_WAKE;
	__u64 *last = bpf_map_lookup_elem(&counters, &which);
	__u64 flags = BPF_RB_NO_WAKEUP;

	call->result = result;
	if (holds && hold(call, result))
		call->flags |= RECORDER_HELD;
	if (last && (result == -1 /* EPERM */ || call->flags & RECORDER_HELD || !(call->flags & RECORDER_ENTERED) || call->at - *last > WAKE_AFTER_NS)) {
		flags = BPF_RB_FORCE_WAKEUP;
		*last = call->at;
	}
	if (bytes > sizeof(*call) || bpf_ringbuf_output(&calls, call, bytes, flags))
		count(LOST_CALLS);
}

SEC("raw_tp/sys_enter")
int recorder_enter(__u64 *ctx)
{
	struct task_struct *task;
	struct caller *caller;
	struct request request;

	if (!may_be_ours(ctx[1]))
		return 0;
	task = bpf_get_current_task_btf();
	if (!is_ours(task, ctx[1], &request) || is_plain(&request))
		return 0;
	caller = caller_of(task);
	if (!caller) {
		/* Whether it is watched is not known, then. */
		count(LOST_CALLS);
		return 0;
	}
	if (!is_watched(caller))
		return 0;
	/* A call has its answer before the next one begins. */
	if (caller->pending)
		count(LOST_CALLS);
	describe(caller, &request, task);
	caller->pending = 1;
	return 0;
}

SEC("raw_tp/sys_exit")
int recorder_exit(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 number = system_call_of(task);
	struct caller *caller;
	struct request request;

	if (!may_be_ours(number) || !is_ours(task, number, &request))
		return 0;
	caller = caller_of(task);
	if (!caller) {
		count(LOST_CALLS);
		return 0;
	}
	if (caller->pending) {
		const struct recorder_call *call = &caller->call;

		caller->pending = 0;
		/* Where the kernel could not read it either, the call has come to nothing. */
		if (caller->unread && !read_given(caller, &request) && (__s32)ctx[1] != -14 /* EFAULT */)
			count(LOST_CALLS);
		if (keeps_logs && (call->cmd & ~BPF_COMMON_ATTRS) == BPF_PROG_LOAD && (__s32)ctx[1] < 0)
			keep_log(call->attr, request.second, call->size, call->at);
		tell(caller, ctx[1]);
		return 0;
	}
	if (!is_watched(caller))
		return 0;
	if (is_filtered(task) && is_signalled(&request, number, ctx[1])) {
		request.flags = (request.flags & ~RECORDER_ENTERED) | RECORDER_SIGNALLED;
	} else if (is_plain(&request)) {
		count((__u32)request.first & (COMMANDS - 1));
		if ((__s32)ctx[1] != -1 /* EPERM */)
			return 0;
	} else if ((__s32)ctx[1] < 0 || is_filtered(task)) {
		/* Without a filter nothing but the kernel's function gives descriptors: that call began before it was watched. */
		request.flags &= ~RECORDER_ENTERED;
	}
	describe(caller, &request, task);
	if (caller->unread && (__s32)ctx[1] != -14 /* EFAULT */)
		count(LOST_CALLS);
	tell(caller, ctx[1]);
	return 0;
}

/* A filter can end one thread of several at once, and then there is no end of its call. */
static __always_inline void tell_killed(struct task_struct *task)
{
	__u32 number = system_call_of(task);
	struct caller *caller;
	struct request request;

	if (!may_be_ours(number) || !is_ours(task, number, &request))
		return;
	caller = caller_of(task);
	if (!caller) {
		count(LOST_CALLS);
		return;
	}
	if (caller->pending || !is_watched(caller))
		return;
	request.flags = (request.flags & ~RECORDER_ENTERED) | RECORDER_SIGNALLED;
	describe(caller, &request, task);
	if (caller->unread)
		count(LOST_CALLS);
	tell(caller, number);
}

SEC("raw_tp/sched_process_fork")
int recorder_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 process, *how, all = WATCHED;

	/* A thread is of its process. */
	if (cgroup || watched_namespace || FETCH(parent, tgid) == FETCH(child, tgid))
		return 0;
	process = process_of(parent, 0);
	how = bpf_map_lookup_elem(&watched, &process);
	if (!how)
		return 0;
	process = process_of(child, 0);
	if (bpf_map_update_elem(&watched, &process, &all, BPF_ANY))
		count(LOST_PROCESSES);
	return 0;
}

/* Numbers are used again. */
SEC("raw_tp/sched_process_exit")
int recorder_end(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct signal_struct *signal = ((struct task_struct___more *)task)->signal;
	__u32 process;

	if ((((struct task_struct___more *)task)->exit_code & 0x7f) == SIGSYS && !(signal->flags & SIGNAL_GROUP_EXIT))
		tell_killed(task);
	if (cgroup || watched_namespace || signal->live.counter != 0)
		return 0;
	process = process_of(task, 0);
	bpf_map_delete_elem(&watched, &process);
	return 0;
}
