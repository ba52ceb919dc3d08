/*
 * cost COMMAND [ARGUMENT...]: runs it without output and prints its nanoseconds from before fork to
 * after wait, and those on processors, of all that it waited for too.
 */
#include "within.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>

extern char **environ;

static uint64_t ns_of(struct timeval t)
{
	return t.tv_sec * 1000000000ull + t.tv_usec * 1000ull;
}

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t quiet;
	struct rusage usage;
	pid_t pid;
	int status;

	if (argc < 2)
		return 2;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	uint64_t start = now_ns();
	int error = posix_spawnp(&pid, argv[1], &quiet, NULL, argv + 1, environ);
	if (error) {
		errno = error;
		perror(argv[1]);
		return 127;
	}
	ok(wait4(pid, &status, 0, &usage), "wait4");
	printf("%llu %llu\n", (unsigned long long)(now_ns() - start),
	       (unsigned long long)(ns_of(usage.ru_utime) + ns_of(usage.ru_stime)));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
