/*
 * A parent that is told when its child stops, as su(1) and nsenter(1) are: says `stopped`, has it go
 * on, and says `ended`.
 *
 *   waits-for-stops CHILD       the child is run
 *   waits-for-stops stop CHILD  the same, and it stops before
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int stops = argc > 2 && strcmp(argv[1], "stop") == 0, status;
	pid_t child = fork();

	if (child == 0) {
		if (stops)
			raise(SIGSTOP);
		execvp(argv[1 + stops], argv + 1 + stops);
		return 127;
	}
	while (waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)) {
		fprintf(stderr, "stopped ");
		kill(child, SIGCONT);
	}
	fprintf(stderr, "ended\n");
	return 0;
}
