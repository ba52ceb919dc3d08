/* What the executor does itself, in our own namespaces. */
#ifndef BPFTOKEN_EXECUTOR_ACTION_H
#define BPFTOKEN_EXECUTOR_ACTION_H

#include "plan.h"

/* What LOOK saw, for the answer: executor_mount after executor_mount, with their texts. */
struct seen_mounts {
	char data[EXECUTOR_MESSAGE_BYTES / 2] __attribute__((aligned(8)));
	size_t bytes;
	uint32_t count;
};
extern struct seen_mounts seen;

/* 0, or -errno. */
int own_action(struct plan *plan, const struct executor_action *action);

bool is_same_file(int one, int other);

#endif
