/* What the benchmarks' C programs share: clock, failure, and one system call inside a process's namespaces. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline long ok(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

struct within {
	int pidfd, cwd;
	long nr, arg[5], result;
};

static inline int within_child(void *data)
{
	struct within *w = data;
	if (syscall(SYS_setns, w->pidfd, CLONE_NEWUSER | CLONE_NEWNS) < 0 ||
	    (w->cwd >= 0 && syscall(SYS_fchdir, w->cwd) < 0))
		w->result = -errno;
	else if ((w->result = syscall(w->nr, w->arg[0], w->arg[1], w->arg[2], w->arg[3], w->arg[4])) < 0)
		w->result = -errno;
	return 0;
}

/* By a child that shares memory and descriptors, as the addon does it: see native/within.c. */
static inline long within(struct within w, const char *what)
{
	static char stack[64 * 1024] __attribute__((aligned(16)));
	int pid = ok(clone(within_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | CLONE_FILES, &w), "clone");
	ok(waitpid(pid, NULL, __WALL), "waitpid");
	errno = w.result < 0 ? -w.result : 0;
	return ok(w.result, what);
}
