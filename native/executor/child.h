/*
 * The executor's children: made before there is a plan, used for one, and never waited for without
 * end.
 */
#ifndef BPFTOKEN_EXECUTOR_CHILD_H
#define BPFTOKEN_EXECUTOR_CHILD_H

#include <stdbool.h>

struct child {
	int socket, pidfd, pid;
	bool *stack; /* what it was made on is in use, until it has said something */
};

/* What children are made of: our own program. False: it cannot be opened. */
bool know_executable(const char *path);

/* Makes those that are missing, as far as that goes. */
void refill(void);

/* The oldest of those that wait, else a new one. 0, or -errno. */
int take_spare(struct child *taken);

/* It has executed, or is dead: what it was made on is free. */
void free_stack(struct child *child);

/* Closes what we have of it; it ends by itself. */
void let_go(struct child *child);

/* Kills it. After this it begins no system call any more, dead or not. */
void end_child(struct child *child);

#endif
