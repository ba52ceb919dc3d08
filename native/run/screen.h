/*
 * A terminal of our own for a program that another session has: a pair of pty(7), of which the
 * program gets the one end, and ours is copied to the terminal that we have, and from it. So the
 * program has a controlling terminal and its shells have job control, and it never holds the
 * terminal of whoever started it: it cannot type into that, nor change it, nor can what it leaves
 * behind.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#define SCREEN_WAITS 2

struct screen {
	int outer, master, slave;
	bool typed; /* what is typed is ours to read */
	bool raw; /* and nothing is done with it on the way */
	struct termios before;
	char typing[4096];
	size_t pending, written; /* of `typing` */
};

/* True: one of ours is a terminal, and `standard` has the new one in its place. */
bool open_screen(struct screen *screen, int standard[3]);

/* What is to be waited for, and for how many milliseconds; -1: without end. */
int screen_waits(struct screen *screen, struct pollfd *waits);
void screen_pass(struct screen *screen, const struct pollfd *waits);
/* The size may be another. */
void screen_resize(struct screen *screen);
/* As it was before; what was printed before that is shown. */
void screen_leave(struct screen *screen);
