/*
 * A program that bpftoken-launchd starts as the user that we are, when the daemon has it do so: we
 * give it what the program is to have, and stay to pass on what is typed, printed and signalled.
 */
#include "run.h"

#include "../apart.h"
#include "../launched.h"
#include "screen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static void write_all(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, text, length);
		if (written < 0)
			die("memfd");
		text += written;
		length -= written;
	}
}

/* The texts, which nobody changes any more. */
static int write_texts(const struct options *options, char **variables, struct apart_head *head)
{
	char directory[PATH_MAX];
	int fd = memfd_create("bpftoken-run", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t words, rest;

	if (fd < 0)
		die("memfd_create");
	if (!getcwd(directory, sizeof(directory)))
		directory[0] = 0;
	char *command = block_of(options->command, &words), *environment = block_of(variables, &rest);
	size_t length = strlen(directory) + 1 + words + rest;
	if (length > APART_BYTES)
		refuse("execve", E2BIG);
	write_all(fd, directory, strlen(directory) + 1);
	write_all(fd, command, words);
	write_all(fd, environment, rest);
	free(command);
	free(environment);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		die("F_ADD_SEALS");
	*head = (struct apart_head){ .version = APART_VERSION, .bytes = length };
	for (char **word = options->command; *word; word++)
		head->words++;
	for (char **variable = variables; *variable; variable++)
		head->variables++;
	return fd;
}

static void give(int control, const struct apart_head *head, const int fds[APART_DESCRIPTORS])
{
	union {
		char bytes[CMSG_SPACE(APART_DESCRIPTORS * sizeof(int))];
		struct cmsghdr aligned;
	} space = { 0 };
	struct iovec part = { (void *)head, sizeof(*head) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(APART_DESCRIPTORS * sizeof(int));
	memcpy(CMSG_DATA(rights), fds, APART_DESCRIPTORS * sizeof(int));
	if (sendmsg(control, &message, MSG_NOSIGNAL) < 0)
		die("sendmsg");
}

static void connect_pair(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		die("socketpair");
}

int run_apart(const struct options *options, int connection, char **environment)
{
	char **variables = own_environment(options, environment);
	int control[2], lifeline[2], standard[3] = { 0, 1, 2 };
	struct screen screen;
	struct apart_head head;
	char recipient[128];

	if (options->capabilities)
		fail("BPFTOKEN_NOT_SUPPORTED", "--cap is for namespaces of the user's own: in these the program has what the policy lends",
		     "Leave out --cap");
	bool terminal = open_screen(&screen, standard);
	int texts = write_texts(options, variables, &head);
	connect_pair(control);
	connect_pair(lifeline);
	give(control[0], &head, (int[]){ texts, lifeline[1], standard[0], standard[1], standard[2] });
	close(texts);
	close(lifeline[1]);
	snprintf(recipient, sizeof(recipient), "{\"launch\":{\"control\":%d,\"network\":\"%s\",\"identity\":%s}}", control[1],
		 options->host_network ? "host" : "own", options->identity ? "true" : "false");
	borrow(options, recipient, NULL, connection);
	/* The end that it has now ends with it. */
	close(control[1]);
	struct launched launched = { .control = control[0], .lifeline = lifeline[0] };
	/* From here on signals are for the program. */
	int signals = hold_signals(true);
	/* Should it have gone, its end is heard. */
	send(control[0], "s", 1, MSG_NOSIGNAL);
	await_start(&launched, options, "you");
	return follow(&launched, signals, terminal ? &screen : NULL);
}
