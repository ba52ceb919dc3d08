/*
 * What a process becomes that executes another program, also a setuid one. Compiled when a test
 * runs.
 *
 *   become stay        has the ids that execve(2) gave it
 *   become all         takes its effective ids as real and saved ones, as su(1) does
 *   become number N PROGRAM...
 *                      starts PROGRAM as process number N, and waits for it; the number must be free
 *
 * The first two end when their standard input does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int start_as(pid_t number, char **program)
{
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1 };
	long child = syscall(SYS_clone3, &args, sizeof(args));

	if (child == 0) {
		execv(program[0], program);
		_exit(127);
	}
	if (child < 0) {
		fprintf(stderr, "become: process %d: %s\n", number, strerror(errno));
		return 1;
	}
	int status;
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	char byte;

	if (argc > 3 && strcmp(argv[1], "number") == 0)
		return start_as(atoi(argv[2]), argv + 3);
	if (argc > 1 && strcmp(argv[1], "all") == 0 &&
	    (setresgid(getegid(), getegid(), getegid()) || setresuid(geteuid(), geteuid(), geteuid())))
		return 1;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
