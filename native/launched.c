/* See launched.h. */
#include "launched.h"

#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* For hangs, of what the launcher does. */
#define LAUNCH_MS 10000

#define LAUNCHER "/bpftoken-launch"

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

/* A copy that stays out of the way of descriptors 0 to 4. */
static int high_copy(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, LIFELINE + 1);

	if (high < 0)
		die("fcntl");
	return high;
}

static void connect_pair(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair");
	for (int i = 0; i < 2; i++) {
		int high = high_copy(ends[i]);
		close(ends[i]);
		ends[i] = high;
	}
}

static char **launcher_words(const struct to_launch *what)
{
	size_t count = 0;

	while (what->command[count])
		count++;
	char **words = calloc(count + 6, sizeof(*words));
	if (!words)
		die("calloc");
	words[0] = "bpftoken-launch";
	words[1] = what->host_network ? "host" : "own";
	words[2] = "0"; /* They are sent once they are known. */
	words[3] = "-";
	words[4] = (char *)what->kind;
	memcpy(words + 5, what->command, count * sizeof(*words));
	return words;
}

struct launched launch(const struct to_launch *what)
{
	static char *nothing[] = { NULL };
	struct launched launched = { 0 };
	char path[PATH_MAX];
	char **words = launcher_words(what);
	int control[2], lifeline[2] = { -1, -1 }, standard[3] = { 0, 1, 2 };

	find_launcher(path, sizeof(path));
	connect_pair(control);
	if (what->lifeline < 0)
		connect_pair(lifeline);
	else
		lifeline[1] = high_copy(what->lifeline);
	for (int i = 0; what->standard && i < 3; i++)
		standard[i] = high_copy(what->standard[i]);
	/*
	 * It shares our memory until it is another program, and does nothing with it: a fork copies
	 * it.
	 */
	launched.launcher = vfork();
	if (launched.launcher == 0) {
		for (int i = 0; i < 3; i++)
			if (standard[i] != i && dup2(standard[i], i) != i)
				_exit(125);
		if (dup2(control[1], CONTROL) == CONTROL && dup2(lifeline[1], LIFELINE) == LIFELINE)
			execve(path, words, nothing);
		_exit(125);
	}
	if (launched.launcher < 0)
		die("vfork");
	close(control[1]);
	close(lifeline[1]);
	for (int i = 0; i < 3; i++)
		if (standard[i] != i)
			close(standard[i]);
	launched.control = control[0];
	launched.lifeline = lifeline[0];
	free(words);
	return launched;
}

void fail_as_launched(const char *said)
{
	char operation[128] = "";
	int error = 0;

	if (sscanf(said, "e%127s %d", operation, &error) == 2)
		refuse(operation, error);
	fail("BPFTOKEN_CONFLICT", "bpftoken-launch ended before it was ready", NULL);
}

size_t hear_launched(const struct launched *launched, char *text, size_t room)
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

static void tell(const struct launched *launched, const void *data, size_t length)
{
	for (const char *text = data; length > 0;) {
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

bool is_program(const struct launched *launched)
{
	return parent_of(launched->program) == launched->launcher;
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

void become_user(struct launched *launched, uid_t uid, gid_t gid, bool identity)
{
	char said[256];

	hear_launched(launched, said, sizeof(said));
	if ((said[0] != 't' && said[0] != 'n') || sscanf(said + 1, "%d", &launched->program) != 1)
		fail_as_launched(said);
	launched->shares_terminal = said[0] == 't';
	if (!is_program(launched))
		fail_as_launched("");
	map_ids(launched->program, "uid_map", identity ? uid : 0, uid);
	map_ids(launched->program, "gid_map", identity ? gid : 0, gid);
	tell(launched, "u", 1);
	hear_launched(launched, said, sizeof(said));
	if (strcmp(said, "u") != 0)
		fail_as_launched(said);
}

/* A word, and behind it so many bytes. */
static void send_block(const struct launched *launched, char word, const char *block, size_t length)
{
	uint32_t bytes = length;
	char head[5] = { word };

	memcpy(head + 1, &bytes, sizeof(bytes));
	tell(launched, head, sizeof(head));
	tell(launched, block, length);
}

void send_directory(const struct launched *launched, const char *directory)
{
	send_block(launched, 'w', directory, strlen(directory) + 1);
}

void send_environment(const struct launched *launched, const char *block, size_t length)
{
	send_block(launched, 'g', block, length);
}

void send_capabilities(const struct launched *launched, uint64_t capabilities)
{
	char message[9] = "c";

	memcpy(message + 1, &capabilities, sizeof(capabilities));
	tell(launched, message, sizeof(message));
}
