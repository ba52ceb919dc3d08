/* One request: see launchd.h. */
#include "launchd.h"

#include "../launch.h"
#include "../launched.h"
#include "../text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* For hangs: it has sent it with the connection. */
#define REQUEST_MS 3000
/*
 * Of the asker, once it has the loan: the daemon counts it no more when the loan has ended, and a
 * program is not started so long after it was lent to.
 */
#define START_MS 10000

/* Who is told that something failed: first the daemon, and once it has lent the asker. */
static int listener = -1;

void fail(const char *code, const char *message, const char *hint)
{
	struct text text = { 0 };

	(void)code, (void)hint;
	put(&text, "r");
	put_printable(&text, message);
	if (text.length > 1000)
		text.length = 1000;
	send_message(listener, text.bytes, text.length, NULL);
	_exit(1);
}

void die(const char *operation)
{
	struct text message = { 0 };
	int error = errno;

	put(&message, "starting it failed: ");
	put(&message, operation);
	put(&message, ": ");
	put(&message, errno_name(error));
	fail(NULL, message.bytes, NULL);
}

void refuse(const char *operation, int error)
{
	errno = error;
	die(operation);
}

/* ---- What the asker has sent ---- */

struct wanted {
	char *directory, **command, *environment; /* the last: with a zero behind each variable */
	size_t environment_bytes;
	int fds[APART_DESCRIPTORS];
};

/* All of it, from a file whose reading nothing can delay. */
static char *read_texts(int memfd, uint32_t bytes)
{
	struct stat about;

	if (fcntl(memfd, F_GET_SEALS) < 0 || fstat(memfd, &about) < 0 || about.st_size != bytes)
		refuse("texts", EINVAL);
	char *texts = malloc(bytes + 1);
	if (!texts)
		die("malloc");
	for (uint32_t got = 0; got < bytes;) {
		ssize_t more = pread(memfd, texts + got, bytes - got, got);
		if (more <= 0)
			refuse("texts", EINVAL);
		got += more;
	}
	texts[bytes] = 0;
	return texts;
}

static struct wanted hear_wanted(int control, uid_t uid)
{
	struct wanted wanted;
	struct apart_head head;
	uint32_t count = 0;

	if (take_message(control, &head, sizeof(head), wanted.fds, APART_DESCRIPTORS) != sizeof(head) ||
	    head.version != APART_VERSION)
		refuse("apart_head", EINVAL);
	if (head.bytes == 0 || head.bytes > APART_BYTES || head.words == 0 || head.words > head.bytes ||
	    head.variables > head.bytes)
		refuse("apart_head", E2BIG);
	if (!is_stream_of(wanted.fds[APART_LIFELINE], uid))
		refuse("lifeline", ENOTSOCK);
	char *texts = read_texts(wanted.fds[APART_TEXTS], head.bytes), *end = texts + head.bytes;
	for (uint32_t i = 0; i < head.bytes; i++)
		count += texts[i] == 0;
	if (end[-1] != 0 || count != 1 + (uint64_t)head.words + head.variables)
		refuse("texts", EINVAL);
	wanted.command = calloc(head.words + 1, sizeof(char *));
	if (!wanted.command)
		die("calloc");
	wanted.directory = texts;
	char *at = texts + strlen(texts) + 1;
	for (uint32_t i = 0; i < head.words; i++, at += strlen(at) + 1)
		wanted.command[i] = at;
	wanted.environment = at;
	wanted.environment_bytes = end - at;
	return wanted;
}

/* ---- The request ---- */

static void hear_request(int daemon, struct apart_request *request, int fds[2])
{
	struct pollfd wait = { .fd = daemon, .events = POLLIN };

	if (poll(&wait, 1, REQUEST_MS) != 1 || take_message(daemon, request, sizeof(*request), fds, 2) != sizeof(*request))
		_exit(1);
	if (request->version != APART_VERSION || request->flags & ~(APART_HOST_NETWORK | APART_IDENTITY))
		fail(NULL, "bpftoken-launchd is of another version than the daemon", NULL);
	if (!is_stream_of(fds[1], request->uid))
		refuse("control", ENOTSOCK);
}

/*
 * Until this can be read, or for so long (-1: for ever). Nothing is started if the daemon, the asker
 * or the launcher goes.
 */
static void await(int fd, int patience, int control, const struct asker *asker, const struct launched *launched)
{
	int ready;

	struct pollfd waits[] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = asker->pidfd, .events = POLLIN },
		{ .fd = control, .events = POLLRDHUP },
		{ .fd = launched->control, .events = POLLRDHUP },
	};

	while ((ready = poll(waits, 4, patience)) < 0)
		if (errno != EINTR)
			_exit(1);
	if (ready == 0)
		fail(NULL, "whoever asks has not said in time that it may start", NULL);
	if (waits[1].revents || waits[2].revents || waits[3].revents)
		_exit(1);
}

static uint64_t hear_loan(int daemon)
{
	char word[9];
	uint64_t capabilities;

	if (take_message(daemon, word, sizeof(word), NULL, 0) != sizeof(word) || word[0] != 'g')
		_exit(1);
	memcpy(&capabilities, word + 1, sizeof(capabilities));
	return capabilities;
}

/* It has its signals in hand: from the start of the program on they are for that. */
static void hear_start(int control)
{
	char word;

	if (take_message(control, &word, 1, NULL, 0) != 1 || word != 's')
		refuse("control", EINVAL);
}

/* What is said of its start, until it runs. */
static void pass_on(const struct launched *launched, int control)
{
	char said[256];
	size_t length;

	while ((length = hear_launched(launched, said, sizeof(said))) > 0)
		send_message(control, said, length, NULL);
}

void serve(int daemon, int seat)
{
	static struct asker asker;
	struct apart_request request;
	int fds[2];

	listener = daemon;
	hear_request(daemon, &request, fds);
	int control = fds[1];
	if (!take_seat(seat, request.uid))
		fail(NULL, "too many programs of this user are being started", NULL);
	hold_asker(&asker, fds[0], request.uid, request.gid);
	struct wanted wanted = hear_wanted(control, asker.uid);
	take_on(&asker);
	struct to_launch what = {
		.host_network = request.flags & APART_HOST_NETWORK,
		.kind = "user",
		.command = wanted.command,
		.standard = wanted.fds + APART_STANDARD,
		.lifeline = wanted.fds[APART_LIFELINE],
	};
	struct launched launched = launch(&what);
	for (int i = 0; i < APART_DESCRIPTORS; i++)
		close(wanted.fds[i]);
	become_user(&launched, asker.uid, asker.gid, request.flags & APART_IDENTITY);
	confirm_asker(&asker);
	int program = syscall(SYS_pidfd_open, launched.program, 0);
	if (program < 0 || !is_program(&launched))
		die("pidfd_open");
	send_message(daemon, "p", 1, &program);
	await(daemon, -1, control, &asker, &launched);
	uint64_t capabilities = hear_loan(daemon);
	listener = control;
	await(control, START_MS, control, &asker, &launched);
	hear_start(control);
	confirm_asker(&asker);
	send_directory(&launched, wanted.directory);
	send_capabilities(&launched, capabilities);
	send_environment(&launched, wanted.environment, wanted.environment_bytes);
	pass_on(&launched, control);
	_exit(0);
}
