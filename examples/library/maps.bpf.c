/* Lists the maps of the machine, wherever this kernel has the members. */
#include "bpf.h"

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));
struct bpf_map {
	__u32 id;
	__u32 max_entries;
} __attribute__((preserve_access_index));
struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
} __attribute__((preserve_access_index));

SEC("iter/bpf_map")
int list(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;
	__u32 record[2];

	if (!map)
		return 0;
	record[0] = map->id;
	record[1] = map->max_entries;
	bpf_seq_write(ctx->meta->seq, record, sizeof(record));
	return 0;
}
