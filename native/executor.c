/*
 * bpftoken-executor: does what delegating takes, for bpftoken, which started it.
 *
 *   bpftoken-executor [proc]     descriptors 3: the socket to bpftoken; 4 and 5: the journal
 *   bpftoken-executor layout     prints the layout of the messages
 *
 * It holds no policy. bpftoken sends a plan, a list of actions (executor.h), and gets the result of each.
 * What is done inside a target's namespaces is done by a child. A child is a process of its own: it shares
 * neither memory nor descriptors with anybody, serves one plan, and is used up by it. It was executed before
 * the plan came, since that takes longer than all the rest, and it ends after the answer has gone.
 *
 * What a target can do to a child decides how safe this is. Inside, the target's root may signal it, and it may attach
 * to it if that is dumpable. setns(2) makes it what fs.suid_dumpable says, unless the child has the user id of the owner
 * of the user namespace (kernel/cred.c, commit_creds). So the child
 *  - has that id, and is undumpable, before it enters; one that is not so any more inside does nothing;
 *  - knows nothing and holds only what is the target's: its namespaces, its root directory, the new mount;
 *  - is never waited for without end. Past the deadline it is killed, and should it not even die (it sleeps in
 *    a file system that does not answer) it is left to itself.
 *
 * What was done is kept only when bpftoken says so. Else, and when bpftoken dies, it is undone in reverse, in
 * the namespaces that the plan began with, wherever the target is by then. The journal is for the case that this
 * process is killed: what would have to be undone lies in a socket of which bpftoken has the other end.
 */
#include "executor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CLIENT = 3, JOURNAL_IN = 4, JOURNAL_OUT = 5 };

/* Newer than the headers that we may be built with. */
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_USER_NAMESPACE _IO(0xFF, 9)
#define NS_GET_PARENT _IO(0xb7, 0x2)
#define NS_GET_OWNER_UID _IO(0xb7, 0x4)
#define NS_GET_MNTNS_ID _IOR(0xb7, 0x5, uint64_t)
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif
#define STATMOUNT_SB_BASIC 0x1
#define STATMOUNT_MNT_BASIC 0x2
#define STATMOUNT_MNT_ROOT 0x8
#define STATMOUNT_MNT_POINT 0x10
#define STATMOUNT_FS_TYPE 0x20
#define STATMOUNT_MNT_OPTS 0x80
#define BPF_FS_MAGIC 0xcafe4a11
#define BPF_MAP_CREATE 0
#define BPF_TOKEN_CREATE 36
#define BPF_F_TOKEN_FD (1U << 16)

struct statmount_request {
	uint32_t size, spare;
	uint64_t mnt_id, param, mnt_ns_id;
};

struct statmount_answer {
	uint32_t size, mnt_opts;
	uint64_t mask;
	uint32_t sb_dev_major, sb_dev_minor;
	uint64_t sb_magic;
	uint32_t sb_flags, fs_type;
	uint64_t mnt_id, mnt_parent_id;
	uint32_t mnt_id_old, mnt_parent_id_old;
	uint64_t mnt_attr, mnt_propagation, mnt_peer_group, mnt_master, propagate_from;
	uint32_t mnt_root, mnt_point;
	uint64_t mnt_ns_id;
	uint64_t rest[49];
	char text[];
};
_Static_assert(offsetof(struct statmount_answer, text) == 512, "statmount");

static bool modern;
static int own_namespace; /* the user namespace that we are in */

/* ---- messages with descriptors ---- */

static int count_bits(uint32_t bits)
{
	return __builtin_popcount(bits);
}

/* The descriptors of `slots`, in order. 0, or -errno. */
static int send_message(int socket, const void *data, size_t bytes, const int slot[SLOT_COUNT], uint32_t slots)
{
	char control[CMSG_SPACE(SLOT_COUNT * sizeof(int))] = { 0 };
	struct iovec part = { (void *)data, bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int count = count_bits(slots);

	if (count) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		int *next = (int *)CMSG_DATA(header);
		for (int i = 0; i < SLOT_COUNT; i++)
			if (slots >> i & 1)
				*next++ = slot[i];
	}
	ssize_t sent;
	while ((sent = sendmsg(socket, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	return sent < 0 ? -errno : 0;
}

/* The next message: its length, 0 at the end, or -errno. Descriptors that do not fit are closed by the kernel. */
static ssize_t receive_message(int socket, void *data, size_t bytes, int fds[SLOT_COUNT], int *count, int flags)
{
	char control[CMSG_SPACE(SLOT_COUNT * sizeof(int))];
	struct iovec part = { data, bytes };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t got;

	*count = 0;
	while ((got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (got < 0)
		return -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		*count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
	}
	return got;
}

static void close_slot(int slot[SLOT_COUNT], int which)
{
	if (slot[which] >= 0)
		close(slot[which]);
	slot[which] = -1;
}

static void close_slots(int slot[SLOT_COUNT])
{
	for (int i = 0; i < SLOT_COUNT; i++)
		close_slot(slot, i);
}

/* Puts received descriptors where `slots` says. False, with all of them closed: they are not as many. */
static bool fill_slots(int slot[SLOT_COUNT], uint32_t slots, const int *fds, int count)
{
	if (slots >> SLOT_COUNT || count_bits(slots) != count) {
		for (int i = 0; i < count; i++)
			close(fds[i]);
		return false;
	}
	for (int i = 0; i < SLOT_COUNT; i++)
		if (slots >> i & 1) {
			close_slot(slot, i);
			slot[i] = *fds++;
		}
	return true;
}

static const char *text_of(const struct executor_action *action)
{
	return (const char *)(action + 1);
}

static const struct executor_action *next_action(const struct executor_action *action)
{
	return (const void *)((const char *)action + action->bytes);
}

/* ---- the child ---- */

/* From the executor: actions follow. */
struct batch {
	uint32_t actions, uid, gid, slots;
};

/* From the child. */
struct batch_answer {
	uint32_t slots;
	int32_t result[EXECUTOR_ACTIONS];
};

static int mine[SLOT_COUNT], own_token = -1;

/*
 * Becomes the owner of the user namespace, who keeps all capabilities by it, and enters that and the mount namespace.
 * Changing identity resets both what decides whether others may look into us and whether we die with our parent.
 */
static int enter(uint32_t uid, uint32_t gid)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2];

	if (uid != 0) {
		if (prctl(PR_SET_KEEPCAPS, 1) < 0 || syscall(SYS_setgroups, 0, NULL) < 0 ||
		    syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0 ||
		    syscall(SYS_capget, &header, caps) < 0)
			return -errno;
		caps[0].effective = caps[0].permitted;
		caps[1].effective = caps[1].permitted;
		if (syscall(SYS_capset, &header, caps) < 0)
			return -errno;
	}
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || setns(mine[SLOT_USER], CLONE_NEWUSER) < 0)
		return -errno;
	if (prctl(PR_GET_DUMPABLE) != 0)
		return -EXECUTOR_EXPOSED;
	if (setns(mine[SLOT_MOUNTS], CLONE_NEWNS) < 0)
		return -errno;
	if (prctl(PR_GET_DUMPABLE) != 0)
		return -EXECUTOR_EXPOSED;
	return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0;
}

static int fill(int which, long fd)
{
	if (fd < 0)
		return -errno;
	close_slot(mine, which);
	mine[which] = fd;
	return 0;
}

/* Below the target's root, by a path that no symbolic link leads out of. */
static int open_path(const char *path, int flags)
{
	struct open_how how = {
		.flags = flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	return syscall(SYS_openat2, mine[SLOT_ROOT], path, &how, sizeof(how));
}

static int mount_onto(int mount, int directory)
{
	int flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;

	return syscall(SYS_move_mount, mount, "", directory, "", flags) < 0 ? -errno : 0;
}

/* Takes away the mount that `root` is the root of: "." in it, whatever its name is by now. */
static int detach(int root)
{
	if (fchdir(root) < 0 || umount2(".", MNT_DETACH) < 0)
		return -errno;
	return 0;
}

#define COVERS 16

/*
 * Nothing but a path leads to a mount that lies under others. So these are taken away for a moment: a copy of
 * each, with all that is mounted in it, is held, and put back in the end.
 */
static int detach_covered(const char *path, unsigned count)
{
	int cover[COVERS], covers = 0, result = 0;
	struct statfs type;

	if (count == 0 || count > COVERS)
		return -E2BIG;
	while (result == 0 && covers < (int)count) {
		int top = open_path(path, O_PATH), copy;

		if (top < 0)
			return -errno;
		copy = syscall(SYS_open_tree, top, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		result = copy < 0 ? -errno : detach(top);
		if (result == 0)
			cover[covers++] = copy;
		else if (copy >= 0)
			close(copy);
		close(top);
	}
	if (result == 0)
		result = fill(SLOT_REACHED, open_path(path, O_PATH));
	if (result == 0 && (fstatfs(mine[SLOT_REACHED], &type) < 0 || (uint32_t)type.f_type != BPF_FS_MAGIC))
		result = -ESTALE;
	if (result == 0)
		result = detach(mine[SLOT_REACHED]);
	while (covers-- > 0) {
		int place = open_path(path, O_PATH);
		int back = place < 0 ? -errno : mount_onto(cover[covers], place);

		if (back < 0 && result == 0)
			result = -EUCLEAN;
		if (place >= 0)
			close(place);
	}
	return result;
}

/* As a program without privilege outside would do it: EPERM, after which the context takes nothing any more. */
static int spoil(int context)
{
	if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		return -EEXIST;
	/* EBUSY: it failed or was created before. */
	return errno == EPERM || errno == EBUSY ? 0 : -errno;
}

static int make_token(const char *path)
{
	const int cap = 39; /* CAP_BPF */
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2] = { { 0, 0, 0 }, { 1u << (cap - 32), 1u << (cap - 32), 0 } };
	struct {
		uint32_t flags, bpffs_fd;
	} attr = { 0, 0 };
	int root = open_path(path, O_RDONLY);

	if (root < 0)
		return -errno;
	attr.bpffs_fd = root;
	if (syscall(SYS_capset, &header, caps) < 0 ||
	    (own_token = syscall(SYS_bpf, BPF_TOKEN_CREATE, &attr, sizeof(attr))) < 0)
		return -errno;
	return 0;
}

static int make_map(void)
{
	struct {
		uint32_t type, key, value, entries, flags, unused[14], token;
	} attr = { .type = 2 /* array */, .key = 4, .value = 4, .entries = 1, .flags = BPF_F_TOKEN_FD, .token = own_token };

	_Static_assert(offsetof(typeof(attr), token) == 76, "map_token_fd");
	return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

static int child_action(const struct executor_action *action)
{
	const char *text = text_of(action);

	switch (action->op) {
	case OP_OPEN_DIRECTORY:
		return fill(SLOT_DIRECTORY, open_path(text, O_PATH));
	case OP_OPEN_CONTEXT:
		return fill(SLOT_CONTEXT, syscall(SYS_fsopen, text, FSOPEN_CLOEXEC));
	case OP_ATTACH:
		return mount_onto(mine[SLOT_MOUNT], mine[SLOT_DIRECTORY]);
	case OP_OPEN_REACHED:
		return fill(SLOT_REACHED, open_path(text, O_PATH));
	case OP_DETACH:
		return detach(mine[SLOT_MOUNT]);
	case OP_DETACH_COVERED:
		return detach_covered(text, action->number);
	case OP_SPOIL_CONTEXT:
		return spoil(mine[SLOT_CONTEXT]);
	case OP_MAKE_TOKEN:
		return make_token(text);
	case OP_MAKE_MAP:
		return make_map();
	}
	return -ENOSYS;
}

/* Which slot an action of the child fills; none: 0. */
static uint32_t filled_by(int op)
{
	switch (op) {
	case OP_OPEN_DIRECTORY:
		return 1u << SLOT_DIRECTORY;
	case OP_OPEN_CONTEXT:
		return 1u << SLOT_CONTEXT;
	case OP_OPEN_REACHED:
	case OP_DETACH_COVERED:
		return 1u << SLOT_REACHED;
	}
	return 0;
}

static uint32_t needed_by(int op)
{
	switch (op) {
	case OP_ATTACH:
	case OP_DETACH:
		return 1u << SLOT_MOUNT;
	case OP_SPOIL_CONTEXT:
		return 1u << SLOT_CONTEXT;
	}
	return 0;
}

static char message[EXECUTOR_MESSAGE_BYTES] __attribute__((aligned(16)));

/* Serves the batches of one plan, and ends when the executor closes the socket. */
static int child_main(void)
{
	bool inside = false;
	int fds[SLOT_COUNT], count;
	ssize_t got;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "bpftoken-inside");
	for (int i = 0; i < SLOT_COUNT; i++)
		mine[i] = -1;
	/* Page faults are taken now, not when there is a plan. */
	memset(message, 0, sizeof(message) / 4);
	while ((got = receive_message(CLIENT, message, sizeof(message), fds, &count, 0)) > 0) {
		const struct batch *batch = (void *)message;
		const struct executor_action *action = (void *)(batch + 1);
		struct batch_answer answer = { 0 };
		uint32_t tried = 0;
		int result = fill_slots(mine, batch->slots, fds, count) ? 0 : -EBADF;

		if (result == 0 && !inside && (result = enter(batch->uid, batch->gid)) < 0)
			result -= EXECUTOR_ENTERING;
		inside = true;
		if (result < 0)
			answer.result[tried++] = result;
		for (; result == 0 && tried < batch->actions; action = next_action(action)) {
			result = answer.result[tried++] = child_action(action);
			if (result == 0)
				answer.slots |= filled_by(action->op);
		}
		size_t bytes = offsetof(struct batch_answer, result) + tried * sizeof(int32_t);
		if (send_message(CLIENT, &answer, bytes, mine, answer.slots) < 0)
			break;
	}
	return 0;
}

/* ---- the executor's children ---- */

struct child {
	int socket, pidfd, pid;
	bool *stack; /* what it was made on is in use, until it has said something */
};

#define SPARES 2
#define STACKS 8
#define STACK_BYTES 16384

static struct child spare[SPARES]; /* the oldest first */
static int spares, executable = -1;
static char stacks[STACKS][STACK_BYTES] __attribute__((aligned(16)));
static bool stack_used[STACKS];

/*
 * Between clone(2) and execveat(2) this shares our memory, since copying that is what takes long. It is in our
 * own namespaces still, where nobody but root can meddle with it. Nothing but system calls that succeed.
 */
static int become_child(void *data)
{
	static char *const arguments[] = { "bpftoken-executor", "child", NULL }, *const environment[] = { NULL };
	int socket = (int)(intptr_t)data;

	/* Without CLOEXEC, in place of our own socket. */
	syscall(SYS_dup3, socket, CLIENT, 0);
	syscall(SYS_close_range, 0, CLIENT - 1, 0);
	syscall(SYS_execveat, executable, "", arguments, environment, AT_EMPTY_PATH);
	syscall(SYS_exit, 1);
	return 1;
}

static int make_spare(void)
{
	int pair[2], pidfd = -1, at = 0, flags = CLONE_VM | CLONE_PIDFD | SIGCHLD;

	while (at < STACKS - 1 && stack_used[at])
		at++;
	/* On the last one we wait until it has executed. */
	if (at == STACKS - 1)
		flags |= CLONE_VFORK;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	int pid = clone(become_child, stacks[at] + STACK_BYTES, flags, (void *)(intptr_t)pair[1], &pidfd);
	int failed = errno;
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return -failed;
	}
	stack_used[at] = true;
	spare[spares++] = (struct child){ pair[0], pidfd, pid, &stack_used[at] };
	return 0;
}

static struct child take_spare(void)
{
	struct child oldest = spare[0];

	spares--;
	memmove(spare, spare + 1, spares * sizeof(spare[0]));
	return oldest;
}

/*
 * The child works while we wait. On another processor, which the kernel would rather give it, it would have to be woken
 * from its idle state each time. Only speed depends on it.
 */
static void stay_together(const struct child *child)
{
	cpu_set_t here;
	int cpu = sched_getcpu();

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return;
	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	sched_setaffinity(child->pid, sizeof(here), &here);
}

static void refill(void)
{
	while (spares < SPARES && make_spare() == 0)
		;
}

/* It has executed, or is dead. */
static void free_stack(struct child *child)
{
	if (child->stack)
		*child->stack = false;
	child->stack = NULL;
}

static void let_go(struct child *child)
{
	if (child->socket >= 0) {
		close(child->socket);
		close(child->pidfd);
	}
	child->socket = child->pidfd = -1;
}

#define KILL_WAIT_MS 200

/* After this it begins no system call any more, dead or not. */
static void end(struct child *child)
{
	struct pollfd gone = { child->pidfd, POLLIN, 0 };

	if (child->socket < 0)
		return;
	syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
	if (poll(&gone, 1, KILL_WAIT_MS) == 1)
		free_stack(child);
	let_go(child);
}

/* ---- a plan ---- */

struct plan {
	struct executor_plan head;
	const struct executor_action *action[EXECUTOR_ACTIONS];
	int32_t result[EXECUTOR_ACTIONS];
	unsigned tried;
	int slot[SLOT_COUNT];
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
static bool orphaned;

static int64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* The next word of bpftoken: its kind; PLAN, out of order, counts as CANCEL. */
static int hear(int flags)
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

/* Until `fd` is readable. -ETIMEDOUT; or, unless that does not count any more, -ECANCELED by bpftoken's word. */
static int wait_for(int fd, int64_t deadline, bool cancellable)
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

/* Says that bpftoken has to do `op` with the descriptor, and end the child before, should we be killed from now on. */
static int note_in_journal(struct plan *plan, uint32_t op, int fd, int pidfd)
{
	int slot[SLOT_COUNT] = { fd, pidfd };
	struct executor_entry entry = { plan->head.serial, op };
	int result = send_message(JOURNAL_IN, &entry, sizeof(entry), slot, pidfd < 0 ? 1 : 3);

	if (result == 0)
		plan->journaled++;
	return result;
}

static void forget_journal(struct plan *plan)
{
	for (; plan->journaled; plan->journaled--) {
		struct executor_entry entry;
		int fds[SLOT_COUNT], count;

		receive_message(JOURNAL_OUT, &entry, sizeof(entry), fds, &count, MSG_DONTWAIT);
		for (int i = 0; i < count; i++)
			close(fds[i]);
	}
}

/*
 * Has the child do `count` actions; the results go to `result`. Gives how many were tried. What the child says is
 * bounded, and not believed further.
 */
static unsigned run_batch(struct plan *plan, const struct executor_action *const *action, unsigned count, int32_t *result,
			  int64_t deadline, bool cancellable)
{
	static char out[EXECUTOR_MESSAGE_BYTES] __attribute__((aligned(16)));
	struct batch *batch = (void *)out;
	struct batch_answer answer;
	char *end_of_out = (char *)(batch + 1);
	uint32_t may_fill = 0, slots = 0;
	int fds[SLOT_COUNT], received, failed;

	if (plan->child.socket < 0) {
		if (spares == 0 && (failed = make_spare()) < 0)
			goto fail;
		plan->child = take_spare();
		stay_together(&plan->child);
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
	*batch = (struct batch){ count, plan->owner, plan->head.gid, slots };
	if ((failed = send_message(plan->child.socket, out, end_of_out - out, plan->slot, slots)) < 0)
		goto lost;
	plan->known |= slots;
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
	end(&plan->child);
fail:
	result[0] = failed;
	return 1;
}

/* ---- what the kernel says of mounts ---- */

struct look {
	uint64_t id, parent;
	struct executor_mount mount;
	const char *type, *root, *point, *options;
};

/* The id by which `look_at` finds it: unique for all time where there is statmount(2). 0: none. */
static uint64_t mount_of(int fd, bool *is_root)
{
	struct statx st;
	/* Newer than the C library's struct: attributes @8, stx_mnt_id @144. */
	uint64_t id;

	if (fd < 0 || syscall(SYS_statx, fd, "", AT_EMPTY_PATH, modern ? STATX_MNT_ID_UNIQUE : STATX_MNT_ID, &st) < 0)
		return 0;
	memcpy(&id, (char *)&st + 144, sizeof(id));
	if (is_root)
		*is_root = st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
	return id;
}

static int look_by_statmount(const struct plan *plan, uint64_t id, struct look *look)
{
	static char buffer[32768] __attribute__((aligned(8)));
	struct statmount_answer *answer = (void *)buffer;
	struct statmount_request request = {
		.size = sizeof(request),
		.mnt_id = id,
		.param = STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_MNT_ROOT | STATMOUNT_MNT_POINT |
			 STATMOUNT_FS_TYPE | STATMOUNT_MNT_OPTS,
		.mnt_ns_id = plan->namespace_id,
	};

	if (syscall(SYS_statmount, &request, buffer, sizeof(buffer), 0) < 0)
		return -errno;
	*look = (struct look){
		.id = answer->mnt_id,
		.parent = answer->mnt_parent_id,
		.mount = { 0, answer->mnt_id_old, answer->sb_dev_major, answer->sb_dev_minor, 1 },
		.type = answer->mask & STATMOUNT_FS_TYPE ? answer->text + answer->fs_type : "",
		.root = answer->mask & STATMOUNT_MNT_ROOT ? answer->text + answer->mnt_root : "",
		.point = answer->mask & STATMOUNT_MNT_POINT ? answer->text + answer->mnt_point : "",
		.options = answer->mask & STATMOUNT_MNT_OPTS ? answer->text + answer->mnt_opts : "",
	};
	return 0;
}

/* In mountinfo a space, tab, newline or backslash stands as three octal digits. */
static void decode_octal(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
			*to++ = (text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0');
			text += 3;
		} else {
			*to++ = *text;
		}
	*to = '\0';
}

/* Before Linux 6.11. The target's number may have gone to another process meanwhile: REFUSE_MOVED finds out. */
static int look_by_mountinfo(const struct plan *plan, uint64_t id, struct look *look)
{
	static char line[32768];
	char name[64];
	int found = -ENOENT;

	snprintf(name, sizeof(name), "/proc/%u/mountinfo", plan->head.pid);
	FILE *file = fopen(name, "re");
	if (!file)
		return -errno;
	while (found < 0 && fgets(line, sizeof(line), file)) {
		unsigned long long here, above;
		unsigned major, minor;
		char *save, *word, *field[3];

		if (sscanf(line, "%llu %llu %u:%u", &here, &above, &major, &minor) != 4 || here != id)
			continue;
		strtok_r(line, " ", &save);
		for (int i = 0; i < 2; i++)
			strtok_r(NULL, " ", &save);
		char *root = strtok_r(NULL, " ", &save), *point = strtok_r(NULL, " ", &save);
		while ((word = strtok_r(NULL, " ", &save)) && strcmp(word, "-") != 0)
			;
		for (int i = 0; i < 3; i++)
			field[i] = strtok_r(NULL, " \n", &save);
		if (!root || !point || !field[2])
			break;
		decode_octal(root);
		decode_octal(point);
		*look = (struct look){ .id = id, .parent = above, .mount = { 0, id, major, minor, 1 },
				       .type = field[0], .root = root, .point = point, .options = field[2] };
		found = 0;
	}
	fclose(file);
	return found;
}

static int look_at(const struct plan *plan, uint64_t id, struct look *look)
{
	return modern ? look_by_statmount(plan, id, look) : look_by_mountinfo(plan, id, look);
}

/* The mount that `above` is mounted over as a whole; false: none. */
static bool look_below(const struct plan *plan, const struct look *above, struct look *below)
{
	char point[PATH_MAX];
	uint64_t id = above->id, parent = above->parent;

	if (parent == id || strlen(above->point) >= sizeof(point))
		return false;
	strcpy(point, above->point);
	return look_at(plan, parent, below) == 0 && strcmp(below->point, point) == 0 && below->parent != below->id;
}

static bool delegates(const struct look *look)
{
	return strcmp(look->type, "bpf") == 0 && strstr(look->options, "delegate_");
}

/* ---- actions of the executor itself ---- */

static int set_string(int context, const char *key, const char *value)
{
	return syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static int set_number(int context, const char *key, uint32_t value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	return set_string(context, key, text);
}

/*
 * Were it a context of another file system, we would create a superblock for it with our privilege, of a type that
 * the target may not mount. Only bpffs both refuses a delegation that is no word of its grammar and accepts one that
 * is empty. -EBADF: it is none, or not a new one.
 *
 * The superblock will belong to the user namespace of whoever opened the context. The kernel does not say which that
 * is, but it takes as owner only ids that are mapped there. -EXDEV: it is another one's.
 */
static int prove_context(int context, uint32_t mapped, uint32_t unmapped)
{
	int result = set_string(context, "delegate_cmds", "no_such_command");

	/* Somebody judges options before bpffs does. */
	if (result == -EACCES)
		return result;
	if (result != -EINVAL || set_string(context, "delegate_cmds", "0") != 0)
		return -EBADF;
	if ((mapped != EXECUTOR_NONE && set_number(context, "uid", mapped) != 0) ||
	    (unmapped != EXECUTOR_NONE && set_number(context, "uid", unmapped) == 0))
		return -EXDEV;
	return 0;
}

/* As its mount would: once that has been made, no other can be, and with it the superblock goes. */
static int discard_context(int context)
{
	int mount = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);

	if (mount < 0)
		return -errno;
	close(mount);
	return 0;
}

static bool is_same_file(int one, int other)
{
	struct stat a, b;

	return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int refuse_occupied(const struct plan *plan)
{
	int directory = plan->slot[SLOT_DIRECTORY];
	struct look look, below;
	bool is_root = false;
	uint64_t id = mount_of(directory, &is_root);

	/* The root directory is not looked up: what is mounted over it is reached by nobody. */
	if (is_root && id == mount_of(plan->slot[SLOT_ROOT], NULL) && is_same_file(directory, plan->slot[SLOT_ROOT]))
		return -EXDEV;
	int result = look_at(plan, id, &look);
	if (result < 0)
		return result;
	if (delegates(&look))
		return -EEXIST;
	while (is_root && look_below(plan, &look, &below)) {
		if (delegates(&below))
			return -EEXIST;
		look = below;
	}
	return 0;
}

static int refuse_unreached(const struct plan *plan)
{
	bool is_root = false;
	uint64_t reached = mount_of(plan->slot[SLOT_REACHED], &is_root);

	return reached && is_root && reached == mount_of(plan->slot[SLOT_MOUNT], NULL) ? 0 : -ESTALE;
}

static int is_in(const struct plan *plan, int request, const char *name, int slot)
{
	struct stat is, was;

	if (modern) {
		int fd = ioctl(plan->slot[SLOT_PROCESS], request, 0);
		if (fd < 0)
			return -errno;
		int result = is_same_file(fd, plan->slot[slot]) ? 0 : -EXDEV;
		close(fd);
		return result;
	}
	char path[64];
	snprintf(path, sizeof(path), "/proc/%u/ns/%s", plan->head.pid, name);
	if (stat(path, &is) < 0 || fstat(plan->slot[slot], &was) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return is.st_ino == was.st_ino ? 0 : -EXDEV;
}

static int refuse_moved(const struct plan *plan)
{
	int result = is_in(plan, PIDFD_GET_USER_NAMESPACE, "user", SLOT_USER);

	if (result == 0)
		result = is_in(plan, PIDFD_GET_MNT_NAMESPACE, "mnt", SLOT_MOUNTS);
	if (result == 0 && syscall(SYS_pidfd_send_signal, plan->slot[SLOT_PROCESS], 0, NULL, 0) < 0 && errno == ESRCH)
		result = -ESRCH;
	return result;
}

/* Mounts for the answer. */
static char mounts[EXECUTOR_MESSAGE_BYTES / 2] __attribute__((aligned(8)));
static size_t mounts_bytes;
static uint32_t mounts_count;

static int add_mount(struct look *look)
{
	const char *text[] = { look->type, look->root, look->point, look->options };
	size_t at = mounts_bytes + sizeof(look->mount);

	for (int i = 0; i < 4; i++) {
		size_t length = strlen(text[i]) + 1;
		if (at + length + 4 > sizeof(mounts))
			return -E2BIG;
		memcpy(mounts + at, text[i], length);
		at += length;
	}
	while (at % 4)
		mounts[at++] = '\0';
	look->mount.bytes = at - mounts_bytes;
	memcpy(mounts + mounts_bytes, &look->mount, sizeof(look->mount));
	mounts_bytes = at;
	mounts_count++;
	return 0;
}

static int look_and_tell(const struct plan *plan, uint32_t slot, uint32_t depth)
{
	struct look look, below;
	bool is_root = false;
	uint64_t id = slot < SLOT_COUNT ? mount_of(plan->slot[slot], &is_root) : 0;
	int result = id ? look_at(plan, id, &look) : -EBADF;

	if (result == 0) {
		look.mount.at_root = is_root;
		result = add_mount(&look);
	}
	while (result == 0 && is_root && depth-- > 0 && look_below(plan, &look, &below)) {
		look = below;
		result = add_mount(&look);
	}
	return result;
}

static int pause_here(const struct plan *plan)
{
	struct executor_answer answer = { .kind = EXECUTOR_PAUSED, .failed = -1 };
	int result;

	send_message(CLIENT, &answer, sizeof(answer), NULL, 0);
	if ((result = wait_for(CLIENT, plan->deadline, false)) < 0)
		return result;
	return hear(0) == EXECUTOR_KEEP ? 0 : -ECANCELED;
}

static int take_context(struct plan *plan, uint32_t number)
{
	int context = syscall(SYS_pidfd_getfd, plan->slot[SLOT_PROCESS], number, 0);

	if (context < 0)
		return -errno;
	close_slot(plan->slot, SLOT_CONTEXT);
	plan->slot[SLOT_CONTEXT] = context;
	plan->taken = true;
	return note_in_journal(plan, OP_SPOIL_CONTEXT, context, -1);
}

static int own_action(struct plan *plan, const struct executor_action *action)
{
	int context = plan->slot[SLOT_CONTEXT], result;
	const char *text = text_of(action);

	switch (action->op) {
	case OP_TAKE_CONTEXT:
		return take_context(plan, action->number);
	case OP_SET_FLAG:
		result = syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, text, NULL, 0) < 0 ? -errno : 0;
		return action->number && result == -(int)action->number ? 0 : result;
	case OP_SET_OPTION:
		return set_string(context, text, text + strlen(text) + 1);
	case OP_PROVE_CONTEXT:
		return prove_context(context, action->number, action->more);
	case OP_CREATE:
		return syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -errno : 0;
	case OP_DISCARD_CONTEXT:
		return discard_context(context);
	case OP_MAKE_MOUNT:
		close_slot(plan->slot, SLOT_MOUNT);
		plan->slot[SLOT_MOUNT] = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, action->number);
		return plan->slot[SLOT_MOUNT] < 0 ? -errno : 0;
	case OP_REFUSE_OCCUPIED:
		return refuse_occupied(plan);
	case OP_REFUSE_UNREACHED:
		return refuse_unreached(plan);
	case OP_REFUSE_MOVED:
		return refuse_moved(plan);
	case OP_LOOK:
		return look_and_tell(plan, action->number, action->more);
	case OP_PAUSE:
		return pause_here(plan);
	}
	return -ENOSYS;
}

/* ---- running and undoing ---- */

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
					/* From here on it is better to be done than to be undone. */
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

/*
 * In the namespaces that the plan began with. By the child that is inside already; should that be stopped or dead, by
 * another one.
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
		if (result != -ETIMEDOUT && result != -ECHILD)
			break;
	}
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
		.mounts = mounts_count,
		.held = plan->undos,
	};
	for (int i = 0; i < SLOT_COUNT; i++)
		if (failed < 0 && plan->head.give >> i & 1 && plan->slot[i] >= 0)
			head->slots |= 1u << i;
	memcpy(at, plan->result, plan->tried * sizeof(int32_t));
	at += plan->tried * sizeof(int32_t);
	memcpy(at, undone, count * sizeof(*undone));
	at += count * sizeof(*undone);
	memcpy(at, mounts, mounts_bytes);
	at += mounts_bytes;
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
		     action->op == OP_DETACH_COVERED || action->op == OP_MAKE_TOKEN || action->op == OP_SET_FLAG ||
		     action->op == OP_SET_OPTION))
			return false;
		plan->action[i] = action;
		at += action->bytes;
	}
	return at == end;
}

/*
 * The user id, here, of whoever made the user namespace; of one that lies in others, of the outermost of those below our
 * own. 0 where the kernel does not tell, who is the most that it can be.
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

static void serve(const char *data, size_t bytes, const int *fds, int count)
{
	static struct plan plan;
	struct executor_undone undone[EXECUTOR_UNDOS];
	unsigned undos = 0;

	plan.tried = plan.journaled = plan.undos = 0;
	plan.taken = false;
	plan.child = (struct child){ -1, -1, -1, NULL };
	for (int i = 0; i < SLOT_COUNT; i++)
		plan.slot[i] = -1;
	mounts_bytes = mounts_count = 0;
	memcpy(&plan.head, data, sizeof(plan.head));
	plan.deadline = now_ms() + plan.head.deadline_ms;
	plan.namespace_id = 0;
	bool sound = fill_slots(plan.slot, plan.head.slots, fds, count) &&
		     read_actions(&plan, data + sizeof(plan.head), data + bytes);
	if (modern && plan.slot[SLOT_MOUNTS] >= 0)
		ioctl(plan.slot[SLOT_MOUNTS], NS_GET_MNTNS_ID, &plan.namespace_id);
	plan.owner = plan.slot[SLOT_USER] >= 0 ? owner_of(plan.slot[SLOT_USER]) : 0;
	int failed = 0;
	if (sound)
		failed = run_actions(&plan);
	else
		plan.result[plan.tried++] = -EBADMSG;
	if (failed >= 0)
		undos = undo_all(&plan, undone);
	answer(&plan, failed, undone, undos);
	while (plan.undos > 0) {
		int word = hear(0);

		if (word == EXECUTOR_KEEP)
			break;
		if (word == EXECUTOR_UNDO || orphaned) {
			undos = undo_all(&plan, undone);
			mounts_bytes = mounts_count = plan.head.give = 0;
			answer(&plan, -1, undone, undos);
		}
	}
	forget_journal(&plan);
	let_go(&plan.child);
	close_slots(plan.slot);
}

static bool is_modern(void)
{
	struct plan plan = { 0 };
	struct look look;
	bool is;
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	int user = ioctl(pidfd, PIDFD_GET_USER_NAMESPACE, 0), mount = ioctl(pidfd, PIDFD_GET_MNT_NAMESPACE, 0);
	int root = open("/", O_PATH | O_CLOEXEC);

	modern = true;
	is = user >= 0 && mount >= 0 && ioctl(mount, NS_GET_MNTNS_ID, &plan.namespace_id) == 0 &&
	     look_by_statmount(&plan, mount_of(root, NULL), &look) == 0 && look.options[0] && look.type[0];
	close(pidfd);
	close(user);
	close(mount);
	close(root);
	return is;
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
	/* It ends with its socket: a signal for bpftoken's whole group must not cut off what has to be undone. */
	for (int i = 0; i < 5; i++)
		signal((int[]){ SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 }[i], SIG_IGN);
	/* Children are gone when they are dead: nobody waits for them. */
	signal(SIGCHLD, SIG_IGN);
	executable = open(argv[0], O_PATH | O_CLOEXEC);
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
	if (executable < 0 || send_message(CLIENT, &hello, sizeof(hello), NULL, 0) < 0)
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
