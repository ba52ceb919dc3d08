/*
 * Holding a thread whose call was refused, until it has been looked at: for `bpftoken explain -- CMD`.
 * It is traced by bpftoken-hold, which stops it at a signal and tells nobody; see native/hold/main.c.
 * A program here cannot have a thread wait.
 */
#ifndef RECORDER_HOLD_H
#define RECORDER_HOLD_H

/* By default it does nothing: if whoever traces has ended, so that nobody takes the signal away, it is lost. */
enum { SIGURG = 23 };

const volatile __u32 holds;

static long (*bpf_send_signal_thread)(__u32 signal) = (void *)117;

/* A process is held once for each kind of call and answer, and that not for ever. */
struct kind {
	__u32 tgid, cmd, type, attach;
	__s32 result;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct kind);
	__type(value, __u32);
} kinds SEC(".maps");

struct task_struct___traced {
	unsigned int ptrace;
} __core;

enum { MALFORMED = -22 /* EINVAL */, TOO_LONG = -7 /* E2BIG */, FAULT = -14 /* EFAULT */ };

/* Whether it is asked to stop here. */
static __noinline int hold(const struct recorder_call *call, __s32 result)
{
	/* Of a map and of a program the type, of a program the attach type, of an attachment the same. */
	__u32 cmd = call->cmd & ~BPF_COMMON_ATTRS, once = 1;
	struct kind kind = {
		.tgid = call->tgid,
		.cmd = cmd,
		.type = *(const __u32 *)call->attr,
		.attach = cmd == BPF_PROG_LOAD ? *(const __u32 *)(call->attr + 68) : 0,
		.result = result,
	};
	struct task_struct___traced *task = (void *)bpf_get_current_task_btf();

	if (!task->ptrace || result >= 0 || result == FAULT)
		return 0;
	/* What was no good request has no need to be looked at, but for a program that the verifier refused. */
	if ((result == MALFORMED || result == TOO_LONG) && cmd != BPF_PROG_LOAD)
		return 0;
	if (bpf_map_update_elem(&kinds, &kind, &once, BPF_NOEXIST))
		return 0;
	return !bpf_send_signal_thread(SIGURG);
}

#endif
