/*
 * The command's front: see run.h. What it does not know, and what root types, is handed to Node as
 * it is. With --strict as its first word it is Node that hands over in its turn: then it hands
 * nothing back, and ends with its parent.
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
#define SOCKET_VARIABLE "BPFTOKEN_SOCKET"

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
		if (!slash)
			refuse(path, ENOENT);
		*slash = 0;
	}
	strcat(path, SCRIPT);
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
	if (errno == ENOENT && access(script, F_OK) < 0)
		refuse(script, ENOENT);
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

static int connect_or_fail(const char *socket)
{
	int connection = daemon_connect(socket, CONNECT_MS);
	struct text message = { 0 };

	if (connection >= 0)
		return connection;
	put(&message, "No daemon answers at ");
	put_printable(&message, socket);
	put(&message, " (");
	put(&message, errno_name(errno));
	put(&message, ")");
	if (errno == EAGAIN)
		fail("BPFTOKEN_BUSY", "Too many wait to be connected with the daemon", "Try again later");
	fail("BPFTOKEN_UNREACHABLE", message.bytes,
	     "Ask root to start it (systemctl start bpftokend), or run it as root: sudo bpftoken run");
}

_Noreturn static void run(const struct options *options, char **environment)
{
	const char *socket = getenv(SOCKET_VARIABLE);

	if (!socket || !*socket)
		socket = DAEMON_SOCKET;
	environment = program_environment(options, environment);
	/* Before anything is made: most often it is this that fails. */
	int connection = connect_or_fail(socket);
	own_namespaces(!options->host_network, options->identity);
	uint64_t capabilities = borrow(options, socket, connection) | options->capabilities;
	keep_only(capabilities, options->identity);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("PR_SET_NO_NEW_PRIVS");
	keep_from_typing();
	fail_to_execute(options->command[0], execute(options->command, environment));
}

int main(int argc, char **argv, char **environment)
{
	bool strict = argc > 1 && strcmp(argv[1], "--strict") == 0;
	char **words = argv + 1 + strict;
	struct options options;
	struct text said;

	fill_standard_descriptors();
	if (argc < 1)
		return EXIT_USAGE;
	char **named = calloc(argc + 1, sizeof(*named));
	if (!named)
		die("calloc");
	enum parsed parsed = *words && strcmp(*words, "run") == 0 ? parse_options(words + 1, named, &options, &said) : UNKNOWN;
	if (!strict && (parsed == UNKNOWN || !is_ordinary()))
		hand_to_node(argc, argv, environment);
	if (parsed == UNKNOWN)
		fail("BPFTOKEN_USAGE", "bpftoken-run is started by bpftoken, not by hand", NULL);
	tell_as(options.json, options.quiet);
	if (!is_ordinary())
		fail("BPFTOKEN_USAGE", "bpftoken-run runs programs for ordinary users, whose ids are their own", NULL);
	if (parsed == WRONG)
		fail("BPFTOKEN_USAGE", said.bytes, NULL);
	if (strict)
		end_with_parent();
	run(&options, environment);
}
