/*
 * The child: what is done inside a target's namespaces. The top of main.c says why it is safe to.
 */
#ifndef BPFTOKEN_EXECUTOR_INSIDE_H
#define BPFTOKEN_EXECUTOR_INSIDE_H

#include "message.h"

#include "mount.h"

/* From the executor: actions follow. */
struct batch {
	uint32_t actions, uid, gid, slots;
	uint32_t modern;  /* as in the executor */
	uint32_t outside; /* 1: it does not enter the namespaces before */
};

/* From the child. */
struct batch_answer {
	uint32_t slots;
	struct place place[SLOT_COUNT]; /* of directories in `slots` */
	int32_t result[EXECUTOR_ACTIONS];
};

/* Bits of the slots that an action of the child fills, and of those that it works on. */
uint32_t filled_by(int op);
uint32_t needed_by(int op);

/* Serves the batches of one plan, and ends when the executor closes the socket. */
int child_main(void);

#endif
