/* The end of what the verifier says of a program that it refuses, for whoever wants it. */
#ifndef RECORDER_LOG_H
#define RECORDER_LOG_H

enum { LOG_BYTES = 1024 };

struct recorder_log {
	char text[LOG_BYTES];
};

/* By the time of the call. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct recorder_log);
} logs SEC(".maps");

const volatile __u32 keeps_logs;

/* Fields of union bpf_attr for BPF_PROG_LOAD: log_size at 28, log_buf at 32, log_true_size at 140, which the kernel has written now. */
static __noinline int keep_log(const __u8 *attr, __u64 user_attr, __u32 size, __u64 at)
{
	static const struct recorder_log none = {};
	struct recorder_log *log;
	__u32 room = *(__u32 *)(attr + 28), written = 0, bytes = LOG_BYTES;
	__u64 buffer = *(__u64 *)(attr + 32);

	if (!buffer || !room || size < 144)
		return 0;
	bpf_probe_read_user(&written, sizeof(written), (const void *)(user_attr + 140));
	if (written > room)
		written = room;
	if (written < bytes)
		bytes = written;
	if (!written || bpf_map_update_elem(&logs, &at, &none, BPF_ANY))
		return 0;
	log = bpf_map_lookup_elem(&logs, &at);
	buffer += written - bytes;
	/* The verifier of Linux 6.1 forgets a bound that was put away meanwhile. */
	__asm__ volatile("" : "+r"(bytes));
	bytes &= 0x7ff;
	if (log && bytes <= LOG_BYTES)
		bpf_probe_read_user(log->text, bytes, (const void *)buffer);
	return 0;
}

#endif
