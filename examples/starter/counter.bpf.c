/* Counts packets and bytes of a network device, and tells of the first of each protocol on each CPU. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct first_packet {
	__u32 bytes;
	__u8 protocol; /* IPPROTO_*: 6 is TCP, 17 is UDP */
};

/* Nobody uses it. It keeps the struct in the object's types, so that events are shown by name. */
const struct first_packet *unused_first_packet __attribute__((unused));

/* Global variables: shown by their names, read by client.mjs. */
__u64 packets;
__u64 bytes;

/* Packets by protocol; each CPU counts for itself, and readers add up. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} protocols SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} first_packets SEC(".maps");

SEC("xdp")
int count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	/* Not `end - data`: the verifier lets only holders of CAP_PERFMON subtract pointers. */
	__u32 length = bpf_xdp_get_buff_len(ctx);
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);

	__sync_fetch_and_add(&packets, 1);
	__sync_fetch_and_add(&bytes, length);
	/* The verifier wants to see that all that is read lies within the packet. */
	if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;

	__u32 key = ip->protocol;
	__u64 *seen = bpf_map_lookup_elem(&protocols, &key);

	if (seen && (*seen)++ == 0) {
		struct first_packet *event = bpf_ringbuf_reserve(&first_packets, sizeof(*event), 0);

		if (event) {
			__builtin_memset(event, 0, sizeof(*event));
			event->bytes = length;
			event->protocol = key;
			bpf_ringbuf_submit(event, 0);
		}
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
