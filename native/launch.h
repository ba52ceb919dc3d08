/* The parts of bpftoken-launch. */
#pragma once

#include <stdbool.h>

/* Descriptors to bpftoken: see launch.c. */
#define CONTROL 3
#define LIFELINE 4

/* Tells bpftoken that `operation` failed with errno, and exits. */
_Noreturn void die(const char *operation);
_Noreturn void refuse(const char *operation, int error);

/* terminal.c */
bool has_terminal(void);
void keep_from_typing(void);

/*
 * program.c: becomes the program, or gives an errno: ENOENT where there is none, as env(1) has it.
 */
int execute(char **argv, char **environment);

/*
 * watch.c: forks, and returns in the child, which becomes the program. The parent never returns: it
 * makes the cgroup (or none: NULL) that the child is in, and stays to watch. With `stops_caller` it
 * stops its own parent when the program stops.
 */
void fork_from_watcher(const char *cgroup, bool stops_caller);
