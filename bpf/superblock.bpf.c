/*
 * Which user namespace a file system belongs to, of which the kernel tells nobody: asked by a
 * process for one of its own descriptors, by BPF_PROG_RUN. Installed nowhere.
 */
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Asked and answered in the same memory. */
struct superblock_request {
	__u32 fd;
	__u32 user_namespace; /* answer: inode number; 0: there is no such descriptor */
};

SEC("syscall")
int superblock_owner(struct superblock_request *request)
{
	struct fdtable *table = bpf_get_current_task_btf()->files->fdt;
	struct file *file = 0;

	/* The table is of pointers: a structure of one pointer is read for each. */
	if (request->fd < table->max_fds)
		file = (struct file *)READ((struct hlist_head *)(table->fd + request->fd), first);
	request->user_namespace = READ(READ(READ(READ(file, f_inode), i_sb), s_user_ns), ns.inum);
	return 0;
}
