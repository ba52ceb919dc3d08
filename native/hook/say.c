/* See hook.h. */
#include "hook.h"

#include "../text.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Facility daemon, as syslog(3) numbers them. */
#define LOG_ERROR (3 << 3 | 3)
#define LOG_NOTE (3 << 3 | 5)

/* Who has no room for it does not hold up the container. */
static void log_line(int priority, const char *line)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	struct text text = { 0 };
	char head[64];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return;
	snprintf(head, sizeof(head), "<%d>bpftoken-hook[%d]: ", priority, getpid());
	put(&text, head);
	put(&text, line);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		send(fd, text.bytes, text.length, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

void say(bool failed, const char *container, const char *what, const char *more)
{
	struct text line = { 0 };

	put(&line, failed ? "container " : "note: container ");
	put_printable(&line, container);
	put(&line, failed ? " may not start: " : ": ");
	put_printable(&line, what);
	if (more) {
		put(&line, ". ");
		put_printable(&line, more);
	}
	dprintf(STDERR_FILENO, "bpftoken-hook: %s\n", line.bytes);
	log_line(failed ? LOG_ERROR : LOG_NOTE, line.bytes);
}
