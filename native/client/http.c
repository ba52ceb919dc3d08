/* See http.h. */
#include "http.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BODY_MAX (1u << 30)

size_t http_head(char *to, size_t room, const char *method, const char *path, size_t length)
{
	int written = length == 0 ? snprintf(to, room, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", method, path)
				  : snprintf(to, room,
					     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
					     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
					     method, path, length);

	return written > 0 && (size_t)written < room ? (size_t)written : 0;
}

/* A line that ends with CR LF, as the two ends of it. */
struct line {
	const char *begin, *end;
};

/* The line at `at`, which is moved behind it. False: it has not ended. */
static bool next_line(const char **at, const char *end, struct line *line)
{
	const char *newline = memchr(*at, '\n', end - *at);

	if (!newline)
		return false;
	*line = (struct line){ *at, newline };
	*at = newline + 1;
	return true;
}

/* Takes the CR off. False: there is none, or what HTTP forbids within a line. */
static bool is_clean(struct line *line)
{
	if (line->end == line->begin || line->end[-1] != '\r')
		return false;
	line->end--;
	for (const char *at = line->begin; at < line->end; at++)
		if ((unsigned char)*at < 0x20 && *at != '\t')
			return false;
	return true;
}

static bool is_empty(const struct line *line)
{
	return line->begin == line->end;
}

/* All of the line is a number, and one that a body can have; 0 for a line that is none. */
static bool parse_size(struct line text, unsigned int base, size_t *size)
{
	*size = 0;
	if (is_empty(&text))
		return false;
	for (; text.begin < text.end; text.begin++) {
		unsigned char c = *text.begin, letter = c | 0x20;
		unsigned int digit = c >= '0' && c <= '9'		? c - '0' + 0u
				     : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10u
								      : 16u;
		if (digit >= base || *size > BODY_MAX)
			return false;
		*size = *size * base + digit;
	}
	return *size <= BODY_MAX;
}

static bool parse_status(const struct line *line, int *status)
{
	static const char version[] = "HTTP/1.1 ";
	const char *at = line->begin + sizeof(version) - 1;

	if (line->end - line->begin < (ptrdiff_t)sizeof(version) - 1 + 3 || memcmp(line->begin, version, sizeof(version) - 1) != 0)
		return false;
	*status = 0;
	for (int i = 0; i < 3; i++) {
		if (at[i] < '0' || at[i] > '9')
			return false;
		*status = *status * 10 + at[i] - '0';
	}
	/* Of those below nobody has asked for one. */
	return *status >= 200 && *status <= 599 && (at + 3 == line->end || at[3] == ' ');
}

enum framing { TO_THE_END, SIZED, CHUNKED };

struct head {
	int status;
	enum framing framing;
	size_t size;
};

static bool has_name(const struct line *line, const char *name, struct line *value)
{
	size_t length = strlen(name);

	if ((size_t)(line->end - line->begin) <= length || line->begin[length] != ':' ||
	    strncasecmp(line->begin, name, length) != 0)
		return false;
	*value = (struct line){ line->begin + length + 1, line->end };
	while (value->begin < value->end && (*value->begin == ' ' || *value->begin == '\t'))
		value->begin++;
	while (value->begin < value->end && (value->end[-1] == ' ' || value->end[-1] == '\t'))
		value->end--;
	return true;
}

static bool is_header(const struct line *line)
{
	const char *colon = memchr(line->begin, ':', line->end - line->begin);

	/*
	 * No name, or blanks before the colon or the line: the roads to two readings of one answer.
	 */
	if (!colon || colon == line->begin)
		return false;
	for (const char *at = line->begin; at < colon; at++)
		if (*at == ' ' || *at == '\t')
			return false;
	return true;
}

static bool parse_header(struct head *head, const struct line *line)
{
	struct line value;

	if (!is_header(line))
		return false;
	if (has_name(line, "Content-Length", &value)) {
		if (head->framing != TO_THE_END)
			return false;
		head->framing = SIZED;
		return parse_size(value, 10, &head->size);
	}
	if (has_name(line, "Transfer-Encoding", &value)) {
		if (head->framing != TO_THE_END || value.end - value.begin != 7 || strncasecmp(value.begin, "chunked", 7) != 0)
			return false;
		head->framing = CHUNKED;
	}
	return true;
}

static enum http_state parse_head(const char **at, const char *end, struct head *head)
{
	const char *begin = *at;
	struct line line;

	for (bool first = true;; first = false) {
		if (!next_line(at, end, &line))
			return end - begin < HTTP_HEAD_MAX ? HTTP_MORE : HTTP_BAD;
		if (*at - begin > HTTP_HEAD_MAX || !is_clean(&line))
			return HTTP_BAD;
		if (!first && is_empty(&line))
			return HTTP_WHOLE;
		if (first ? !parse_status(&line, &head->status) : !parse_header(head, &line))
			return HTTP_BAD;
	}
}

/* The size of the chunk that the line begins. What may follow it, nobody here knows how to use. */
static bool parse_chunk(struct line *line, size_t *size)
{
	return is_clean(line) && parse_size(*line, 16, size);
}

/*
 * Puts the chunks together at `to`, or with NULL only looks whether all are there. What may follow
 * the last one are headers, which are not wanted.
 */
static enum http_state join_chunks(const char *at, const char *end, char *to, size_t *length)
{
	struct line line;
	size_t size;

	*length = 0;
	for (;;) {
		if (!next_line(&at, end, &line))
			return end - at < 32 ? HTTP_MORE : HTTP_BAD;
		if (!parse_chunk(&line, &size))
			return HTTP_BAD;
		if (size == 0)
			break;
		if ((size_t)(end - at) < size + 2)
			return HTTP_MORE;
		if (at[size] != '\r' || at[size + 1] != '\n')
			return HTTP_BAD;
		if (to)
			memmove(to + *length, at, size);
		*length += size;
		at += size + 2;
	}
	for (const char *begin = at;;) {
		if (!next_line(&at, end, &line))
			return end - begin < HTTP_HEAD_MAX ? HTTP_MORE : HTTP_BAD;
		if (!is_clean(&line))
			return HTTP_BAD;
		if (is_empty(&line))
			return at == end ? HTTP_WHOLE : HTTP_BAD;
	}
}

enum http_state http_read(char *bytes, size_t length, bool ended, struct http_answer *answer)
{
	const char *at = bytes, *end = bytes + length;
	struct head head = { .framing = TO_THE_END };
	enum http_state state = parse_head(&at, end, &head);
	size_t there = end - at;

	*answer = (struct http_answer){ head.status, bytes + (at - bytes), there };
	if (state == HTTP_WHOLE && head.status == 204)
		state = there == 0 ? HTTP_WHOLE : HTTP_BAD;
	else if (state == HTTP_WHOLE && head.framing == SIZED)
		state = there < head.size ? HTTP_MORE : there == head.size ? HTTP_WHOLE : HTTP_BAD;
	else if (state == HTTP_WHOLE && head.framing == CHUNKED) {
		state = join_chunks(at, end, NULL, &answer->length);
		if (state == HTTP_WHOLE)
			join_chunks(at, end, answer->body, &answer->length);
	} else if (state == HTTP_WHOLE)
		state = ended ? HTTP_WHOLE : HTTP_MORE;
	/* What goes on for ever, and has ended. */
	return state == HTTP_MORE && ended ? HTTP_BAD : state;
}
