/*
 * The command's front: see run.h. What it does not know is handed to Node as it is, and for root
 * what the daemon does not answer. With --strict as its first word it is Node that hands over in
 * its turn: then it hands nothing back, and ends with its parent.
 */
#include "run.h"

#include "../client/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CONNECT_MS 10000

/* Both build/Release and prebuilds/linux-ARCH are two below the package. */
#define SCRIPT "/dist/cli/main.js"
#define LEVELS 3

/* What a program finds closed it would open as something else, and then be talked to by mistake. */
static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			die("/dev/null");
}

/* The command in JavaScript, in the package that we are part of. */
static void find_script(char *path, size_t room)
{
	ssize_t length = readlink("/proc/self/exe", path, room - sizeof(SCRIPT));

	if (length <= 0)
		die("/proc/self/exe");
	path[length] = 0;
	for (int i = 0; i < LEVELS; i++) {
		char *slash = strrchr(path, '/');
		if (slash)
			*slash = 0;
	}
	strcat(path, SCRIPT);
	if (access(path, F_OK) < 0)
		fail("BPFTOKEN_NOT_FOUND", "the package that bpftoken-run is part of is not around it",
		     "Install bpftoken again, or build the clone");
}

_Noreturn static void hand_to_node(int argc, char **argv, char **environment)
{
	char script[PATH_MAX];
	char **words = calloc(argc + 2, sizeof(*words));

	if (!words)
		die("calloc");
	find_script(script, sizeof(script));
	/* As the file says by which Node. */
	execve(script, argv, environment);
	words[0] = "node";
	words[1] = script;
	memcpy(words + 2, argv + 1, argc * sizeof(*words));
	execvp(words[0], words);
	refuse("node", errno);
}

/* Node stands between us and the shell then, and what kills it is meant for us. */
static void end_with_parent(void)
{
	pid_t parent = getppid();

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		die("PR_SET_PDEATHSIG");
	if (getppid() != parent)
		_exit(EXIT_FAILED);
}

static bool is_ordinary(void)
{
	return geteuid() != 0 && getuid() == geteuid() && getgid() == getegid();
}

/* Only where something is odd it is said in more than one way: then nothing is done here. */
static bool is_root(void)
{
	return geteuid() == 0 && getuid() == 0;
}

_Noreturn static void fail_to_connect(const char *socket, int error)
{
	struct text message = { 0 };

	if (error == EAGAIN)
		fail("BPFTOKEN_BUSY", "Too many wait to be connected with the daemon", "Try again later");
	put(&message, "No daemon answers at ");
	put_printable(&message, socket);
	put(&message, " (");
	put(&message, errno_name(error));
	put(&message, ")");
	fail("BPFTOKEN_UNREACHABLE", message.bytes,
	     "Ask root to start it (systemctl start bpftokend), or run it as root: sudo bpftoken run");
}

/* Returns where it is not for us. */
static void run_as_root(const struct options *options, char **environment)
{
	struct user user;

	if (!find_user(options->user, &user))
		return;
	int connection = daemon_connect(daemon_socket(options), CONNECT_MS);
	if (connection >= 0)
		_exit(run_for_user(options, &user, connection, environment));
}

static void run_as_ordinary(const struct options *options, char **environment)
{
	const char *socket = daemon_socket(options);
	/* Before anything is made: most often it is this that fails. */
	int connection = daemon_connect(socket, CONNECT_MS);

	if (connection < 0)
		fail_to_connect(socket, errno);
	run_as_user(options, connection, environment);
}

int main(int argc, char **argv, char **environment)
{
	bool strict = argc > 1 && strcmp(argv[1], "--strict") == 0;
	char **words = argv + 1 + strict;
	struct options options;
	struct text said;

	if (argc < 1)
		return EXIT_USAGE;
	fill_standard_descriptors();
	char **named = calloc(argc + 1, sizeof(*named));
	if (!named)
		die("calloc");
	enum parsed parsed = *words && strcmp(*words, "run") == 0 ? parse_options(words + 1, named, &options, &said) : UNKNOWN;
	if (parsed != UNKNOWN)
		tell_as(options.json, options.quiet);
	if (is_ordinary() && parsed != UNKNOWN && !options.user) {
		if (parsed == WRONG)
			fail("BPFTOKEN_USAGE", said.bytes, NULL);
		if (strict)
			end_with_parent();
		run_as_ordinary(&options, environment);
	}
	if (strict)
		fail("BPFTOKEN_USAGE", "bpftoken-run is started by bpftoken, not by hand", NULL);
	options.for_root = true;
	if (is_root() && parsed == PARSED && !options.apart)
		run_as_root(&options, environment);
	hand_to_node(argc, argv, environment);
}
