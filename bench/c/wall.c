/*
 * wall COMMAND [ARGUMENT...]: runs it without output and prints its nanoseconds, from before fork
 * to after wait.
 */
#include "within.h"

#include <fcntl.h>
#include <spawn.h>

extern char **environ;

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t quiet;
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
	ok(waitpid(pid, &status, 0), "waitpid");
	printf("%llu\n", (unsigned long long)(now_ns() - start));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
