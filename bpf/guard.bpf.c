/*
 * The guard: policy for delegated eBPF, enforced where a task enables delegation and where a task makes use of it.
 *
 * Enabling: a bpffs context may carry `delegate_*` only after an allowed delegator has marked it (`delegate`), and only what
 * the named abilities (`abilities=NAME`) give; judged when the superblock is created. Use: tokens are made, and maps and
 * programs under them, only for a delegation that is live, and within its limits. Cgroups of the host can be held to the same.
 *
 * Fail closed: what cannot be read, recorded or found is refused. One exception: mode `permissive` lets through and records.
 * A call without a token and a mount without delegate_* are none of our business and cost next to nothing.
 *
 * Every hook may run twice for one call, while one version of the guard replaces another: to record is idempotent. Free hooks may
 * fire twice by themselves; only who deletes the record counts down. No program sleeps, so records do not move under us.
 * A hook's previous verdict needs no look: the kernel stops at the first refusal.
 */
#include "kernel.h"
#include "guard/abi.h"
#include "guard/lists.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum { EPERM = 1, ENOENT = 2, EACCES = 13, ENOSPC = 28, EDQUOT = 122 };
enum { BPF_FS_MAGIC = 0xcafe4a11, NSFS_MAGIC = 0x6e736673, CGROUP2_MAGIC = 0x63677270, BPF_F_LINK = 1 << 13, BPF_F_ALLOW_MULTI = 2, BPF_F_REPLACE = 4 };

KERNEL_SYMBOL(fscontext_fops);
KERNEL_SYMBOL(bpf_token_fops);
KERNEL_SYMBOL(bpf_prog_fops);
KERNEL_SYMBOL(bpf_map_fops);
KERNEL_SYMBOL(bpf_iter_fops);
KERNEL_SYMBOL(bpf_link_fops);
KERNEL_SYMBOL(bpf_link_fops_poll) __attribute__((weak)); /* since Linux 6.9, for struct_ops */
KERNEL_SYMBOL(init_user_ns);
KERNEL_SYMBOL(init_net);
KERNEL_SYMBOL(link_idr);

#include "guard/state.h"
#include "guard/verdict.h"
#include "guard/protect.h"
#include "guard/enable.h"
#include "guard/use.h"
#include "guard/attach.h"
#include "guard/links.h"
#include "guard/sharing.h"

/*
 * The object has only the types that something in it names. This names the enums of guard/abi.h, for
 * scripts/gen-guard-layout.ts. Nothing calls it, so it is not loaded.
 */
struct abi_enums {
	enum guard_number number;
	enum guard_mode mode;
	enum guard_flag flag;
	enum guard_events events;
	enum guard_verdict verdict;
	enum guard_point point;
	enum guard_reason reason;
};

__attribute__((used)) static int name_enums(const struct abi_enums *enums)
{
	return 0;
}
