/* See daemon.h. */
#include "daemon.h"

#include "http.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Pages of these that no answer reaches cost nothing. */
static char bytes[ANSWER_MAX + 1];
static struct json values[ANSWER_VALUES];

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int daemon_connect(const char *path, int timeout_ms)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	/* Who waits to be accepted waits in connect(2), as long as it may take to send. */
	struct timeval timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) == 0 &&
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Waits until the connection is ready for `events`. */
static enum daemon_failure wait_for(int connection, short events, int64_t deadline, int wake)
{
	struct pollfd waits[] = { { .fd = connection, .events = events }, { .fd = wake, .events = POLLIN } };

	for (;;) {
		int64_t left = deadline - now_ms();
		if (left <= 0)
			return DAEMON_LATE;
		int ready = poll(waits, 2, left < INT32_MAX ? left : INT32_MAX);
		if (ready < 0 && errno != EINTR)
			return DAEMON_ERRNO;
		if (ready > 0 && waits[1].revents) {
			errno = EINTR;
			return DAEMON_ERRNO;
		}
		if (ready > 0)
			return DAEMON_OK;
	}
}

/* Head and body, in one piece as far as the socket takes it: whoever hears it wakes once. */
static enum daemon_failure send_all(int connection, struct iovec parts[2], int64_t deadline, int wake)
{
	while (parts[0].iov_len + parts[1].iov_len > 0) {
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
		ssize_t sent = sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN) {
			enum daemon_failure failure = wait_for(connection, POLLOUT, deadline, wake);
			if (failure != DAEMON_OK)
				return failure;
			continue;
		}
		/* It may have answered all the same, and says why it listens no more. */
		if (sent < 0)
			return errno == EPIPE || errno == ECONNRESET ? DAEMON_GONE : DAEMON_ERRNO;
		for (int i = 0; i < 2; i++) {
			size_t gone = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
			parts[i].iov_base = (char *)parts[i].iov_base + gone;
			parts[i].iov_len -= gone;
			sent -= gone;
		}
	}
	return DAEMON_OK;
}

static enum daemon_failure receive(int connection, int64_t deadline, int wake, struct http_answer *answer)
{
	size_t length = 0;

	for (;;) {
		enum daemon_failure failure = wait_for(connection, POLLIN, deadline, wake);
		if (failure != DAEMON_OK)
			return failure;
		ssize_t got = recv(connection, bytes + length, ANSWER_MAX - length, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got < 0)
			return errno == ECONNRESET ? DAEMON_GONE : DAEMON_ERRNO;
		length += got;
		if (length == 0)
			return DAEMON_GONE;
		switch (http_read(bytes, length, got == 0, answer)) {
		case HTTP_WHOLE:
			return DAEMON_OK;
		case HTTP_BAD:
			return got == 0 ? DAEMON_GONE : DAEMON_GARBLED;
		case HTTP_MORE:
			if (length == ANSWER_MAX)
				return DAEMON_TOO_LONG;
		}
	}
}

static enum daemon_failure exchange(int connection, const char *method, const char *path, const char *body,
				    int64_t deadline, int wake, struct http_answer *answer)
{
	char head[512];
	size_t length = body ? strlen(body) : 0;
	size_t head_length = http_head(head, sizeof(head), method, path, length);

	if (head_length == 0) {
		errno = ENAMETOOLONG;
		return DAEMON_ERRNO;
	}
	struct iovec parts[] = { { head, head_length }, { (char *)body, length } };
	enum daemon_failure failure = send_all(connection, parts, deadline, wake);
	/* A refusal can come before all was heard. */
	return failure == DAEMON_OK || failure == DAEMON_GONE ? receive(connection, deadline, wake, answer) : failure;
}

enum daemon_failure daemon_ask(int connection, const char *method, const char *path, const char *body,
			       int timeout_ms, int wake, struct daemon_answer *answer)
{
	struct http_answer http;
	enum daemon_failure failure = exchange(connection, method, path, body, now_ms() + timeout_ms, wake, &http);
	int error = errno;

	close(connection);
	errno = error;
	if (failure != DAEMON_OK)
		return failure;
	answer->status = http.status;
	answer->document = json_read(http.body, http.length, values, ANSWER_VALUES) > 0 ? values : NULL;
	return DAEMON_OK;
}
