/*
 * The executor's children: made before there is a plan, used for one, and never waited for without
 * end.
 */
#include "child.h"
#include "message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPARES 2
#define STACKS 8
#define STACK_BYTES 16384

static struct child spare[SPARES]; /* the oldest first */
static int spares, executable = -1;
static char stacks[STACKS][STACK_BYTES] __attribute__((aligned(16)));
static bool stack_used[STACKS];

/*
 * Between clone(2) and execveat(2) this shares our memory, since copying that is what takes long.
 * It is in our own namespaces still, where nobody but root can meddle with it. Nothing but system
 * calls that succeed.
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

/*
 * The child works while we wait. On another processor, which the kernel would rather give it, it
 * would have to be woken from its idle state each time. Only speed depends on it.
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

int take_spare(struct child *taken)
{
	int failed;

	if (spares == 0 && (failed = make_spare()) < 0)
		return failed;
	*taken = spare[0];
	spares--;
	memmove(spare, spare + 1, spares * sizeof(spare[0]));
	stay_together(taken);
	return 0;
}

bool know_executable(const char *path)
{
	executable = open(path, O_PATH | O_CLOEXEC);
	return executable >= 0;
}

void refill(void)
{
	while (spares < SPARES && make_spare() == 0)
		;
}

void free_stack(struct child *child)
{
	if (child->stack)
		*child->stack = false;
	child->stack = NULL;
}

void let_go(struct child *child)
{
	if (child->socket >= 0) {
		close(child->socket);
		close(child->pidfd);
	}
	child->socket = child->pidfd = -1;
}

#define KILL_WAIT_MS 200

void end_child(struct child *child)
{
	struct pollfd gone = { child->pidfd, POLLIN, 0 };

	if (child->socket < 0)
		return;
	syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
	if (poll(&gone, 1, KILL_WAIT_MS) == 1)
		free_stack(child);
	let_go(child);
}
