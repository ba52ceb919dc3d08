/* See screen.h. */
#include "run.h"

#include "screen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* In the background nothing tells us that we are in the foreground again. */
#define BACKGROUND_MS 500

/* Read, or changed, from the background a terminal stops whoever does. Not ours: it stops nobody. */
static bool in_foreground(const struct screen *screen)
{
	pid_t group = tcgetpgrp(screen->outer);

	return group < 0 || group == getpgrp();
}

bool open_screen(struct screen *screen, int standard[3])
{
	struct termios inner;
	char name[64];

	*screen = (struct screen){ .outer = -1, .typed = isatty(0) && is_slave(0) };
	for (int fd = 2; fd >= 0; fd--)
		if (isatty(fd) && is_slave(fd))
			screen->outer = fd;
	if (screen->outer < 0)
		return false;
	screen->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (screen->master < 0 || grantpt(screen->master) < 0 || unlockpt(screen->master) < 0 ||
	    ptsname_r(screen->master, name, sizeof(name)) != 0)
		die("/dev/ptmx");
	/* We keep it open: so it is never hung up while the program lives, whatever that closes. */
	screen->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (screen->slave < 0 || tcgetattr(screen->outer, &screen->before) < 0)
		die("pty");
	inner = screen->before;
	/* What nobody types on a terminal in raw mode is written for one that is not. */
	if (!screen->typed)
		inner.c_oflag &= ~OPOST;
	if (tcsetattr(screen->slave, TCSANOW, &inner) < 0)
		die("tcsetattr");
	screen_resize(screen);
	for (int fd = 0; fd <= 2; fd++)
		if (isatty(fd) && is_slave(fd))
			standard[fd] = screen->slave;
	return true;
}

void screen_resize(struct screen *screen)
{
	struct winsize size;

	/* The kernel tells the program, if it is another. */
	if (ioctl(screen->outer, TIOCGWINSZ, &size) == 0)
		ioctl(screen->master, TIOCSWINSZ, &size);
}

static void enter_raw(struct screen *screen)
{
	struct termios raw;

	/* Whoever had it meanwhile may have changed it. */
	if (tcgetattr(screen->outer, &screen->before) < 0)
		return;
	raw = screen->before;
	cfmakeraw(&raw);
	screen->raw = tcsetattr(screen->outer, TCSADRAIN, &raw) == 0;
}

int screen_waits(struct screen *screen, struct pollfd *waits)
{
	bool foreground = screen->typed && in_foreground(screen);

	if (foreground && !screen->raw)
		enter_raw(screen);
	if (!foreground)
		screen->raw = false;
	bool full = screen->pending > 0;
	waits[0] = (struct pollfd){ .fd = foreground && !full ? 0 : -1, .events = POLLIN };
	waits[1] = (struct pollfd){ .fd = screen->master, .events = POLLIN | (full ? POLLOUT : 0) };
	return screen->typed && !foreground ? BACKGROUND_MS : -1;
}

static void show(const struct screen *screen, const char *text, ssize_t length)
{
	while (length > 0) {
		ssize_t written = write(screen->outer, text, length);
		if (written < 0 && errno == EINTR)
			continue;
		/* Somebody made it so for us, too; it is shown all the same. */
		if (written < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){ .fd = screen->outer, .events = POLLOUT }, 1, -1);
			continue;
		}
		if (written < 0)
			return; /* hung up: nobody is there to see it */
		text += written;
		length -= written;
	}
}

/* False: there is no more now. */
static bool show_more(const struct screen *screen)
{
	char text[4096];
	ssize_t length = read(screen->master, text, sizeof(text));

	if (length > 0)
		show(screen, text, length);
	return length > 0;
}

void screen_pass(struct screen *screen, const struct pollfd *waits)
{
	if (waits[1].revents & (POLLIN | POLLHUP | POLLERR))
		show_more(screen);
	if (waits[0].revents) {
		ssize_t length = read(0, screen->typing, sizeof(screen->typing));
		if (length > 0) {
			screen->pending = length;
			screen->written = 0;
		} else if (length == 0 || (errno != EINTR && errno != EAGAIN)) {
			screen->typed = false; /* hung up */
		}
	}
	if (screen->pending > 0) {
		ssize_t written = write(screen->master, screen->typing + screen->written, screen->pending);
		if (written > 0) {
			screen->written += written;
			screen->pending -= written;
		}
	}
}

void screen_leave(struct screen *screen)
{
	while (show_more(screen))
		;
	if (screen->raw && in_foreground(screen))
		tcsetattr(screen->outer, TCSADRAIN, &screen->before);
	screen->raw = false;
}
