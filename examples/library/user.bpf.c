/* A program that uses library.bpf.c. */
#include "bpf.h"

extern int count_size(__u32 bytes);

SEC("xdp")
int sized(struct xdp_md *ctx)
{
	count_size(bpf_xdp_get_buff_len(ctx));
	return XDP_PASS;
}
