/*
 * As much of HTTP/1.1 as one request on a connection of its own takes: the head of the request, and
 * the answer from its bytes. It reads no socket; daemon.c does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The head of the answer, and lines between the parts of a body that comes in such. */
#define HTTP_HEAD_MAX (16 * 1024)

enum http_state {
	HTTP_MORE, /* the answer goes on */
	HTTP_WHOLE,
	HTTP_BAD, /* this is no answer, or says two things of its length */
};

struct http_answer {
	int status; /* 200 to 599 */
	char *body; /* within the bytes that were given */
	size_t length;
};

/*
 * The head of a request, with `length` bytes of JSON to follow it where that is not 0. Gives its
 * bytes; 0: there is no room.
 */
size_t http_head(char *to, size_t room, const char *method, const char *path, size_t length);

/*
 * The answer in these bytes, which are all that came so far; `ended` says that no more will come.
 * Only of a whole answer are they overwritten: a body in chunks is put together.
 */
enum http_state http_read(char *bytes, size_t length, bool ended, struct http_answer *answer);
