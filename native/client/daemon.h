/*
 * bpftokend as a client in C sees it: one question on one connection, one answer, within a time.
 * For programs that live for a moment and have no memory to spare: there is one answer at a time,
 * in a buffer of its own.
 */
#pragma once

#include "json.h"

#include <stddef.h>

#define DAEMON_SOCKET "/run/bpftoken/bpftokend.sock"
#define ANSWER_MAX (256 * 1024)
#define ANSWER_VALUES 8192

/* What a failed question can mean beyond errno. */
enum daemon_failure { DAEMON_OK, DAEMON_ERRNO, DAEMON_LATE, DAEMON_GONE, DAEMON_GARBLED, DAEMON_TOO_LONG };

struct daemon_answer {
	int status; /* of HTTP */
	const struct json *document; /* NULL: the answer is none */
};

/* A connection; -1 and errno: nobody listens there, or who is asked too much (EAGAIN). */
int daemon_connect(const char *socket, int timeout_ms);

/*
 * Asks on that connection, and closes it. `body` is JSON, or NULL. What the answer before this one
 * said is gone. Since the daemon acts on it, whoever gets a failure but DAEMON_ERRNO does not know
 * whether that is done. `wake`: gives up, with DAEMON_ERRNO and EINTR, once this can be read; -1:
 * nothing.
 */
enum daemon_failure daemon_ask(int connection, const char *method, const char *path, const char *body,
			       int timeout_ms, int wake, struct daemon_answer *answer);
