/* A program of the user's own: we become it. */
#include "run.h"

#include <sys/prctl.h>
#include <unistd.h>

void run_as_user(const struct options *options, int connection, char **environment)
{
	struct options apart = *options;

	if (options->apart)
		_exit(run_apart(options, connection, environment));
	if (!own_namespaces(!options->host_network, options->identity)) {
		apart.forbidden = namespaces_forbidden();
		_exit(run_apart(&apart, connection, environment));
	}
	environment = own_environment(options, environment);
	uint64_t lent = borrow(options, "{\"self\":true}", options->path, connection);
	keep_only(lent | options->capabilities, options->identity);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("PR_SET_NO_NEW_PRIVS");
	keep_from_typing();
	fail_to_execute(options->command[0], execute(options->command, environment));
}
