/*
 * bpftoken-rest: ends what a workload leaves behind.
 *
 *   bpftoken-rest CGROUP
 *
 * Started by bpftoken. Says 'r' on standard output once it is ready. bpftoken holds the other end
 * of its standard input and never writes there: when that end closes, because the program has ended
 * or because bpftoken has, whatever it died of, every process in the cgroup is killed. Exits with 0
 * once they are gone and the cgroup with them. A cgroup has no way out for who may not write to
 * others: neither a second fork nor a session of its own is one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_empty(int events)
{
	char text[256];
	ssize_t length = pread(events, text, sizeof(text) - 1, 0);

	if (length < 0)
		return errno == ENODEV; /* somebody removed it */
	text[length] = 0;
	return strstr(text, "populated 0") != NULL;
}

int main(int argc, char **argv)
{
	char byte;
	sigset_t all;

	if (argc != 2 || argv[1][0] != '/') {
		fputs("bpftoken-rest is started by bpftoken run, not by hand\n", stderr);
		return 2;
	}
	/* What ends bpftoken must not end us before our work is done. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	syscall(SYS_close_range, 3, ~0u, 0);
	if (chdir(argv[1]) < 0)
		return 1;
	int kill = open("cgroup.kill", O_WRONLY | O_CLOEXEC);
	struct pollfd events = { .fd = open("cgroup.events", O_RDONLY | O_CLOEXEC), .events = POLLPRI };
	if (kill < 0 || events.fd < 0 || write(STDOUT_FILENO, "r", 1) != 1)
		return 1;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	if (write(kill, "1", 1) != 1 && errno != ENODEV)
		return 1;
	while (!is_empty(events.fd))
		poll(&events, 1, -1);
	return chdir("/") < 0 || (rmdir(argv[1]) < 0 && errno != ENOENT);
}
