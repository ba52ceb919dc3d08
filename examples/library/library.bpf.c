/* A library: what several programs use. */
#include "bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, __u64);
} sizes SEC(".maps");

/* Counts packets by their size, in steps of 64 bytes. */
int count_size(__u32 bytes)
{
	__u32 step = bytes / 64;
	__u64 one = 1, *count = bpf_map_lookup_elem(&sizes, &step);

	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&sizes, &step, &one, 0);
	return step;
}
