/*
 * bpftoken-executor: does what delegating takes, for bpftoken, which started it.
 *
 *   bpftoken-executor [proc]     descriptors 3: the socket to bpftoken; 4 and 5: the journal
 *   bpftoken-executor layout     prints the layout of the messages
 *
 * It holds no policy. bpftoken sends a plan, a list of actions (layout.h), and gets the result of
 * each. What is done inside a target's namespaces is done by a child. A child is a process of its
 * own: it shares neither memory nor descriptors with anybody, serves one plan, and is used up by
 * it. It was executed before the plan came, since that takes longer than all the rest, and it ends
 * after the answer has gone.
 *
 * What a target can do to a child decides how safe this is. Inside, the target's root may signal
 * it, and it may attach to it if that is dumpable. setns(2) makes it what fs.suid_dumpable says,
 * unless the child has the user id of the owner of the user namespace (kernel/cred.c,
 * commit_creds). So the child
 *  - has that id, and is undumpable, before it enters; one that is not so any more inside does nothing;
 *  - knows nothing and holds only what is the target's: its namespaces, its root directory, the new mount;
 *  - is never waited for without end. Past the deadline it is killed, and should it not even die (it sleeps in
 *    a file system that does not answer) it is left to itself.
 *
 * A call on a target's file can hang in the target's file system, and then not even SIGKILL ends
 * it. So only a child makes such calls: it opens and measures directories, and it tells a context
 * of bpffs from any other descriptor.
 *
 * What was done is kept only when bpftoken says so. Else, and when bpftoken dies, it is undone in
 * reverse, in the namespaces that the plan began with, wherever the target is by then. The journal
 * is for the case that this process is killed: what would have to be undone lies in a socket of
 * which bpftoken has the other end.
 */
#include "action.h"
#include "inside.h"
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_GET_PARENT _IO(0xb7, 0x2)
#define NS_GET_OWNER_UID _IO(0xb7, 0x4)

static int own_namespace; /* the user namespace that we are in */

/* Before an action that has to be undone is tried, or after: what undoes it. */
static void will_undo(struct plan *plan, int op)
{
	if (plan->undos < EXECUTOR_UNDOS)
		plan->undo[plan->undos++] = op;
}

/* Everything up to the first failure: its place, or -1. */
static int run_actions(struct plan *plan)
{
	unsigned count = plan->head.actions;

	while (plan->tried < count) {
		unsigned first = plan->tried, last = first;
		int op = plan->action[first]->op;
		bool cancellable = true;

		if (op < OP_CHILD_COUNT) {
			for (; last < count && plan->action[last]->op < OP_CHILD_COUNT; last++)
				if (plan->action[last]->op == OP_ATTACH) {
					/* There must be a child before the journal can name it. */
					if (plan->child.socket < 0)
						return plan->result[plan->tried++] = -ECHILD, (int)first;
					int noted = note_in_journal(plan, OP_DETACH, plan->slot[SLOT_MOUNT],
								    plan->child.pidfd);
					if (noted < 0)
						return plan->result[plan->tried++] = noted, (int)first;
					will_undo(plan, OP_DETACH);
					/*
					 * From here on it is better to be done than to be undone.
					 */
					cancellable = false;
				} else if (plan->action[last]->op == OP_DETACH_COVERED) {
					cancellable = false;
				}
			plan->tried += run_batch(plan, plan->action + first, last - first, plan->result + first,
						 plan->deadline, cancellable);
		} else {
			plan->result[first] = own_action(plan, plan->action[first]);
			plan->tried++;
			if (plan->result[first] == 0 && op == OP_PROVE_CONTEXT && plan->taken)
				will_undo(plan, OP_SPOIL_CONTEXT);
			if (plan->result[first] == 0 && op == OP_CREATE && plan->undos &&
			    plan->undo[plan->undos - 1] == OP_SPOIL_CONTEXT)
				plan->undo[plan->undos - 1] = OP_DISCARD_CONTEXT;
		}
		if (plan->result[plan->tried - 1] < 0)
			return plan->tried - 1;
	}
	return -1;
}

/* Whether what we made is in the namespace, as far as anybody can tell. */
static bool is_mounted(const struct plan *plan)
{
	struct look look;

	return look_at(plan, plan->place[SLOT_MOUNT].mount, &look) != -ENOENT;
}

/*
 * In the namespaces that the plan began with. By the child that is inside already; should that be
 * stopped or dead, by another one.
 */
static int undo_one(struct plan *plan, int op)
{
	struct executor_action action = { op, sizeof(action), 0, 0 };
	const struct executor_action *list[] = { &action };
	int32_t result = 0;

	if (op >= OP_CHILD_COUNT)
		return own_action(plan, &action);
	for (int others = plan->child.socket < 0 ? 1 : 2; others > 0; others--) {
		run_batch(plan, list, 1, &result, now_ms() + plan->head.deadline_ms, false);
		if (result == 0 || result == -EINVAL)
			break;
		end_child(&plan->child);
	}
	/*
	 * Both can be said while it stands: the kernel has one errno for "not mounted" and "may not
	 * be unmounted".
	 */
	if (op == OP_DETACH && (result == 0 || result == -EINVAL) && is_mounted(plan))
		result = -EBUSY;
	return result;
}

static unsigned undo_all(struct plan *plan, struct executor_undone *done)
{
	unsigned count = 0;

	while (plan->undos > 0) {
		int op = plan->undo[--plan->undos];
		done[count++] = (struct executor_undone){ op, undo_one(plan, op) };
	}
	return count;
}

static void answer(struct plan *plan, int failed, const struct executor_undone *undone, unsigned count)
{
	static char out[EXECUTOR_MESSAGE_BYTES] __attribute__((aligned(8)));
	struct executor_answer *head = (void *)out;
	char *at = (char *)(head + 1);

	*head = (struct executor_answer){
		.kind = EXECUTOR_RESULT,
		.failed = failed,
		.steps = plan->tried,
		.undone = count,
		.mounts = seen.count,
		.held = plan->undos,
	};
	for (int i = 0; i < SLOT_COUNT; i++)
		if (failed < 0 && plan->head.give >> i & 1 && plan->slot[i] >= 0)
			head->slots |= 1u << i;
	memcpy(at, plan->result, plan->tried * sizeof(int32_t));
	at += plan->tried * sizeof(int32_t);
	memcpy(at, undone, count * sizeof(*undone));
	at += count * sizeof(*undone);
	memcpy(at, seen.data, seen.bytes);
	at += seen.bytes;
	send_message(CLIENT, out, at - out, plan->slot, head->slots);
}

/* Actions, each within the message. */
static bool read_actions(struct plan *plan, const char *at, const char *end)
{
	if (plan->head.actions > EXECUTOR_ACTIONS)
		return false;
	for (unsigned i = 0; i < plan->head.actions; i++) {
		const struct executor_action *action = (const void *)at;

		if (end - at < (ssize_t)sizeof(*action) || action->bytes < sizeof(*action) || action->bytes % 4 ||
		    action->bytes > end - at || action->op >= OP_COUNT)
			return false;
		/* Two texts at most, both ended; so that a missing one reads as empty. */
		if (action->bytes > sizeof(*action) && (at[action->bytes - 1] || at[action->bytes - 2]))
			return false;
		if (action->bytes == sizeof(*action) &&
		    (action->op == OP_OPEN_DIRECTORY || action->op == OP_OPEN_CONTEXT || action->op == OP_OPEN_REACHED ||
		     action->op == OP_DETACH_COVERED || action->op == OP_MAKE_TOKEN || action->op == OP_ENTER_ROOT ||
		     action->op == OP_MAKE_DIRECTORY || action->op == OP_SET_FLAG ||
		     action->op == OP_SET_OPTION))
			return false;
		plan->action[i] = action;
		at += action->bytes;
	}
	return at == end;
}

/*
 * The user id, here, of whoever made the user namespace; of one that lies in others, of the
 * outermost of those below our own. 0 where the kernel does not tell, who is the most that it can
 * be.
 */
static uint32_t owner_of(int namespace)
{
	int at = dup(namespace), above;
	uint32_t owner = 0;

	while (at >= 0 && (above = ioctl(at, NS_GET_PARENT)) >= 0 && !is_same_file(above, own_namespace)) {
		close(at);
		at = above;
	}
	if (at < 0)
		return 0;
	if (above >= 0)
		close(above);
	if (ioctl(at, NS_GET_OWNER_UID, &owner) < 0)
		owner = 0;
	close(at);
	return owner;
}

#define LOCK_POLL_NS 500000

/*
 * Two that attach in one mount namespace at once would each find the other's mount where it looks
 * for its own, and both give way. So they go one after the other. The lock is on a file of the
 * namespace that we alone have opened; it ends when that is closed, or with us. Whoever else may
 * open the namespace, the target too, can hold the lock, and costs the target its delegation. The
 * descriptor, or -errno.
 */
static int lock_mounts(const struct plan *plan)
{
	int fd = modern ? ioctl(plan->slot[SLOT_PROCESS], PIDFD_GET_MNT_NAMESPACE, 0) : -1;
	char path[64];

	if (!modern) {
		snprintf(path, sizeof(path), "/proc/%u/ns/mnt", plan->head.pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0)
		if (errno != EWOULDBLOCK || now_ms() >= plan->deadline) {
			int failed = errno == EWOULDBLOCK ? ETIMEDOUT : errno;
			close(fd);
			return -failed;
		} else {
			nanosleep(&(struct timespec){ 0, LOCK_POLL_NS }, NULL);
		}
	return fd;
}

static bool attaches(const struct plan *plan)
{
	for (unsigned i = 0; i < plan->head.actions; i++)
		if (plan->action[i]->op == OP_ATTACH)
			return true;
	return false;
}

static void serve(const char *data, size_t bytes, const int *fds, int count)
{
	static struct plan plan;
	struct executor_undone undone[EXECUTOR_UNDOS];
	unsigned undos = 0;

	plan.tried = plan.journaled = plan.undos = 0;
	plan.taken = false;
	plan.child = (struct child){ -1, -1, -1, NULL };
	memset(plan.place, 0, sizeof(plan.place));
	for (int i = 0; i < SLOT_COUNT; i++)
		plan.slot[i] = -1;
	seen.bytes = seen.count = 0;
	memcpy(&plan.head, data, sizeof(plan.head));
	plan.deadline = now_ms() + plan.head.deadline_ms;
	plan.namespace_id = 0;
	bool sound = fill_slots(plan.slot, plan.head.slots, fds, count) &&
		     read_actions(&plan, data + sizeof(plan.head), data + bytes);
	if (modern && plan.slot[SLOT_MOUNTS] >= 0)
		ioctl(plan.slot[SLOT_MOUNTS], NS_GET_MNTNS_ID, &plan.namespace_id);
	plan.owner = plan.slot[SLOT_USER] >= 0 ? owner_of(plan.slot[SLOT_USER]) : 0;
	int failed = 0, lock = -1;
	if (!sound)
		plan.result[plan.tried++] = -EBADMSG;
	else if (attaches(&plan) && (lock = lock_mounts(&plan)) < 0)
		plan.result[plan.tried++] = lock;
	else
		failed = run_actions(&plan);
	if (failed >= 0)
		undos = undo_all(&plan, undone);
	if (lock >= 0)
		close(lock);
	answer(&plan, failed, undone, undos);
	while (plan.undos > 0) {
		int word = hear(0);

		if (word == EXECUTOR_KEEP)
			break;
		if (word == EXECUTOR_UNDO || orphaned) {
			undos = undo_all(&plan, undone);
			seen.bytes = seen.count = plan.head.give = 0;
			answer(&plan, -1, undone, undos);
		}
	}
	forget_journal(&plan);
	let_go(&plan.child);
	close_slots(plan.slot);
	send_message(CLIENT, &(uint32_t){ EXECUTOR_READY }, sizeof(uint32_t), NULL, 0);
}

#define PRINT_NAME(name) "\"" #name "\","
#define AT(of, field) offsetof(struct executor_##of, field)
#define SIZE(of) sizeof(struct executor_##of)

static int print_layout(void)
{
	printf("{\"version\":%d,\"messageBytes\":%d,\"actions\":%d,\"kinds\":[" EXECUTOR_KINDS(PRINT_NAME) "null],"
	       "\"slots\":[" EXECUTOR_SLOTS(PRINT_NAME) "null],\"ops\":["
	       EXECUTOR_CHILD_OPS(PRINT_NAME) EXECUTOR_OWN_OPS(PRINT_NAME) "null],\"structs\":{",
	       EXECUTOR_VERSION, EXECUTOR_MESSAGE_BYTES, EXECUTOR_ACTIONS);
	printf("\"executor_hello\":[%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu],", SIZE(hello), AT(hello, kind),
	       AT(hello, version), AT(hello, features), AT(hello, hello_bytes), AT(hello, plan_bytes),
	       AT(hello, action_bytes), AT(hello, answer_bytes), AT(hello, undone_bytes), AT(hello, mount_bytes));
	printf("\"executor_plan\":[%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu],", SIZE(plan), AT(plan, kind),
	       AT(plan, actions), AT(plan, pid), AT(plan, deadline_ms), AT(plan, gid), AT(plan, slots),
	       AT(plan, give), AT(plan, serial));
	printf("\"executor_entry\":[%zu,%zu,%zu],", SIZE(entry), AT(entry, serial), AT(entry, op));
	printf("\"executor_action\":[%zu,%zu,%zu,%zu,%zu],", SIZE(action), AT(action, op), AT(action, bytes),
	       AT(action, number), AT(action, more));
	printf("\"executor_answer\":[%zu,%zu,%zu,%zu,%zu,%zu,%zu,%zu],", SIZE(answer), AT(answer, kind),
	       AT(answer, failed), AT(answer, steps), AT(answer, undone), AT(answer, mounts), AT(answer, slots),
	       AT(answer, held));
	printf("\"executor_undone\":[%zu,%zu,%zu],", SIZE(undone), AT(undone, op), AT(undone, result));
	printf("\"executor_mount\":[%zu,%zu,%zu,%zu,%zu,%zu]}}\n", SIZE(mount), AT(mount, bytes), AT(mount, id),
	       AT(mount, device_major), AT(mount, device_minor), AT(mount, at_root));
	return 0;
}

int main(int argc, char **argv)
{
	static char in[EXECUTOR_MESSAGE_BYTES] __attribute__((aligned(16)));
	int fds[SLOT_COUNT], count;
	ssize_t got;

	if (argc == 2 && strcmp(argv[1], "child") == 0)
		return child_main();
	if (argc == 2 && strcmp(argv[1], "layout") == 0)
		return print_layout();
	for (int fd = CLIENT; fd <= JOURNAL_OUT; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
			fputs("bpftoken-executor is started by bpftoken, not by hand\n", stderr);
			return 2;
		}
	/* Nothing that bpftoken was given by its caller gets here, or into a child. */
	if (syscall(SYS_close_range, JOURNAL_OUT + 1, ~0U, 0) < 0)
		return 2;
	/*
	 * It ends with its socket: a signal for bpftoken's whole group must not cut off what has to
	 * be undone.
	 */
	for (int i = 0; i < 5; i++)
		signal((int[]){ SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 }[i], SIG_IGN);
	/* Children are gone when they are dead: nobody waits for them. */
	signal(SIGCHLD, SIG_IGN);
	bool executable = know_executable(argv[0]);
	own_namespace = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	modern = is_modern() && argc == 1;
	struct executor_hello hello = {
		.kind = EXECUTOR_HELLO,
		.version = EXECUTOR_VERSION,
		.features = modern ? EXECUTOR_MODERN : 0,
		.hello_bytes = sizeof(struct executor_hello),
		.plan_bytes = sizeof(struct executor_plan),
		.action_bytes = sizeof(struct executor_action),
		.answer_bytes = sizeof(struct executor_answer),
		.undone_bytes = sizeof(struct executor_undone),
		.mount_bytes = sizeof(struct executor_mount),
	};
	if (!executable || send_message(CLIENT, &hello, sizeof(hello), NULL, 0) < 0)
		return 1;
	for (;;) {
		refill();
		if ((got = receive_message(CLIENT, in, sizeof(in), fds, &count, 0)) <= 0)
			return 0;
		/* Anything else is left of a plan that has ended. */
		if (got >= (ssize_t)sizeof(struct executor_plan) && *(uint32_t *)in == EXECUTOR_PLAN)
			serve(in, got, fds, count);
		else
			for (int i = 0; i < count; i++)
				close(fds[i]);
		if (orphaned)
			return 0;
	}
}
