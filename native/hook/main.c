/*
 * bpftoken-hook: a runtime calls it when it has made a container's namespaces and mounts, and before
 * the container has its root. Fail closed: where the daemon does not say yes, the container does not
 * start.
 *
 *   bpftoken-hook [--socket PATH] [--timeout SECONDS]
 */
#include "hook.h"

#include "../client/daemon.h"
#include "../text.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_SEC 20
#define MAX_TIMEOUT_SEC 3600

static const char *text_of(const struct json *object, const char *name)
{
	return json_string(json_member(object, name));
}

#define START_IT "Is bpftokend started? (systemctl start bpftokend.socket)"

static int fail_to_ask(const char *id, enum daemon_failure failure, int error)
{
	struct text what = { 0 };

	switch (failure) {
	case DAEMON_LATE:
		say(true, id, "bpftokend gave no answer in time", NULL);
		break;
	case DAEMON_GONE:
		say(true, id, "bpftokend went away before it had answered", "Start the container again");
		break;
	case DAEMON_GARBLED:
	case DAEMON_TOO_LONG:
		say(true, id, "what answers at bpftokend's socket is not known here", NULL);
		break;
	default:
		put(&what, "bpftokend cannot be asked (");
		put(&what, errno_name(error));
		put(&what, ")");
		say(true, id, what.bytes, START_IT);
	}
	return 1;
}

/* Root of a user namespace is not root: the first number of the map says who that is outside. */
static bool is_rootless(void)
{
	unsigned inside = 0, outside = 0, count = 0;
	FILE *map = fopen("/proc/self/uid_map", "re");
	bool whole = map && fscanf(map, "%u %u %u", &inside, &outside, &count) == 3 && outside == 0 && count == 4294967295u;

	if (map)
		fclose(map);
	return !whole || getuid() != 0;
}

#define ROOTLESS                                                                                                      \
	"it is rootless: only root's containers can be lent to while they are made"
#define ROOTLESS_REMEDY                                                                                               \
	"Start it without the annotation, and let root lend to it then: bpftoken delegate --container USER/NAME --policy P"

static int refuse_as_told(const char *id, const struct daemon_answer *answer)
{
	const char *detail = text_of(answer->document, "detail"), *hint = text_of(answer->document, "hint");
	char status[64];

	if (answer->status == 403 && is_rootless()) {
		say(true, id, ROOTLESS, ROOTLESS_REMEDY);
		return 1;
	}
	snprintf(status, sizeof(status), "bpftokend answered with status %d, and no word why", answer->status);
	say(true, id, detail ? detail : status, hint);
	return 1;
}

/* What whoever looks after the container may want to know. */
static void tell_notes(const char *id, const struct json *answer)
{
	const struct json *concerns = json_member(answer, "preflight"), *notes = json_member(answer, "notes");

	for (const struct json *one = json_first(concerns); one; one = json_next(concerns, one)) {
		const char *what = text_of(one, "what");
		if (what)
			say(false, id, what, text_of(one, "remedy"));
	}
	for (const struct json *one = json_first(notes); one; one = json_next(notes, one))
		if (json_string(one))
			say(false, id, json_string(one), NULL);
}

static int usage(void)
{
	dprintf(STDERR_FILENO, "usage: bpftoken-hook [--socket PATH] [--timeout SECONDS]\n"
			       "A container runtime calls it at its stage createRuntime, with its state on stdin.\n");
	return 2;
}

/* Whole seconds, up to an hour; 0: it says none. */
static int seconds_of(const char *word)
{
	int seconds = 0;

	for (; *word; word++) {
		if (*word < '0' || *word > '9' || seconds > MAX_TIMEOUT_SEC)
			return 0;
		seconds = seconds * 10 + (*word - '0');
	}
	return seconds <= MAX_TIMEOUT_SEC ? seconds : 0;
}

/* Not less than 1: for setsockopt(2) 0 is for ever. */
static int left_of(int64_t deadline)
{
	int64_t left = deadline - now_ms();

	return left > 1 ? left : 1;
}

int main(int argc, char **argv)
{
	const char *socket = DAEMON_SOCKET, *fault;
	int seconds = DEFAULT_TIMEOUT_SEC;
	struct daemon_answer answer;
	char id[256];

	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			return usage();
		if (strcmp(argv[i], "--socket") == 0)
			socket = argv[i + 1];
		else if (strcmp(argv[i], "--timeout") == 0)
			seconds = seconds_of(argv[i + 1]);
		else
			return usage();
	}
	if (seconds == 0)
		return usage();
	/* One for all that it waits for. */
	int64_t deadline = now_ms() + seconds * 1000;
	signal(SIGPIPE, SIG_IGN);
	const char *body = question_in_time(STDIN_FILENO, deadline, id, sizeof(id), &fault);
	if (!body) {
		say(true, id, fault, NULL);
		return 1;
	}
	int connection = daemon_connect(socket, left_of(deadline));
	if (connection < 0)
		return fail_to_ask(id, DAEMON_ERRNO, errno);
	enum daemon_failure failure =
		daemon_ask(connection, "POST", "/v1/hooks/oci", body, left_of(deadline), -1, &answer);
	if (failure != DAEMON_OK)
		return fail_to_ask(id, failure, errno);
	if (answer.status != 200 || !answer.document)
		return refuse_as_told(id, &answer);
	tell_notes(id, answer.document);
	return 0;
}
