/* A map of counters for each tenant, by the interface that its packets come from. */
#include "bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 64);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u64);
	});
} tenants SEC(".maps");

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 interface = ctx->ingress_ifindex, zero = 0;
	void *counters = bpf_map_lookup_elem(&tenants, &interface);
	__u64 *packets = counters ? bpf_map_lookup_elem(counters, &zero) : 0;

	if (!packets)
		return XDP_DROP;
	__sync_fetch_and_add(packets, 1);
	return XDP_PASS;
}
