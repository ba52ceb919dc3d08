/* Counts packets, drops those for one port, and tells of each that it drops. */
#include "bpf.h"

enum mode { MODE_COUNT, MODE_DROP };

struct dropped {
	__u32 source;
	__u16 port;
	__u16 bytes;
};
const struct dropped *unused_dropped __attribute__((unused));

const volatile __u16 port = 80;
const volatile enum mode mode = MODE_COUNT;
__u64 packets;
__u64 matched;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} drops SEC(".maps");

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u32 bytes = bpf_xdp_get_buff_len(ctx);
	struct dropped *drop;

	__sync_fetch_and_add(&packets, 1);
	/* Ethernet, IPv4 without options, and the ports of TCP or UDP. */
	if (data + 38 > end || data[12] != 8 || data[13] != 0)
		return XDP_PASS;
	if (__builtin_bswap16(*(__u16 *)(data + 36)) != port)
		return XDP_PASS;
	__sync_fetch_and_add(&matched, 1);
	if (mode != MODE_DROP)
		return XDP_PASS;
	drop = bpf_ringbuf_reserve(&drops, sizeof(*drop), 0);
	if (drop) {
		drop->source = *(__u32 *)(data + 26);
		drop->port = port;
		drop->bytes = bytes;
		bpf_ringbuf_submit(drop, 0);
	}
	return XDP_DROP;
}
