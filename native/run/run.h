/*
 * bpftoken-run: `bpftoken run` of an ordinary user, from the command line to the program.
 *
 *   bpftoken run --policy NAME [OPTIONS] -- PROGRAM [ARGUMENT...]
 *
 * It makes the namespaces as the user, asks bpftokend for the loan with itself as who is lent to,
 * leaves behind every capability that the policy does not lend, and becomes PROGRAM. So there is no
 * other process: whoever started it has PROGRAM itself, with its signals, its terminal and its exit
 * status, and what kills it before that leaves nothing. (Run by root it is another matter: what
 * stands between root and the program needs a process of root's, see ../launch.c.)
 */
#pragma once

#include "../launch.h"

#include <stdbool.h>
#include <stdint.h>

/* As src/errors.ts has them. */
enum exit_status { EXIT_FAILED = 1, EXIT_USAGE, EXIT_DENIED, EXIT_NOT_SUPPORTED, EXIT_UNREACHABLE };

/* ---- text.c ---- */

/* Text in a buffer; what has no room is left out. */
struct text {
	char bytes[8192];
	size_t length;
};

void put(struct text *text, const char *more);
/* The same of text that may be anybody's: what is not printable ASCII as \u{...}. */
void put_printable(struct text *text, const char *more);
/* Its errno by name. */
const char *errno_name(int error);

/* ---- options.c ---- */

struct options {
	const char *policy, *path;
	bool host_network;
	bool identity; /* the program sees the user's own id, and not root's */
	bool quiet, json;
	uint64_t capabilities; /* beyond those of the policy */
	char **named; /* NAME=VALUE or NAME; a NULL behind the last */
	char **command;
};

enum parsed {
	PARSED,
	UNKNOWN, /* there is something that is not known here */
	WRONG, /* `said` is what is wrong */
};

/* Words behind `run`. `named` has room for all of them. */
enum parsed parse_options(char **words, char **named, struct options *options, struct text *said);

/* ---- environment.c ---- */

/* The variables of the caller, all of them, with those that are named and the place of the loan. */
char **program_environment(const struct options *options, char **environment);

/* ---- namespaces.c ---- */

/* Enters namespaces of our own, as user 0 in them or (`identity`) with the id that we have. */
void own_namespaces(bool network, bool identity);

/* ---- loan.c ---- */

/*
 * Has the loan put in place for ourselves. Gives the capabilities that go with it. Exits where it
 * is refused.
 */
uint64_t borrow(const struct options *options, const char *socket, int connection);

/* ---- tell.c ---- */

/* How failures are told; before it is said, in words. */
void tell_as(bool json, bool quiet);
/* What whoever typed it may want to know. `text` may be anybody's. */
void note(const char *before, const char *text, const char *after);
/* Tells what failed and what helps, which may be anybody's text or NULL, and exits. */
_Noreturn void fail(const char *code, const char *message, const char *hint);
/* The same for a program that cannot be run. */
_Noreturn void fail_to_execute(const char *name, int error);
