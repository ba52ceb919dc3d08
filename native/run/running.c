/*
 * A program that bpftoken-launch has started for us: waits until it runs, passes signals on to it,
 * and what is typed and printed, and gives its exit status.
 */
#include "run.h"

#include "screen.h"

#include "../launched.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TO_GROUP 0x80

static const int FORWARDED[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH };

void await_start(const struct launched *launched, const struct options *options, const char *user)
{
	char said[1280], operation[128];
	size_t length = 0, more;
	int error;

	while (length < sizeof(said) - 1 && (more = hear_launched(launched, said + length, sizeof(said) - length)) > 0)
		length += more;
	const char *failure = said[0] == 'd' ? said + 1 : said;
	if (said[0] == 'd')
		note("", user, " may not enter the working directory: the program starts in /");
	if (*failure == 'r')
		fail("BPFTOKEN_FAILED", failure + 1, NULL);
	if (sscanf(failure, "e%127s %d", operation, &error) == 2 && strcmp(operation, "execve") == 0)
		fail_to_execute(options->command[0], error);
	if (*failure)
		fail_as_launched(failure);
}

/* From a terminal that it shares these reach it without us. */
static bool is_typed(int signal)
{
	return signal == SIGINT || signal == SIGQUIT || signal == SIGWINCH;
}

static void forward(const struct launched *launched, int signal)
{
	uint8_t number = signal;

	if (launched->shares_terminal && is_typed(signal))
		return;
	/* Of root's program the kernel has stopped the group, where it was that. */
	if ((is_typed(signal) && signal != SIGWINCH) || signal == SIGSTOP || (signal == SIGCONT && launched->launcher == 0))
		number |= TO_GROUP;
	/* That it has ended is said otherwise. */
	send(launched->lifeline, &number, 1, MSG_NOSIGNAL);
}

static void take(const struct launched *launched, struct screen *screen, int signal)
{
	if (screen && (signal == SIGWINCH || signal == SIGCONT))
		screen_resize(screen);
	/* Its terminal tells it. */
	if (screen && signal == SIGWINCH)
		return;
	if (signal == SIGTSTP) {
		/* It would not stop of that itself: see docs/run.md. */
		forward(launched, SIGSTOP);
		if (screen)
			screen_leave(screen);
		raise(SIGSTOP);
		return;
	}
	forward(launched, signal);
}

/*
 * Its status, from "exited N" or "killed N"; nothing is said where its watcher was killed, and it
 * with it.
 */
static int status_of(const char *said)
{
	int number;

	if (sscanf(said, "exited %d", &number) == 1)
		return number;
	return 128 + (sscanf(said, "killed %d", &number) == 1 ? number : SIGKILL);
}

int follow(const struct launched *launched, int signals, struct screen *screen)
{
	struct pollfd waits[2 + SCREEN_WAITS] = { { .fd = launched->lifeline, .events = POLLIN },
						  { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo came;
	char said[64] = "";
	size_t length = 0;

	while (!strchr(said, '\n')) {
		int patience = screen ? screen_waits(screen, waits + 2) : -1;
		if (poll(waits, screen ? 2 + SCREEN_WAITS : 2, patience) < 0) {
			if (errno != EINTR)
				die("poll");
			continue;
		}
		if (screen)
			screen_pass(screen, waits + 2);
		if (waits[1].revents && read(signals, &came, sizeof(came)) == sizeof(came))
			take(launched, screen, came.ssi_signo);
		if (!waits[0].revents)
			continue;
		ssize_t got = read(launched->lifeline, said + length, sizeof(said) - 1 - length);
		if (got <= 0)
			break;
		length += got;
		said[length] = 0;
	}
	if (screen)
		screen_leave(screen);
	while (launched->launcher > 0 && waitpid(launched->launcher, NULL, 0) < 0 && errno == EINTR)
		;
	return status_of(said);
}

int hold_signals(bool stops)
{
	sigset_t forwarded;

	sigemptyset(&forwarded);
	for (size_t i = 0; i < sizeof(FORWARDED) / sizeof(FORWARDED[0]); i++)
		sigaddset(&forwarded, FORWARDED[i]);
	if (stops)
		sigaddset(&forwarded, SIGTSTP);
	if (sigprocmask(SIG_BLOCK, &forwarded, NULL) < 0)
		die("sigprocmask");
	int signals = signalfd(-1, &forwarded, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("signalfd");
	return signals;
}
