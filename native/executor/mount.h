/* What the kernel says of mounts: by statmount(2), or where that is missing by mountinfo. */
#ifndef BPFTOKEN_EXECUTOR_MOUNT_H
#define BPFTOKEN_EXECUTOR_MOUNT_H

#include "plan.h"

/* Newer than the headers that we may be built with. */
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_USER_NAMESPACE _IO(0xFF, 9)
#define NS_GET_MNTNS_ID _IOR(0xb7, 0x5, uint64_t)

/* Whether statmount(2) and the ioctls of pidfds and namespaces are used: see is_modern. */
extern bool modern;

struct look {
	uint64_t id, parent;
	struct executor_mount mount;
	const char *type, *root, *point, *options;
};

/* The id by which `look_at` finds it: unique for all time where there is statmount(2). 0: none. */
uint64_t mount_of(int fd, bool *is_root);

/* 0, or -errno. The texts are good until the next look. */
int look_at(const struct plan *plan, uint64_t id, struct look *look);

/* The mount that `above` is mounted over as a whole; false: none. */
bool look_below(const struct plan *plan, const struct look *above, struct look *below);

bool delegates(const struct look *look);

/* Tries whether this kernel has what `modern` stands for: Linux 6.11. */
bool is_modern(void);

#endif
