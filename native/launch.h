/* The parts of bpftoken-launch; bpftoken-run is made of some of them, too. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Descriptors to bpftoken: see launch.c. */
#define CONTROL 3
#define LIFELINE 4

/*
 * Tells bpftoken, or in bpftoken-run whoever typed it, that `operation` failed with errno, and
 * exits.
 */
_Noreturn void die(const char *operation);
_Noreturn void refuse(const char *operation, int error);

/* loopback.c: that of the network namespace that we are in */
void loopback_up(void);

/*
 * capabilities.c: the bit of the capability of that name, in either case, CAP_ or not; 0: there is
 * none.
 */
uint64_t capability_named(const char *name, size_t length);
/* Drops all others for good. With `ambient` a program keeps them that is executed as no root. */
void keep_only(uint64_t caps, bool ambient);

/* terminal.c */
bool has_terminal(void);
/* The end of a terminal that programs look at, not the one where they are typed to. */
bool is_slave(int fd);
/* One that is of no session becomes that of ours, which we have just begun. */
void take_terminal(void);
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
