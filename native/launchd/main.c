/* Listens, and has each request served by a process of its own: see launchd.h. */
#include "launchd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOCKET "/run/bpftoken/launch.sock"
#define FIRST_PASSED 3
#define BACKLOG 64

_Noreturn static void give_up(const char *what)
{
	fprintf(stderr, "bpftoken-launchd: %s: %s\n", what, strerror(errno));
	exit(errno == EPERM ? 4 : 1);
}

/* The socket that systemd has opened; -1: none. */
static int passed_socket(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	if (!pid || !count || strtol(pid, NULL, 10) != getpid() || strcmp(count, "1") != 0)
		return -1;
	if (!is_unix_socket(FIRST_PASSED, SOCK_SEQPACKET)) {
		errno = ENOTSOCK;
		give_up("what systemd hands over");
	}
	return FIRST_PASSED;
}

/* True: somebody answers there, or it is no socket. */
static bool is_taken(const struct sockaddr_un *address)
{
	struct stat there;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (lstat(address->sun_path, &there) < 0) {
		close(fd);
		return errno != ENOENT;
	}
	bool refused = S_ISSOCK(there.st_mode) && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
		       errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

/* Root alone can connect. */
static int own_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (path[0] != '/' || strlen(path) >= sizeof(address.sun_path)) {
		errno = EINVAL;
		give_up(path);
	}
	strcpy(address.sun_path, path);
	if (strcmp(path, SOCKET) == 0 && mkdir("/run/bpftoken", 0755) < 0 && errno != EEXIST)
		give_up("/run/bpftoken");
	if (is_taken(&address)) {
		errno = EADDRINUSE;
		give_up(path);
	}
	unlink(path);
	mode_t before = umask(0177);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0)
		give_up(path);
	umask(before);
	return fd;
}

/* The file system lets root alone connect; where somebody has changed that, we do not. */
static bool is_root(int connection)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == 0;
}

static void start(int listening, int children, int seat)
{
	int connection = accept4(listening, NULL, NULL, SOCK_CLOEXEC);

	if (connection < 0)
		return;
	pid_t child = is_root(connection) ? fork() : -1;
	if (child == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		close(listening);
		close(children);
		serve(connection, seat);
	}
	close(connection);
	if (child > 0)
		seat_process(seat, child);
}

static void reap(void)
{
	for (pid_t ended; (ended = waitpid(-1, NULL, WNOHANG)) > 0;)
		leave_seat(ended);
}

static int hold_children(void)
{
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	if (signal(SIGCHLD, SIG_DFL) == SIG_ERR || sigprocmask(SIG_SETMASK, &child, NULL) < 0)
		give_up("sigprocmask");
	int children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (children < 0)
		give_up("signalfd");
	return children;
}

int main(int argc, char **argv)
{
	bool named = argc == 3 && strcmp(argv[1], "--socket") == 0;
	const char *path = named ? argv[2] : SOCKET;
	struct signalfd_siginfo ignored;

	if (argc != 1 && !named) {
		fputs("usage: bpftoken-launchd [--socket FILE]\n", stderr);
		return 2;
	}
	if (geteuid() != 0) {
		errno = EPERM;
		give_up("it starts programs of other users");
	}
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			give_up("/dev/null");
	int listening = passed_socket();
	if (listening < 0)
		listening = own_socket(path);
	if (fcntl(listening, F_SETFD, FD_CLOEXEC) < 0 || fcntl(listening, F_SETFL, O_NONBLOCK) < 0)
		give_up("fcntl");
	if (syscall(SYS_close_range, listening == FIRST_PASSED ? FIRST_PASSED + 1 : listening + 1, ~0u, 0) < 0)
		give_up("close_range");
	int children = hold_children();
	if (make_seats() < 0)
		give_up("mmap");
	for (;;) {
		int seat = free_seat();
		struct pollfd waits[] = { { .fd = children, .events = POLLIN },
					  { .fd = seat >= 0 ? listening : -1, .events = POLLIN } };
		if (poll(waits, 2, -1) < 0 && errno != EINTR)
			give_up("poll");
		while (read(children, &ignored, sizeof(ignored)) > 0)
			continue;
		reap();
		if (waits[1].revents)
			start(listening, children, seat);
	}
}
