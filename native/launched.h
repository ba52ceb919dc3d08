/*
 * bpftoken-launch as those see it who start it: bpftoken-run for root, and bpftoken-launchd for
 * whom the daemon says. launch.c has what is said between us.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct launched {
	pid_t launcher, program;
	int control, lifeline; /* our ends; of the second: -1 where it is somebody else's */
	bool shares_terminal;
};

struct to_launch {
	bool host_network;
	const char *kind; /* "job", "user" or "-" */
	char **command;
	const int *standard; /* descriptors that are its 0 to 2; NULL: ours */
	int lifeline; /* that it gets; -1: one whose other end we have */
};

/* Starts it. It is found beside us. */
struct launched launch(const struct to_launch *what);

/*
 * Waits for the namespaces, and has it become that user in them: inside user 0, or with `identity`
 * of the same id.
 */
void become_user(struct launched *launched, uid_t uid, gid_t gid, bool identity);

/* Whether its number is its own: its parent lives, and waits for it. */
bool is_program(const struct launched *launched);

/* What is said next, with a zero behind; 0: the end of file. It is waited for. */
size_t hear_launched(const struct launched *launched, char *text, size_t room);

void send_directory(const struct launched *launched, const char *directory);
void send_capabilities(const struct launched *launched, uint64_t capabilities);
/* `length` bytes of NAME=VALUE, each with a zero behind. It goes then. */
void send_environment(const struct launched *launched, const char *block, size_t length);

/* Tells what it said of a failure; nothing: that it ended. */
_Noreturn void fail_as_launched(const char *said);

/* Tells what failed and what helps, or NULL, and exits. Each program has its own way. */
_Noreturn void fail(const char *code, const char *message, const char *hint);
