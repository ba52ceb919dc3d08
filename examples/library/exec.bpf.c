/* Tells of each program that is started. */
#include "bpf.h"

struct started {
	__u32 pid;
	char comm[16];
};
const struct started *unused_started __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} events SEC(".maps");

SEC("tracepoint/sched/sched_process_exec")
int exec(void *ctx)
{
	struct started *started = bpf_ringbuf_reserve(&events, sizeof(*started), 0);

	if (!started)
		return 0;
	started->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(started->comm, sizeof(started->comm));
	bpf_ringbuf_submit(started, 0);
	return 0;
}
