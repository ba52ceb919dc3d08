/*
 * What watched processes ask of bpf(2), and what comes of it: raw tracepoints on system calls, for src/record/recorder.ts. They
 * load where programs of the LSM do not.
 *
 * Watched are a process and all that it forks, or a cgroup and all below. Processes are known by their numbers in the recorder's
 * own PID namespace: they are those that it can name, and no other process has them.
 */
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

typedef int __s32;

enum { ATTR_BYTES = 168, TEXT_BYTES = 64 };

enum recorder_call_flags {
	RECORDER_ENTERED = 1, /* The kernel was asked; else something before it has answered, such as a seccomp filter. */
	RECORDER_COMPAT = 2, /* A system call of 32 bits. */
	RECORDER_PERF = 4, /* perf_event_open(2); `cmd` is its type. */
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
	char text[TEXT_BYTES]; /* the path of a pin, the name of a raw tracepoint */
	__u8 attr[ATTR_BYTES]; /* union bpf_attr, as far as it was given */
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

/* Calls that have no answer yet, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct recorder_call);
} pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} calls SEC(".maps");

/* Calls by command that no capability is about: they are many, and only counted. Then what was lost. */
enum { COMMANDS = 64, LOST_CALLS = COMMANDS, LOST_PROCESSES, COUNTERS };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

const volatile __u32 arm64;
const volatile __u32 pid_namespace; /* the recorder's own */
const volatile __u64 cgroup; /* 0: processes are watched */

static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_probe_read_user_str)(void *to, __u32 bytes, const void *from) = (void *)114;

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
} __core;

struct task_struct___more {
	struct thread_info___x86 thread_info;
	struct signal_struct *signal;
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

/* Since Linux 7.2 a flag beside the command: there are attributes for all commands. */
enum { BPF_COMMON_ATTRS = 1 << 16 };
enum { BPF_OBJ_PIN = 6, BPF_OBJ_GET = 7 };
enum { TS_COMPAT = 2, X32_SYSCALL_BIT = 0x40000000 };

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* A process of which `pid` is the first thread, or a thread: its number in the recorder's PID namespace, and in its own. */
static __always_inline __u32 number_of(struct pid *pid, __u32 *inner)
{
	__u32 level = READ(pid, level), number = 0;
	const char *numbers = (const char *)pid + __builtin_preserve_field_info(((struct pid___numbers *)0)->numbers, 0);

	/* The kernel nests them no deeper. */
	for (__u32 at = 0; at < 33 && at <= level; at++) {
		struct upid one = {};

		bpf_probe_read_kernel(&one, sizeof(one), numbers + at * sizeof(one));
		if (inner)
			*inner = one.nr;
		if (READ(one.ns, ns.inum) == pid_namespace)
			number = one.nr;
	}
	return number;
}

static __always_inline __u32 process_of(struct task_struct *task, __u32 *inner)
{
	return number_of(READ(READ(task, group_leader), thread_pid), inner);
}

static __always_inline int is_in_cgroup(struct task_struct *task)
{
	struct cgroup *at = READ(READ(task, cgroups), dfl_cgrp);

	/* A task further below is not watched; docs/record.md says so. */
	for (int level = 0; at && level < 64; level++) {
		struct cgroup_subsys_state *up = READ(at, self.parent);

		if (READ(READ(at, kn), id) == cgroup)
			return 1;
		at = up ? CONTAINER(up, struct cgroup, self) : 0;
	}
	return 0;
}

static __always_inline int is_watched(struct task_struct *task)
{
	__u32 process, *how;

	if (cgroup)
		return is_in_cgroup(task);
	process = process_of(task, 0);
	how = bpf_map_lookup_elem(&watched, &process);
	return how && *how == WATCHED;
}

struct request {
	__u64 first, second, third;
	__u32 flags;
};

/* Whether this is a call of bpf(2) or perf_event_open(2), with its arguments. */
static __always_inline int is_ours(void *registers, struct task_struct *task, __u64 number, struct request *request)
{
	request->flags = RECORDER_ENTERED;
	if (arm64) {
		struct pt_regs___arm64 *regs = registers;

		if (number != 280 && number != 241)
			return 0;
		/* The first register has the result later. */
		request->first = READ(regs, orig_x0);
		request->second = READ(regs, regs[1]);
		request->third = READ(regs, regs[2]);
		if (number == 241)
			request->flags |= RECORDER_PERF;
	} else {
		struct pt_regs___x86 *regs = registers;
		int is_bpf, is_perf;

		number &= ~(__u64)X32_SYSCALL_BIT;
		if (number != 321 && number != 298 && number != 357 && number != 336)
			return 0;
		if (READ((struct task_struct___more *)task, thread_info.status) & TS_COMPAT) {
			request->flags |= RECORDER_COMPAT;
			is_bpf = number == 357;
			is_perf = number == 336;
			request->first = (__u32)READ(regs, bx);
			request->second = (__u32)READ(regs, cx);
			request->third = (__u32)READ(regs, dx);
		} else {
			is_bpf = number == 321;
			is_perf = number == 298;
			request->first = READ(regs, di);
			request->second = READ(regs, si);
			request->third = READ(regs, dx);
		}
		if (!is_bpf && !is_perf)
			return 0;
		if (is_perf)
			request->flags |= RECORDER_PERF;
	}
	return 1;
}

static __always_inline int is_plain(const struct request *request)
{
	__u32 cmd = (__u32)request->first & ~BPF_COMMON_ATTRS;

	return !(request->flags & RECORDER_PERF) && cmd < COMMANDS && (PLAIN >> cmd & 1);
}

static __always_inline void describe(struct recorder_call *call, const struct request *request, struct task_struct *task)
{
	__u32 bytes = request->third > ATTR_BYTES ? ATTR_BYTES : request->third;
	__u32 cmd = (__u32)request->first & ~BPF_COMMON_ATTRS;

	call->at = bpf_ktime_get_ns();
	call->cgroup = bpf_get_current_cgroup_id();
	call->user_namespace = READ(READ(READ(task, real_cred), user_ns), ns.inum);
	call->tgid = process_of(task, &call->inner);
	call->tid = number_of(READ(task, thread_pid), 0);
	call->uid = bpf_get_current_uid_gid();
	call->flags = request->flags;
	bpf_get_current_comm(call->comm, sizeof(call->comm));
	if (request->flags & RECORDER_PERF) {
		/* struct perf_event_attr begins with its type. */
		bpf_probe_read_user(&call->cmd, sizeof(call->cmd), (const void *)request->first);
		return;
	}
	call->cmd = request->first;
	call->size = request->third > 0xffffffff ? 0xffffffff : request->third;
	bpf_probe_read_user(call->attr, bytes, (const void *)request->second);
	if (cmd == BPF_OBJ_PIN || cmd == BPF_OBJ_GET || cmd == BPF_RAW_TRACEPOINT_OPEN)
		bpf_probe_read_user_str(call->text, sizeof(call->text), (const void *)*(__u64 *)call->attr);
}

SEC("raw_tp/sys_enter")
int recorder_enter(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct request request;
	struct recorder_call call = {};
	__u64 thread;

	if (!is_ours((void *)ctx[0], task, ctx[1], &request) || is_plain(&request) || !is_watched(task))
		return 0;
	describe(&call, &request, task);
	thread = bpf_get_current_pid_tgid();
	if (bpf_map_update_elem(&pending, &thread, &call, BPF_ANY))
		count(LOST_CALLS);
	return 0;
}

SEC("raw_tp/sys_exit")
int recorder_exit(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 thread, number;
	struct request request;
	struct recorder_call *known;
	struct recorder_call call = {};

	number = arm64 ? READ((struct pt_regs___arm64 *)ctx[0], syscallno) : READ((struct pt_regs___x86 *)ctx[0], orig_ax);
	if (!is_ours((void *)ctx[0], task, number, &request))
		return 0;
	thread = bpf_get_current_pid_tgid();
	known = bpf_map_lookup_elem(&pending, &thread);
	if (known) {
		known->result = ctx[1];
		if (keeps_logs && (known->cmd & ~BPF_COMMON_ATTRS) == BPF_PROG_LOAD && known->result < 0)
			keep_log(known->attr, request.second, known->size, known->at);
		if (bpf_ringbuf_output(&calls, known, sizeof(*known), 0))
			count(LOST_CALLS);
		bpf_map_delete_elem(&pending, &thread);
		return 0;
	}
	if (!is_watched(task))
		return 0;
	if (is_plain(&request)) {
		count((__u32)request.first & (COMMANDS - 1));
		if ((__s32)ctx[1] != -1 /* EPERM */)
			return 0;
	} else {
		request.flags &= ~RECORDER_ENTERED;
	}
	describe(&call, &request, task);
	call.result = ctx[1];
	if (bpf_ringbuf_output(&calls, &call, sizeof(call), 0))
		count(LOST_CALLS);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int recorder_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 process, *how, all = WATCHED;

	/* A thread is of its process. */
	if (cgroup || READ(parent, tgid) == READ(child, tgid))
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
	struct task_struct *task = (void *)ctx[0];
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 process;

	bpf_map_delete_elem(&pending, &thread);
	if (cgroup || READ(READ((struct task_struct___more *)task, signal), live.counter) != 0)
		return 0;
	process = process_of(task, 0);
	bpf_map_delete_elem(&watched, &process);
	return 0;
}
