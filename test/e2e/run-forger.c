/*
 * Asks the daemon for a program that the launcher is to start, as bpftoken-run does, with something
 * wrong: run-forger SOCKET WHAT. Prints the first line of the answer. With "launcher" it only says
 * whether SOCKET, the launcher's, lets it connect.
 */
#define _GNU_SOURCE
#include "../../native/apart.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int is(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static int dial(const char *path, int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type, 0);

	strcpy(address.sun_path, path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? fd : -1;
}

static void give(int control, void *bytes, size_t length, const int *fds, size_t count)
{
	char space[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec part = { bytes, length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
	sendmsg(control, &message, 0);
}

/* A socket whose last close waits for a peer that reads nothing. */
static int lingering(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	struct linger linger = { 1, 600 };
	static const char bytes[1 << 16];
	int listening = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);

	bind(listening, (struct sockaddr *)&address, length);
	listen(listening, 1);
	getsockname(listening, (struct sockaddr *)&address, &length);
	connect(fd, (struct sockaddr *)&address, length);
	accept(listening, NULL, NULL);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		continue;
	return fd;
}

/* Asks the launcher itself, as the daemon would, for that user: as often as given, and says how often it agreed. */
static int crowd(const char *launcher, uid_t uid, int count)
{
	static const char texts[] = "/\0echo\0ran";
	int alive[2], agreed = 0;
	char answer[2048];

	pipe(alive);
	pid_t asker = fork();
	if (asker == 0) {
		close(alive[1]);
		if (setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0)
			read(alive[0], answer, 1);
		_exit(0);
	}
	usleep(100000);
	int pidfd = syscall(SYS_pidfd_open, asker, 0), memfd = memfd_create("texts", MFD_ALLOW_SEALING);
	write(memfd, texts, sizeof(texts));
	for (int i = 0; i < count; i++) {
		int control[2], lifeline[2], daemon = dial(launcher, SOCK_SEQPACKET);
		struct apart_request request = { APART_VERSION, 0, uid, uid };
		struct apart_head head = { APART_VERSION, sizeof(texts), 2, 0 };

		setresuid(-1, uid, 0);
		socketpair(AF_UNIX, SOCK_STREAM, 0, control);
		socketpair(AF_UNIX, SOCK_STREAM, 0, lifeline);
		setresuid(-1, 0, -1);
		give(control[0], &head, sizeof(head), (int[]){ memfd, lifeline[1], 0, 1, 2 }, 5);
		give(daemon, &request, sizeof(request), (int[]){ pidfd, control[1] }, 2);
		ssize_t length = read(daemon, answer, sizeof(answer) - 1);
		answer[length < 0 ? 0 : length] = 0;
		agreed += is(answer, "p");
		if (!is(answer, "p") && i == count - 1)
			printf("%s\n", answer);
		/* What is open stays open. */
	}
	printf("%d\n", agreed);
	fflush(stdout);
	return read(0, answer, 1) < 0;
}

int main(int argc, char **argv)
{
	static const char texts[] = "/\0echo\0ran";
	const char *what = argc > 2 ? argv[2] : "";
	int control[2], lifeline[2], file = open("/etc/passwd", O_RDONLY);
	char body[512], line[256] = "";

	if (is(what, "launcher")) {
		puts(dial(argv[1], SOCK_SEQPACKET) < 0 ? "refused" : "connected");
		return 0;
	}
	if (is(what, "crowd"))
		return crowd(argv[1], atoi(argv[3]), atoi(argv[4]));
	int memfd = memfd_create("texts", MFD_ALLOW_SEALING);
	socketpair(AF_UNIX, is(what, "kind") ? SOCK_DGRAM : SOCK_STREAM, 0, control);
	socketpair(AF_UNIX, SOCK_STREAM, 0, lifeline);
	struct apart_head head = { APART_VERSION, sizeof(texts), 2, 0 };
	int fds[] = { memfd, lifeline[1], 0, 1, 2, 2 };
	size_t count = is(what, "few") ? 3 : is(what, "many") ? 6 : 5;
	int number = is(what, "file") ? file : is(what, "none") ? 99 : is(what, "pidfd") ? (int)syscall(SYS_pidfd_open, getpid(), 0) : control[1];

	if (is(what, "linger"))
		number = lingering();
	if (write(memfd, texts, sizeof(texts)) != sizeof(texts))
		return 1;
	if (is(what, "words"))
		head.words = 3;
	if (is(what, "length"))
		head.bytes = 4;
	if (is(what, "huge"))
		head.bytes = head.words = ~0u;
	if (is(what, "version"))
		head.version = 7;
	if (is(what, "texts"))
		fds[0] = file;
	if (is(what, "lifeline"))
		fds[1] = file;
	/* The daemon's: what is written there is root's words to it. */
	if (is(what, "foreign-lifeline"))
		fds[1] = dial(argv[1], SOCK_STREAM);
	if (is(what, "foreign-control"))
		number = dial(argv[1], SOCK_STREAM);
	if (!is(what, "silent"))
		give(control[0], &head, sizeof(head), fds, count);
	int length = snprintf(body, sizeof(body),
			      "{\"policy\":{\"name\":\"dev\"},\"place\":{\"path\":\"/sys/fs/bpf\"},"
			      "\"recipient\":{\"launch\":{\"control\":%d,\"network\":\"own\",\"identity\":false}}}",
			      number);
	int daemon = dial(argv[1], SOCK_STREAM);
	dprintf(daemon, "POST /v1/loans HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", length, body);
	if (is(what, "linger")) {
		/* The daemon has it then; the end of our input says when to go. */
		puts("asked");
		fflush(stdout);
		if (read(0, line, 1) != 1)
			return 1;
		close(number);
		puts("closed");
		fflush(stdout);
		return read(0, line, 1) < 0;
	}
	if (read(daemon, line, sizeof(line) - 1) > 0)
		printf("%.*s\n", (int)strcspn(line, "\r\n"), line);
	close(control[1]);
	if (is(what, "idle")) {
		/* It has the loan, and never says that it may go. */
		fflush(stdout);
		ssize_t heard = recv(control[0], line, sizeof(line) - 1, 0);
		line[heard < 0 ? 0 : heard] = 0;
		puts(line);
		return 0;
	}
	send(control[0], is(what, "word") ? "x" : "s", 1, MSG_NOSIGNAL);
	if (is(what, "word"))
		return recv(control[0], line, sizeof(line) - 1, 0) > 0 ? puts(line) < 0 : 0;
	if (is(what, "good"))
		while (read(lifeline[0], line, sizeof(line)) > 0 && !strchr(line, '\n'))
			continue;
	return 0;
}
