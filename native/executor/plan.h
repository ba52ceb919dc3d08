/*
 * A plan that is being done: what belongs to it, the words of bpftoken, the journal, and batches
 * for the child.
 */
#ifndef BPFTOKEN_EXECUTOR_PLAN_H
#define BPFTOKEN_EXECUTOR_PLAN_H

#include "child.h"
#include "message.h"
#include "mount.h"

enum { JOURNAL_IN = 4, JOURNAL_OUT = 5 };

struct plan {
	struct executor_plan head;
	const struct executor_action *action[EXECUTOR_ACTIONS];
	int32_t result[EXECUTOR_ACTIONS];
	unsigned tried;
	int slot[SLOT_COUNT];
	struct place place[SLOT_COUNT]; /* of DIRECTORY and REACHED as the child says, of MOUNT; id 0: unknown */
	uint64_t namespace_id;
	uint32_t owner; /* see owner_of */
	int64_t deadline;
	struct child child;
	uint32_t known; /* slots that the child has */
	bool taken;	/* CONTEXT is the target's, which keeps it when we close it */
	unsigned journaled, undos;
	int undo[EXECUTOR_UNDOS];
};

/* bpftoken is gone: nobody will keep anything. */
extern bool orphaned;

int64_t now_ms(void);

/* The next word of bpftoken: its kind; PLAN, out of order, counts as CANCEL. */
int hear(int flags);

/*
 * Until `fd` is readable. -ETIMEDOUT; or, unless that does not count any more, -ECANCELED by its
 * word.
 */
int wait_for(int fd, int64_t deadline, bool cancellable);

/*
 * Says that bpftoken has to do `op` with the descriptor, and end the child before, should we be
 * killed from now on.
 */
int note_in_journal(struct plan *plan, uint32_t op, int fd, int pidfd);
void forget_journal(struct plan *plan);

/*
 * Has the child do `count` actions; the results go to `result`. Gives how many were tried. What the
 * child says is bounded. A TAKE_CONTEXT is done outside of the target's namespaces, and is the only
 * action of its batch.
 */
unsigned run_batch(struct plan *plan, const struct executor_action *const *action, unsigned count, int32_t *result,
		   int64_t deadline, bool cancellable);

#endif
