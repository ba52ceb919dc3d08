/* The child: what is done inside a target's namespaces. The top of main.c says why it is safe to. */
#ifndef BPFTOKEN_EXECUTOR_INSIDE_H
#define BPFTOKEN_EXECUTOR_INSIDE_H

#include "message.h"

/* From the executor: actions follow. */
struct batch {
	uint32_t actions, uid, gid, slots;
};

/* From the child. */
struct batch_answer {
	uint32_t slots;
	int32_t result[EXECUTOR_ACTIONS];
};

/* Bits of the slots that an action of the child fills, and of those that it works on. */
uint32_t filled_by(int op);
uint32_t needed_by(int op);

/* Serves the batches of one plan, and ends when the executor closes the socket. */
int child_main(void);

#endif
