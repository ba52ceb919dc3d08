/* What the kernel says of mounts: by statmount(2), or where that is missing by mountinfo. */
#ifndef BPFTOKEN_EXECUTOR_MOUNT_H
#define BPFTOKEN_EXECUTOR_MOUNT_H

#include "message.h"

struct plan;

/* Newer than the headers that we may be built with. */
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_USER_NAMESPACE _IO(0xFF, 9)
#define NS_GET_MNTNS_ID _IOR(0xb7, 0x5, uint64_t)

/* Whether statmount(2) and the ioctls of pidfds and namespaces are used: see is_modern. */
extern bool modern;

/*
 * Where a directory lies. Only a child finds that out: it is asked of the directory's file system,
 * and a target's need not answer.
 */
struct place {
	uint64_t mount; /* the id by which `look_at` finds it: unique for all time where there is statmount(2) */
	uint64_t inode;
	uint32_t device_major, device_minor;
	uint32_t is_root; /* of its mount */
	uint32_t is_target_root;
};

struct look {
	uint64_t id, parent;
	struct executor_mount mount;
	const char *type, *root, *point, *options;
};

/* 0, or -errno. */
int place_of(int fd, struct place *place);

/* 0, or -errno. The texts are good until the next look. */
int look_at(const struct plan *plan, uint64_t id, struct look *look);

/*
 * The mount that `above` is mounted over as a whole: 1; 0: there is none; else -errno, and nobody
 * knows.
 */
int look_below(const struct plan *plan, const struct look *above, struct look *below);

bool delegates(const struct look *look);

/* Tries whether this kernel has what `modern` stands for: Linux 6.11. */
bool is_modern(void);

#endif
