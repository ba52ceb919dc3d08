/*
 * What stays of bpftoken-launch: the parent of the program, still root, in a session of its own.
 *
 * It is the one that ends the program, and with a cgroup all that the program leaves behind, when
 * bpftoken ends, whatever that dies of: no exec of the program's can undo that, as it can undo
 * PR_SET_PDEATHSIG. It needs no bpftoken for it, which the program may be able to stop by way of
 * the terminal. It has every signal blocked, and another session than bpftoken and the program, so
 * that what ends their process group does not end it before its work is done.
 *
 * The program is waited for last: until then its number, by which it is signalled, is its own.
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct cgroup {
	const char *path; /* NULL: the program stays in ours */
	int kill, events;
};

static int open_in(int directory, const char *name, int flags)
{
	return openat(directory, name, flags | O_CLOEXEC);
}

/* Makes the cgroup, and puts the program into it. */
static struct cgroup make_cgroup(const char *path, pid_t program)
{
	if (mkdir(path, 0755) < 0)
		die("mkdir");
	int directory = open(path, O_DIRECTORY | O_CLOEXEC);
	struct cgroup cgroup = {
		.path = path,
		.kill = open_in(directory, "cgroup.kill", O_WRONLY),
		.events = open_in(directory, "cgroup.events", O_RDONLY),
	};
	const char *failed = cgroup.kill < 0 || cgroup.events < 0 ? "cgroup.kill" : "cgroup.procs";
	int procs = cgroup.kill < 0 || cgroup.events < 0 ? -1 : open_in(directory, "cgroup.procs", O_WRONLY);

	if (procs < 0 || dprintf(procs, "%d", program) < 0) {
		int error = errno;
		rmdir(path);
		refuse(failed, error);
	}
	close(procs);
	close(directory);
	return cgroup;
}

static bool is_empty(int events)
{
	char text[256];
	ssize_t length = pread(events, text, sizeof(text) - 1, 0);

	if (length < 0)
		return errno == ENODEV; /* somebody removed it */
	text[length] = 0;
	return strstr(text, "populated 0") != NULL;
}

/* Whether all that was in it is gone, and the cgroup with it. */
static bool end_cgroup(const struct cgroup *cgroup)
{
	struct pollfd events = { .fd = cgroup->events, .events = POLLPRI };

	if (write(cgroup->kill, "1", 1) != 1 && errno != ENODEV)
		return false;
	while (!is_empty(events.fd))
		poll(&events, 1, -1);
	return rmdir(cgroup->path) == 0 || errno == ENOENT;
}

/* Passes on what bpftoken has to say: see launch.c. False: it is gone. */
static bool pass_signals(pid_t program)
{
	uint8_t numbers[64];
	ssize_t count = recv(LIFELINE, numbers, sizeof(numbers), MSG_DONTWAIT);

	/* Where a user gave it, that user can have taken away what was there to be read. */
	if (count < 0 && errno == EAGAIN)
		return true;

	for (ssize_t i = 0; i < count; i++) {
		int number = numbers[i] & 0x7f;
		/* Before it leads a group there is only itself. */
		if (!(numbers[i] & 0x80) || kill(-program, number) < 0)
			kill(program, number);
	}
	return count > 0;
}

/* Where the program ended, it is still there to be waited for. */
static bool has_ended(pid_t program, siginfo_t *how)
{
	how->si_pid = 0;
	return waitid(P_PID, program, how, WEXITED | WNOWAIT | WNOHANG) < 0 || how->si_pid != 0;
}

/*
 * As sudo(8) does: a shell that waits for bpftoken has to see that its job stopped, whoever stopped
 * it. What the kernel stopped by itself, on Ctrl-Z, is stopped already. `caller` is a pidfd.
 */
static void stop_together(pid_t program, int caller)
{
	siginfo_t how = { 0 };

	if (waitid(P_PID, program, &how, WSTOPPED | WNOHANG) == 0 && how.si_pid != 0 && caller >= 0)
		syscall(SYS_pidfd_send_signal, caller, SIGSTOP, NULL, 0);
}

/* A pidfd of our parent; -1: it has ended. */
static int open_caller(void)
{
	pid_t parent = getppid();
	int caller = syscall(SYS_pidfd_open, parent, 0);

	return caller >= 0 && getppid() == parent ? caller : -1;
}

static void let_go_of_descriptors(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		die("/dev/null");
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null, fd) < 0)
			die("dup2");
}

_Noreturn static void watch(pid_t program, const struct cgroup *cgroup, int children, int caller)
{
	struct pollfd waits[] = { { .fd = LIFELINE, .events = POLLIN }, { .fd = children, .events = POLLIN } };
	struct signalfd_siginfo child;
	siginfo_t how = { 0 };

	while (!has_ended(program, &how)) {
		poll(waits, 2, -1);
		if (waits[0].revents && !pass_signals(program)) {
			kill(program, SIGKILL);
			waits[0].fd = -1;
		}
		if (waits[1].revents && read(children, &child, sizeof(child)) > 0)
			stop_together(program, caller);
	}
	char text[32];
	int length = snprintf(text, sizeof(text), "%s %d\n", how.si_code == CLD_EXITED ? "exited" : "killed",
			      how.si_status);
	send(LIFELINE, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	waitpid(program, NULL, 0);
	_exit(cgroup->path && !end_cgroup(cgroup));
}

void fork_from_watcher(const char *path, bool stops_caller)
{
	struct cgroup cgroup = { 0 };
	sigset_t all, before, child;
	int ready[2];
	char byte;

	sigfillset(&all);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	/* Our caller may have it ignored, and then nobody could be waited for. */
	if (sigprocmask(SIG_SETMASK, &all, &before) < 0 || signal(SIGCHLD, SIG_DFL) == SIG_ERR)
		die("sigprocmask");
	int children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (children < 0 || pipe2(ready, O_CLOEXEC) < 0)
		die("pipe2");
	pid_t watcher = getpid(), program = fork();
	if (program < 0)
		die("fork");
	if (program == 0) {
		close(ready[1]);
		/* A watcher that is killed must not leave us without one. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			die("PR_SET_PDEATHSIG");
		if (read(ready[0], &byte, 1) != 1 || getppid() != watcher)
			_exit(125);
		close(ready[0]);
		close(children);
		close(LIFELINE);
		sigprocmask(SIG_SETMASK, &before, NULL);
		return;
	}
	int caller = stops_caller ? open_caller() : -1;
	if (setsid() < 0)
		die("setsid");
	let_go_of_descriptors();
	if (chdir("/") < 0)
		die("chdir");
	if (path)
		cgroup = make_cgroup(path, program);
	/* From here on it is the program that is heard. */
	close(CONTROL);
	if (write(ready[1], "r", 1) != 1)
		kill(program, SIGKILL);
	close(ready[0]);
	close(ready[1]);
	watch(program, &cgroup, children, caller);
}
