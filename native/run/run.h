/*
 * bpftoken-run: `bpftoken run` where the daemon lends, from the command line to the program.
 *
 *   bpftoken run --policy NAME [OPTIONS] -- PROGRAM [ARGUMENT...]
 *
 * For an ordinary user (own.c) it makes the namespaces as the user, asks bpftokend for the loan
 * with itself as who is lent to, leaves behind every capability that the policy does not lend, and
 * becomes PROGRAM. So there is no other process: whoever started it has PROGRAM itself, with its
 * signals, its terminal and its exit status, and what kills it before that leaves nothing. Where
 * the machine lets no user make namespaces, bpftoken-launchd does all that (apart.c), if the policy
 * says that it may.
 *
 * For root (root.c) PROGRAM runs as another user, and what stands between the two takes processes
 * of root's: it starts bpftoken-launch (../launch.c) and asks the daemon to lend to that.
 */
#pragma once

#include "../text.h"

#include "../launch.h"

#include <stdbool.h>
#include <stdint.h>

/* As src/errors.ts has them. */
enum exit_status { EXIT_FAILED = 1, EXIT_USAGE, EXIT_DENIED, EXIT_NOT_SUPPORTED, EXIT_UNREACHABLE };

/* ---- options.c ---- */

struct options {
	const char *policy, *path;
	const char *socket; /* NULL: where it is otherwise */
	const char *user; /* NULL: none is named; root alone may name one */
	bool keep_environment;
	bool for_root; /* it is root who has typed this */
	bool host_network;
	bool apart; /* root's launcher is to start it, also where we could */
	const char *forbidden; /* that it is to because we cannot: why; or NULL */
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
char **own_environment(const struct options *options, char **environment);

/* All of them, each with a zero behind, to be freed. */
char *block_of(char **environment, size_t *length);

struct user {
	uint32_t uid, gid;
	const char *name, *home, *shell;
};

/* Of root's only a short list, unless --keep-env, with what describes the user, and the same. */
char **user_environment(const struct options *options, const struct user *user, char **environment);

/* ---- user.c ---- */

/*
 * Whom root's program runs as, as src/cli/user.ts has it. False: that cannot be said here, for want
 * of an entry in /etc/passwd, or for what is wrong with what was given.
 */
bool find_user(const char *wanted, struct user *user);

/* ---- namespaces.c ---- */

/*
 * Enters namespaces of our own, as user 0 in them or (`identity`) with the id that we have. False:
 * this machine lets no ordinary user make any, and root may.
 */
bool own_namespaces(bool network, bool identity);

/* Why not, in words. */
const char *namespaces_forbidden(void);

/* ---- loan.c ---- */

/*
 * Has the loan put in place for `recipient`, which is JSON. Gives the capabilities that go with it.
 * Exits where it is refused. `reached` is where the place of the loan can be looked at from here;
 * NULL: nowhere.
 */
uint64_t borrow(const struct options *options, const char *recipient, const char *reached, int connection);

/* The socket of the daemon. */
const char *daemon_socket(const struct options *options);

/* ---- own.c, root.c, apart.c ---- */

/* Becomes the program. */
_Noreturn void run_as_user(const struct options *options, int connection, char **environment);

/* Runs the program as that user. Gives its exit status, 128 + n for signal n. */
int run_for_user(const struct options *options, const struct user *user, int connection, char **environment);

/* Has bpftoken-launchd run the program as the user that we are. Gives the same. */
int run_apart(const struct options *options, int connection, char **environment);

/* ---- running.c ---- */

struct launched;
struct screen;

/* Those that are for the program can be waited for from now on; with `stops` SIGTSTP, too. */
int hold_signals(bool stops);
/* Returns once it runs. */
void await_start(const struct launched *launched, const struct options *options, const char *user);
/* Until it ends; gives its exit status. `screen`: its terminal, where it has one of ours; or NULL. */
int follow(const struct launched *launched, int signals, struct screen *screen);

/* ---- tell.c ---- */

/* How failures are told; before it is said, in words. */
void tell_as(bool json, bool quiet);
/* What whoever typed it may want to know. `text` may be anybody's. */
void note(const char *before, const char *text, const char *after);
/* Tells what failed and what helps, which may be anybody's text or NULL, and exits. */
_Noreturn void fail(const char *code, const char *message, const char *hint);
/* The same for a program that cannot be run. */
_Noreturn void fail_to_execute(const char *name, int error);
