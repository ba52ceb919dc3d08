/*
 * bpftoken-hold: runs a command, and holds those of its threads that the recorder asks to be held,
 * so that `bpftoken explain -- CMD` can look at a process which would end at once.
 *
 *   bpftoken-hold COMMAND ARGUMENT...
 *
 * All that the command forks is seized by ptrace(2). A thread whose call of bpf(2) was refused gets
 * SIGURG by bpf/recorder/hold.h on its way out of the kernel, and stops before that is delivered.
 * That stop is seen by nobody else: not by a parent that waits with WUNTRACED, such as su(1), nor by
 * a shell. It ends when the number of the thread is said on descriptor 3, and then there was no
 * signal; or when its time is over. What is stopped otherwise, and other signals, are as without us.
 *
 * If this process ends, whatever it dies of, the kernel lets go of all that it has seized. They get
 * the signal then, which does nothing by default.
 *
 * On descriptor 3 it says "held" or "free ERRNO" first, and "cannot ERRNO" of a command that cannot
 * be run. Where that is closed by the other side, it ends. Its status is that of the command.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL = 3, HELD_MAX = 64, HOLD_MS = 2000, HEARD_MAX = 64 };

/* Musl has these by another name. */
#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

static struct {
	pid_t thread; /* 0: this place is free */
	long until;
} held[HELD_MAX];

/* Threads that were let go before they were seen to stop: what is said here may be faster. */
static pid_t heard[HEARD_MAX];

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void say(const char *what, int number)
{
	char text[64];
	int length = snprintf(text, sizeof(text), number ? "%s %d\n" : "%s\n", what, number);

	send(CONTROL, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void go_on(pid_t thread, int signal)
{
	ptrace(PTRACE_CONT, thread, 0, (long)signal);
}

/* Whether it was let go already; then that is forgotten. */
static bool was_heard(pid_t thread)
{
	for (int i = 0; i < HEARD_MAX; i++) {
		if (heard[i] != thread)
			continue;
		heard[i] = 0;
		return true;
	}
	return false;
}

/* False: it is not held, for want of room. */
static bool hold(pid_t thread)
{
	for (int i = 0; i < HELD_MAX; i++) {
		if (held[i].thread)
			continue;
		held[i].thread = thread;
		held[i].until = now_ms() + HOLD_MS;
		return true;
	}
	return false;
}

static bool forget(pid_t thread)
{
	for (int i = 0; i < HELD_MAX; i++) {
		if (held[i].thread != thread)
			continue;
		held[i].thread = 0;
		return true;
	}
	return false;
}

static void let_go(pid_t thread)
{
	static unsigned int next;

	if (forget(thread))
		go_on(thread, 0);
	else
		heard[next++ % HEARD_MAX] = thread;
}

/* How long there is nothing to be done, in milliseconds; -1: for ever. What is over gets its signal: it may be real. */
static int end_holds(void)
{
	long now = now_ms(), least = -1;

	for (int i = 0; i < HELD_MAX; i++) {
		if (!held[i].thread)
			continue;
		long left = held[i].until - now;
		if (left <= 0) {
			go_on(held[i].thread, SIGURG);
			held[i].thread = 0;
		} else if (least < 0 || left < least) {
			least = left;
		}
	}
	return least;
}

static bool holds_any(void)
{
	for (int i = 0; i < HELD_MAX; i++)
		if (held[i].thread)
			return true;
	return false;
}

static bool stops_group(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* The recorder's signal is the kernel's own, as no other process can send it. Urgent data of a socket are, too. */
static bool is_recorders(pid_t thread)
{
	siginfo_t info;

	return ptrace(PTRACE_GETSIGINFO, thread, 0, &info) == 0 && info.si_code == SI_KERNEL;
}

static void stopped(pid_t thread, int status)
{
	int signal = WSTOPSIG(status), event = status >> 16;

	if (event == PTRACE_EVENT_STOP && stops_group(signal))
		ptrace(PTRACE_LISTEN, thread, 0, 0L);
	else if (event)
		go_on(thread, 0);
	else if (signal != SIGURG || !is_recorders(thread))
		go_on(thread, signal);
	else if (was_heard(thread))
		go_on(thread, 0);
	else if (!hold(thread))
		go_on(thread, signal);
}

/* Numbers of threads, one a line. False: the other side has ended. */
static bool hear(void)
{
	static char line[16];
	static unsigned int length;
	char bytes[256];
	ssize_t count = recv(CONTROL, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (count < 0)
		return errno == EAGAIN || errno == EINTR;
	for (ssize_t i = 0; i < count; i++) {
		if (bytes[i] != '\n') {
			line[length < sizeof(line) - 1 ? length++ : length] = bytes[i];
			continue;
		}
		line[length] = 0;
		length = 0;
		let_go(atoi(line));
	}
	return count > 0;
}

/* What was sent to us alone is meant for the command; what is typed, it gets itself. */
static void pass_on(int signals, pid_t command)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD && info.ssi_code <= 0)
			kill(command, info.ssi_signo);
}

/* The status that this process ends with. */
static int watch(pid_t command, int signals)
{
	struct pollfd waits[] = { { .fd = CONTROL, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	int status, ended = -1;

	for (;;) {
		pid_t thread;

		while ((thread = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
			if (WIFSTOPPED(status)) {
				stopped(thread, status);
				continue;
			}
			forget(thread);
			was_heard(thread);
			if (thread == command)
				ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		int rest = end_holds();
		if (ended >= 0 && !holds_any())
			return ended;
		poll(waits, 2, rest);
		if (waits[0].revents && !hear())
			return ended < 0 ? 1 : ended;
		pass_on(signals, command);
	}
}

int main(int argc, char **argv)
{
	static const int PASSED[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD };
	sigset_t passed, before;
	int gate[2];
	char byte;

	if (argc < 2 || fcntl(CONTROL, F_SETFD, FD_CLOEXEC) < 0) {
		dprintf(STDERR_FILENO, "bpftoken-hold is started by bpftoken explain, not by hand\n");
		return 2;
	}
	sigemptyset(&passed);
	for (unsigned int i = 0; i < sizeof(PASSED) / sizeof(*PASSED); i++)
		sigaddset(&passed, PASSED[i]);
	signal(SIGCHLD, SIG_DFL);
	if (sigprocmask(SIG_BLOCK, &passed, &before) < 0 || pipe2(gate, O_CLOEXEC) < 0)
		return 126;
	int signals = signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK);
	pid_t command = fork();
	if (command < 0 || signals < 0)
		return 126;
	if (command == 0) {
		close(gate[1]);
		/* Where we are gone, nobody is there who would have it run. */
		if (read(gate[0], &byte, 1) != 1)
			_exit(126);
		sigprocmask(SIG_SETMASK, &before, NULL);
		execvp(argv[1], argv + 1);
		say("cannot", errno);
		_exit(127);
	}
	close(gate[0]);
	long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
	if (ptrace(PTRACE_SEIZE, command, 0, options) < 0)
		say("free", errno);
	else
		say("held", 0);
	if (write(gate[1], "r", 1) != 1)
		return 126;
	close(gate[1]);
	return watch(command, signals);
}
