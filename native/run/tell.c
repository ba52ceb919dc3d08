/* What is said on stderr, as src/cli/failure-report.ts says it: in words, or as a JSON document. */
#include "run.h"

#include "../client/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool as_json, is_quiet;

void tell_as(bool json, bool quiet)
{
	as_json = json;
	is_quiet = quiet;
}

/*
 * In one piece, so that it does not mix with what others say. Where nobody listens nobody is told.
 */
static void say(const struct text *text)
{
	if (write(STDERR_FILENO, text->bytes, text->length) < 0)
		return;
}

void note(const char *before, const char *text, const char *after)
{
	struct text line = { 0 };

	if (is_quiet)
		return;
	put(&line, "bpftoken: ");
	put(&line, before);
	put_printable(&line, text);
	put(&line, after);
	put(&line, "\n");
	say(&line);
}

/* Each line of the message as one of ours. */
static void put_lines(struct text *text, const char *before, const char *message)
{
	char line[2048];

	for (; *message; message += strcspn(message, "\n"), message += *message == '\n') {
		size_t length = strcspn(message, "\n");
		size_t cut = length < sizeof(line) ? length : sizeof(line) - 1;
		memcpy(line, message, cut);
		line[cut] = 0;
		put(text, before);
		put_printable(text, line);
		put(text, "\n");
	}
}

/* As a string of JSON that a terminal can show, too. */
static void put_quoted(struct text *text, const char *value)
{
	char quoted[4096];
	struct text plain = { 0 };

	put_printable(&plain, value);
	put(text, json_quote(plain.bytes, quoted, sizeof(quoted)) ? quoted : "\"\"");
}

static int status_of(const char *code)
{
	static const struct {
		const char *code;
		enum exit_status status;
	} others[] = {
		{ "BPFTOKEN_USAGE", EXIT_USAGE },
		{ "BPFTOKEN_INPUT", EXIT_USAGE },
		{ "BPFTOKEN_POLICY_INVALID", EXIT_USAGE },
		{ "BPFTOKEN_DENIED", EXIT_DENIED },
		{ "BPFTOKEN_NOT_SUPPORTED", EXIT_NOT_SUPPORTED },
		{ "BPFTOKEN_UNREACHABLE", EXIT_UNREACHABLE },
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(others[i].code, code) == 0)
			return others[i].status;
	return EXIT_FAILED;
}

static void tell_failure(const char *code, const char *message, const char *hint)
{
	struct text text = { 0 };

	if (as_json) {
		put(&text, "{\"error\":{\"code\":");
		put_quoted(&text, code);
		put(&text, ",\"message\":");
		put_quoted(&text, message);
		if (hint) {
			put(&text, ",\"hint\":");
			put_quoted(&text, hint);
		}
		put(&text, ",\"context\":{}}}\n");
	} else {
		put_lines(&text, "bpftoken: ", message);
		if (hint)
			put_lines(&text, "bpftoken:   next: ", hint);
	}
	say(&text);
}

void fail(const char *code, const char *message, const char *hint)
{
	tell_failure(code, message, hint);
	_exit(status_of(code));
}

void fail_to_execute(const char *name, int error)
{
	struct text message = { 0 };

	put(&message, "cannot run \"");
	put_printable(&message, name);
	put(&message, "\": ");
	put(&message, errno_name(error));
	tell_failure("BPFTOKEN_SYSCALL", message.bytes,
		     as_json ? "Give a program that exists and that its user may execute" : NULL);
	_exit(error == ENOENT ? 127 : 126);
}

void die(const char *operation)
{
	struct text message = { 0 };
	int error = errno;

	put(&message, operation);
	put(&message, " failed with ");
	put(&message, errno_name(error));
	fail("BPFTOKEN_SYSCALL", message.bytes, NULL);
}

void refuse(const char *operation, int error)
{
	errno = error;
	die(operation);
}
