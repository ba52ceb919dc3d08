/*
 * A program that root runs as another user: bpftoken-launch makes its namespaces and becomes it;
 * here is what src/delegation/sandbox.ts is to it otherwise. ../launch.c has what is said between
 * us.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* For hangs, of what the launcher does. */
#define LAUNCH_MS 10000

#define LAUNCHER "/bpftoken-launch"
#define TO_GROUP 0x80

struct launched {
	pid_t launcher, program;
	int control, lifeline;
	bool shares_terminal;
};

static const int FORWARDED[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH };

/* ---- The launcher ---- */

/* Beside us. */
static void find_launcher(char *path, size_t room)
{
	ssize_t length = readlink("/proc/self/exe", path, room - sizeof(LAUNCHER));

	if (length <= 0)
		die("/proc/self/exe");
	path[length] = 0;
	char *slash = strrchr(path, '/');
	if (!slash)
		refuse(path, ENOENT);
	strcpy(slash, LAUNCHER);
}

/* Two ends that stay out of the way of descriptors 3 and 4. */
static void connect_pair(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair");
	for (int i = 0; i < 2; i++) {
		int high = fcntl(ends[i], F_DUPFD_CLOEXEC, LIFELINE + 1);
		if (high < 0)
			die("fcntl");
		close(ends[i]);
		ends[i] = high;
	}
}

static char **launcher_words(const struct options *options)
{
	size_t count = 0;

	while (options->command[count])
		count++;
	char **words = calloc(count + 6, sizeof(*words));
	if (!words)
		die("calloc");
	words[0] = "bpftoken-launch";
	words[1] = options->host_network ? "host" : "own";
	words[2] = "0"; /* They are sent once they are known. */
	words[3] = "-";
	words[4] = "job";
	memcpy(words + 5, options->command, count * sizeof(*words));
	return words;
}

static struct launched launch(const struct options *options)
{
	static char *nothing[] = { NULL };
	struct launched launched = { 0 };
	char path[PATH_MAX];
	char **words = launcher_words(options);
	int control[2], lifeline[2];

	find_launcher(path, sizeof(path));
	connect_pair(control);
	connect_pair(lifeline);
	/*
	 * It shares our memory until it is another program, and does nothing with it: a fork copies
	 * it.
	 */
	launched.launcher = vfork();
	if (launched.launcher == 0) {
		if (dup2(control[1], CONTROL) == CONTROL && dup2(lifeline[1], LIFELINE) == LIFELINE)
			execve(path, words, nothing);
		_exit(125);
	}
	if (launched.launcher < 0)
		die("vfork");
	close(control[1]);
	close(lifeline[1]);
	launched.control = control[0];
	launched.lifeline = lifeline[0];
	free(words);
	return launched;
}

_Noreturn static void fail_as_launched(const char *said)
{
	char operation[128] = "";
	int error = 0;

	if (sscanf(said, "e%127s %d", operation, &error) == 2)
		refuse(operation, error);
	fail("BPFTOKEN_CONFLICT", "bpftoken-launch ended before it was ready", NULL);
}

/* What is said next; 0: the end of file. */
static size_t hear(const struct launched *launched, char *text, size_t room)
{
	struct pollfd wait = { .fd = launched->control, .events = POLLIN };
	int ready;

	do
		ready = poll(&wait, 1, LAUNCH_MS);
	while (ready < 0 && errno == EINTR);
	if (ready == 0)
		fail("BPFTOKEN_TIMEOUT", "bpftoken-launch gave no answer in time", NULL);
	ssize_t length = read(launched->control, text, room - 1);
	if (length < 0)
		die("read");
	text[length] = 0;
	return length;
}

static void tell(const struct launched *launched, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(launched->control, text, length, MSG_NOSIGNAL);
		if (sent < 0)
			fail_as_launched("");
		text += sent;
		length -= sent;
	}
}

/* Of /proc/PID/stat: what is behind the name, in which anything can be. */
static pid_t parent_of(pid_t process)
{
	char path[64], text[1024];
	int parent;

	snprintf(path, sizeof(path), "/proc/%d/stat", process);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return -1;
	text[length] = 0;
	char *behind = strrchr(text, ')');
	return behind && sscanf(behind + 1, " %*c %d", &parent) == 1 ? parent : -1;
}

static void map_ids(pid_t process, const char *file, unsigned int inside, unsigned int outside)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", process, file);
	snprintf(text, sizeof(text), "%u %u 1\n", inside, outside);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t length = strlen(text);
	if (fd < 0 || write(fd, text, length) != length)
		die(file);
	close(fd);
}

/*
 * Waits for the namespaces, and has it become the user in them. Its number is its own while its
 * parent lives.
 */
static void become_user(struct launched *launched, const struct options *options, const struct user *user)
{
	char said[256];

	hear(launched, said, sizeof(said));
	if ((said[0] != 't' && said[0] != 'n') || sscanf(said + 1, "%d", &launched->program) != 1)
		fail_as_launched(said);
	launched->shares_terminal = said[0] == 't';
	if (parent_of(launched->program) != launched->launcher)
		fail_as_launched("");
	map_ids(launched->program, "uid_map", options->identity ? user->uid : 0, user->uid);
	map_ids(launched->program, "gid_map", options->identity ? user->gid : 0, user->gid);
	tell(launched, "u", 1);
	hear(launched, said, sizeof(said));
	if (strcmp(said, "u") != 0)
		fail_as_launched(said);
}

static uint64_t lend(const struct launched *launched, const struct options *options, int connection)
{
	char recipient[64], reached[PATH_MAX + 64];
	int pidfd = syscall(SYS_pidfd_open, launched->program, 0);

	if (pidfd < 0 || parent_of(launched->program) != launched->launcher)
		die("pidfd_open");
	snprintf(recipient, sizeof(recipient), "{\"pidfd\":%d}", pidfd);
	snprintf(reached, sizeof(reached), "/proc/%d/root%s", launched->program, options->path);
	uint64_t capabilities = borrow(options, recipient, reached, connection);
	close(pidfd);
	return capabilities;
}

/* ---- The program ---- */

static void send_capabilities(const struct launched *launched, uint64_t capabilities)
{
	char message[9] = "c";

	memcpy(message + 1, &capabilities, sizeof(capabilities));
	tell(launched, message, sizeof(message));
}

static void send_environment(const struct launched *launched, char **environment)
{
	uint32_t length = 0;
	char head[5] = "g";

	for (char **at = environment; *at; at++)
		length += strlen(*at) + 1;
	memcpy(head + 1, &length, sizeof(length));
	tell(launched, head, sizeof(head));
	for (char **at = environment; *at; at++)
		tell(launched, *at, strlen(*at) + 1);
}

/* Returns once it runs. */
static void release(const struct launched *launched, const struct options *options, const struct user *user,
		    char **environment)
{
	char said[256], operation[128];
	size_t length = 0, more;
	int error;

	send_environment(launched, environment);
	while (length < sizeof(said) - 1 && (more = hear(launched, said + length, sizeof(said) - length)) > 0)
		length += more;
	const char *failure = said[0] == 'd' ? said + 1 : said;
	if (said[0] == 'd')
		note("", user->name, " may not enter the working directory: the program starts in /");
	if (sscanf(failure, "e%127s %d", operation, &error) == 2 && strcmp(operation, "execve") == 0)
		fail_to_execute(options->command[0], error);
	if (*failure)
		fail_as_launched(failure);
}

/* From a terminal that it shares these reach it without us. */
static bool is_typed(int signal)
{
	return signal == SIGINT || signal == SIGQUIT || signal == SIGWINCH;
}

static void forward(const struct launched *launched, int signal)
{
	uint8_t number = signal;

	if (launched->shares_terminal && is_typed(signal))
		return;
	if (is_typed(signal) && signal != SIGWINCH)
		number |= TO_GROUP;
	/* That it has ended is said otherwise. */
	send(launched->lifeline, &number, 1, MSG_NOSIGNAL);
}

/*
 * Its status, from "exited N" or "killed N"; nothing is said where its watcher was killed, and it
 * with it.
 */
static int status_of(const char *said)
{
	int number;

	if (sscanf(said, "exited %d", &number) == 1)
		return number;
	return 128 + (sscanf(said, "killed %d", &number) == 1 ? number : SIGKILL);
}

static int watch(const struct launched *launched, int signals)
{
	struct pollfd waits[] = { { .fd = launched->lifeline, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	struct signalfd_siginfo came;
	char said[64] = "";
	size_t length = 0;

	while (!strchr(said, '\n')) {
		if (poll(waits, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (waits[1].revents && read(signals, &came, sizeof(came)) == sizeof(came))
			forward(launched, came.ssi_signo);
		if (!waits[0].revents)
			continue;
		ssize_t got = read(launched->lifeline, said + length, sizeof(said) - 1 - length);
		if (got <= 0)
			break;
		length += got;
		said[length] = 0;
	}
	while (waitpid(launched->launcher, NULL, 0) < 0 && errno == EINTR)
		;
	return status_of(said);
}

/* From here on signals are for the program; the launcher, until it has become it, dies of them. */
static int hold_signals(void)
{
	sigset_t forwarded;

	sigemptyset(&forwarded);
	for (size_t i = 0; i < sizeof(FORWARDED) / sizeof(FORWARDED[0]); i++)
		sigaddset(&forwarded, FORWARDED[i]);
	if (sigprocmask(SIG_BLOCK, &forwarded, NULL) < 0)
		die("sigprocmask");
	int signals = signalfd(-1, &forwarded, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("signalfd");
	return signals;
}

int run_for_user(const struct options *options, const struct user *user, int connection, char **environment)
{
	environment = user_environment(options, user, environment);
	struct launched launched = launch(options);
	become_user(&launched, options, user);
	send_capabilities(&launched, options->capabilities | lend(&launched, options, connection));
	int signals = hold_signals();
	release(&launched, options, user, environment);
	return watch(&launched, signals);
}
