/*
 * A program that root runs as another user: bpftoken-launch makes its namespaces and becomes it;
 * here is what src/delegation/sandbox.ts is to it otherwise. ../launch.c has what is said between
 * us.
 */
#include "run.h"

#include "../launched.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t lend(const struct launched *launched, const struct options *options, int connection)
{
	char recipient[64], reached[PATH_MAX + 64];
	int pidfd = syscall(SYS_pidfd_open, launched->program, 0);

	if (pidfd < 0 || !is_program(launched))
		die("pidfd_open");
	snprintf(recipient, sizeof(recipient), "{\"pidfd\":%d}", pidfd);
	snprintf(reached, sizeof(reached), "/proc/%d/root%s", launched->program, options->path);
	uint64_t capabilities = borrow(options, recipient, reached, connection);
	close(pidfd);
	return capabilities;
}

int run_for_user(const struct options *options, const struct user *user, int connection, char **environment)
{
	environment = user_environment(options, user, environment);
	struct to_launch what = { .host_network = options->host_network, .kind = "job", .command = options->command, .lifeline = -1 };
	struct launched launched = launch(&what);
	become_user(&launched, user->uid, user->gid, options->identity);
	send_capabilities(&launched, options->capabilities | lend(&launched, options, connection));
	/* From here on signals are for the program; the launcher, until it has become it, dies of them. */
	int signals = hold_signals(false);
	size_t bytes;
	char *block = block_of(environment, &bytes);
	send_environment(&launched, block, bytes);
	free(block);
	await_start(&launched, options, user->name);
	return follow(&launched, signals, NULL);
}
