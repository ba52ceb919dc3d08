/*
 * What the two C delegators share: the command line, and the options of the bpffs that come of it.
 */
#include "within.h"

static pid_t pid;
static const char *path;
static const char *options[7][2] = {
	{ "uid" }, { "gid" }, { "mode", "0755" }, { "delegate_cmds" }, { "delegate_maps" }, { "delegate_progs" }, { "delegate_attachs" }
};

/* NAME PID PATH UID GID CMDS MAPS PROGS ATTACHS; false: it is something else. */
static inline int read_arguments(int argc, char **argv)
{
	if (argc != 9) {
		fprintf(stderr, "usage: %s PID PATH UID GID CMDS MAPS PROGS ATTACHS\n", argv[0]);
		return 0;
	}
	pid = atoi(argv[1]);
	path = argv[2];
	options[0][1] = argv[3];
	options[1][1] = argv[4];
	for (int i = 0; i < 4; i++)
		options[3 + i][1] = argv[5 + i];
	return 1;
}
