/*
 * Asks for maps in several ways, for the recorder's tests.
 *
 *   asks once TYPE            one map
 *   asks common TYPE          the same with BPF_COMMON_ATTRS in the command (since Linux 7.2)
 *   asks wide TYPE            one map, by a number of the system call that has more than 32 bits (x86-64)
 *   asks flood TYPE COUNT     many, while the parent is stopped
 *   asks nested TYPE TYPE TYPE
 *                             in a new PID namespace: one by a thread, one by its process, one by a child
 *   asks filtered ACTION TYPE process|thread
 *                             one map, by its first thread or another, under a seccomp filter that answers bpf(2)
 *                             by that action; it goes on after SIGSYS
 *
 * Whether maps are made is not its business.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BPF_COMMON_ATTRS = 1 << 16 };

static void *make(void *type)
{
	uint32_t attr[20] = { (uintptr_t)type, 4, 4, 1 };
	long fd = syscall(SYS_bpf, 0, attr, 72);

	if (fd >= 0)
		close(fd);
	return 0;
}

static void make_common(void *type)
{
	uint32_t attr[20] = { (uintptr_t)type, 4, 4, 1 };
	uint64_t common[3] = { 0 };

	syscall(SYS_bpf, BPF_COMMON_ATTRS, attr, 72, common, 20);
}

#ifdef __x86_64__
static void make_wide(void *type)
{
	uint32_t attr[20] = { (uintptr_t)type, 4, 4, 1 };
	long fd = (1l << 32) + SYS_bpf;

	__asm__ volatile("syscall" : "+a"(fd) : "D"(0l), "S"(attr), "d"(72l) : "rcx", "r11", "memory");
}
#endif

static void *number(const char *text)
{
	return (void *)strtoul(text, 0, 10);
}

static void go_on(int signal)
{
	(void)signal;
}

static int filtered(uint32_t action, void *type, int in_thread)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the number of the system call */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof(code) / sizeof(*code), .filter = code };
	pthread_t thread;

	signal(SIGSYS, go_on);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		return 1;
	if (!in_thread)
		make(type);
	else if (pthread_create(&thread, 0, make, type) || pthread_join(thread, 0))
		return 1;
	return 0;
}

static int nested(char **types)
{
	pthread_t thread;
	pid_t child;

	if (pthread_create(&thread, 0, make, number(types[0])) || pthread_join(thread, 0))
		return 1;
	make(number(types[1]));
	child = fork();
	if (child < 0)
		return 1;
	if (child == 0) {
		make(number(types[2]));
		_exit(0);
	}
	return waitpid(child, 0, 0) != child;
}

int main(int argc, char **argv)
{
	int status;
	pid_t child;

	if (argc == 3 && !strcmp(argv[1], "once")) {
		make(number(argv[2]));
	} else if (argc == 3 && !strcmp(argv[1], "common")) {
		make_common(number(argv[2]));
#ifdef __x86_64__
	} else if (argc == 3 && !strcmp(argv[1], "wide")) {
		make_wide(number(argv[2]));
#endif
	} else if (argc == 4 && !strcmp(argv[1], "flood")) {
		kill(getppid(), SIGSTOP);
		for (long left = atol(argv[3]); left > 0; left--)
			make(number(argv[2]));
		kill(getppid(), SIGCONT);
	} else if (argc == 5 && !strcmp(argv[1], "filtered")) {
		return filtered(strtoul(argv[2], 0, 0), number(argv[3]), !strcmp(argv[4], "thread"));
	} else if (argc == 5 && !strcmp(argv[1], "nested")) {
		if (unshare(CLONE_NEWPID))
			return 1;
		child = fork();
		if (child == 0)
			_exit(nested(argv + 2));
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			return 1;
	} else {
		return 2;
	}
	return 0;
}
