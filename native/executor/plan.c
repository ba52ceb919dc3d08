/* A plan that is being done: the words of bpftoken, the journal, and batches for the child. */
#include "plan.h"
#include "inside.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

bool orphaned;

int64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

int hear(int flags)
{
	static char word[64];
	int fds[SLOT_COUNT], count;
	ssize_t got = receive_message(CLIENT, word, sizeof(word), fds, &count, flags);

	for (int i = 0; i < count; i++)
		close(fds[i]);
	if (got <= 0) {
		orphaned = true;
		return EXECUTOR_CANCEL;
	}
	int kind = *(uint32_t *)word;
	return kind == EXECUTOR_KEEP || kind == EXECUTOR_UNDO ? kind : EXECUTOR_CANCEL;
}

int wait_for(int fd, int64_t deadline, bool cancellable)
{
	struct pollfd wait[2] = { { fd, POLLIN, 0 }, { cancellable ? CLIENT : -1, POLLIN, 0 } };

	for (;;) {
		int64_t left = deadline - now_ms();
		int ready = poll(wait, 2, left < 0 ? 0 : left);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready < 0)
			return -errno;
		if (wait[1].revents) {
			hear(0);
			return -ECANCELED;
		}
		if (wait[0].revents)
			return 0;
		return -ETIMEDOUT;
	}
}

int note_in_journal(struct plan *plan, uint32_t op, int fd, int pidfd)
{
	int slot[SLOT_COUNT] = { fd, pidfd };
	struct executor_entry entry = { plan->head.serial, op };
	int result = send_message(JOURNAL_IN, &entry, sizeof(entry), slot, pidfd < 0 ? 1 : 3);

	if (result == 0)
		plan->journaled++;
	return result;
}

void forget_journal(struct plan *plan)
{
	for (; plan->journaled; plan->journaled--) {
		struct executor_entry entry;
		int fds[SLOT_COUNT], count;

		receive_message(JOURNAL_OUT, &entry, sizeof(entry), fds, &count, MSG_DONTWAIT);
		for (int i = 0; i < count; i++)
			close(fds[i]);
	}
}

unsigned run_batch(struct plan *plan, const struct executor_action *const *action, unsigned count, int32_t *result,
			  int64_t deadline, bool cancellable)
{
	static char out[EXECUTOR_MESSAGE_BYTES] __attribute__((aligned(16)));
	struct batch *batch = (void *)out;
	struct batch_answer answer;
	char *end_of_out = (char *)(batch + 1);
	uint32_t may_fill = 0, slots = 0;
	int fds[SLOT_COUNT], received, failed;

	if (plan->child.socket < 0) {
		if ((failed = take_spare(&plan->child)) < 0)
			goto fail;
		plan->known = 0;
		slots = 1u << SLOT_USER | 1u << SLOT_MOUNTS | 1u << SLOT_ROOT;
	}
	for (unsigned i = 0; i < count; i++) {
		if (end_of_out + action[i]->bytes > out + sizeof(out)) {
			failed = -E2BIG;
			goto fail;
		}
		memcpy(end_of_out, action[i], action[i]->bytes);
		end_of_out += action[i]->bytes;
		may_fill |= filled_by(action[i]->op);
		slots |= needed_by(action[i]->op);
	}
	for (int i = 0; i < SLOT_COUNT; i++)
		if (slots >> i & 1 && plan->slot[i] < 0)
			slots &= ~(1u << i);
	slots &= ~plan->known;
	*batch = (struct batch){ count, plan->owner, plan->head.gid, slots, modern, action[0]->op == OP_TAKE_CONTEXT };
	if ((failed = send_message(plan->child.socket, out, end_of_out - out, plan->slot, slots)) < 0)
		goto lost;
	if ((failed = wait_for(plan->child.socket, deadline, cancellable)) < 0)
		goto lost;
	free_stack(&plan->child);
	ssize_t got = receive_message(plan->child.socket, &answer, sizeof(answer), fds, &received, MSG_DONTWAIT);
	size_t head = offsetof(struct batch_answer, result);
	if (got <= (ssize_t)head || got > (ssize_t)(head + count * sizeof(int32_t)) || answer.slots & ~may_fill) {
		for (int i = 0; i < received; i++)
			close(fds[i]);
		failed = -ECHILD;
		goto lost;
	}
	if (!fill_slots(plan->slot, answer.slots, fds, received)) {
		failed = -ECHILD;
		goto lost;
	}
	plan->known |= slots;
	for (int i = 0; i < SLOT_COUNT; i++)
		if (answer.slots >> i & 1)
			plan->place[i] = answer.place[i];
	unsigned tried = (got - head) / sizeof(int32_t);
	for (unsigned i = 0; i < tried; i++)
		result[i] = answer.result[i] > 0 ? -ECHILD : answer.result[i];
	/* All went well only when all were tried and gave what they should. */
	if (result[tried - 1] == 0 && (tried < count || answer.slots != may_fill))
		result[tried - 1] = -ECHILD;
	return tried;
lost:
	if (failed == -EPIPE || failed == -ECONNRESET)
		failed = -ECHILD;
	end_child(&plan->child);
fail:
	result[0] = failed;
	return 1;
}
