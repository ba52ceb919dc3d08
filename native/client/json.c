/* See json.h. */
#include "json.h"

#include <string.h>

struct reader {
	char *at, *end;
	struct json *values;
	size_t count, room;
	unsigned int depth;
};

static bool read_value(struct reader *reader);

static void skip_blanks(struct reader *reader)
{
	while (reader->at < reader->end && strchr(" \t\n\r", *reader->at) && *reader->at)
		reader->at++;
}

static bool skip_char(struct reader *reader, char expected)
{
	if (reader->at == reader->end || *reader->at != expected)
		return false;
	reader->at++;
	return true;
}

static bool skip_word(struct reader *reader, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
		return false;
	reader->at += length;
	return true;
}

static struct json *add(struct reader *reader, enum json_type type)
{
	if (reader->count == reader->room)
		return NULL;
	struct json *value = &reader->values[reader->count++];
	*value = (struct json){ .type = type, .size = 1 };
	return value;
}

static bool is_digit(const struct reader *reader)
{
	return reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9';
}

static bool skip_digits(struct reader *reader)
{
	if (!is_digit(reader))
		return false;
	while (is_digit(reader))
		reader->at++;
	return true;
}

static bool read_number(struct reader *reader)
{
	struct json *value = add(reader, JSON_NUMBER);
	const char *begin = reader->at;

	if (!value)
		return false;
	skip_char(reader, '-');
	if (!skip_char(reader, '0') && !skip_digits(reader))
		return false;
	if (skip_char(reader, '.') && !skip_digits(reader))
		return false;
	if (skip_char(reader, 'e') || skip_char(reader, 'E')) {
		if (!skip_char(reader, '+'))
			skip_char(reader, '-');
		if (!skip_digits(reader))
			return false;
	}
	value->text = begin;
	value->length = reader->at - begin;
	return true;
}

static bool read_hex(struct reader *reader, uint32_t *code)
{
	*code = 0;
	for (int i = 0; i < 4; i++) {
		char c = reader->at < reader->end ? *reader->at++ : 0;
		int digit = c >= '0' && c <= '9' ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;
		if (digit < 0)
			return false;
		*code = *code << 4 | digit;
	}
	return true;
}

/* It takes no more bytes than the escape that stood there. */
static char *put_utf8(char *to, uint32_t code)
{
	if (code < 0x80) {
		*to++ = code;
	} else if (code < 0x800) {
		*to++ = 0xc0 | code >> 6;
		*to++ = 0x80 | (code & 0x3f);
	} else if (code < 0x10000) {
		*to++ = 0xe0 | code >> 12;
		*to++ = 0x80 | (code >> 6 & 0x3f);
		*to++ = 0x80 | (code & 0x3f);
	} else {
		*to++ = 0xf0 | code >> 18;
		*to++ = 0x80 | (code >> 12 & 0x3f);
		*to++ = 0x80 | (code >> 6 & 0x3f);
		*to++ = 0x80 | (code & 0x3f);
	}
	return to;
}

/* What follows a backslash. */
static bool read_escape(struct reader *reader, char **to)
{
	static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
	uint32_t code, low;
	char c = reader->at < reader->end ? *reader->at++ : 0;
	const char *found = c ? strchr(escapes, c) : NULL;

	if (found) {
		*(*to)++ = meanings[found - escapes];
		return true;
	}
	if (c != 'u' || !read_hex(reader, &code) || code == 0)
		return false;
	if (code >= 0xd800 && code < 0xdc00) {
		if (!skip_word(reader, "\\u") || !read_hex(reader, &low) || low < 0xdc00 || low > 0xdfff)
			return false;
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	} else if (code >= 0xdc00 && code < 0xe000) {
		return false;
	}
	*to = put_utf8(*to, code);
	return true;
}

/* How many bytes the character at `at` has; 0: it is no UTF-8. */
static size_t utf8_length(const char *at, const char *end)
{
	const unsigned char *bytes = (const unsigned char *)at;
	size_t length = bytes[0] < 0x80 ? 1 : bytes[0] < 0xc2 ? 0 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : bytes[0] < 0xf5 ? 4 : 0;

	if (length > (size_t)(end - at))
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
	/* Written longer than need be, of a surrogate, or beyond the last. */
	if ((bytes[0] == 0xe0 && bytes[1] < 0xa0) || (bytes[0] == 0xed && bytes[1] > 0x9f) ||
	    (bytes[0] == 0xf0 && bytes[1] < 0x90) || (bytes[0] == 0xf4 && bytes[1] > 0x8f))
		return 0;
	return length;
}

static bool read_string(struct reader *reader)
{
	struct json *value = add(reader, JSON_STRING);

	if (!value || !skip_char(reader, '"'))
		return false;
	char *begin = reader->at, *to = begin;
	while (reader->at < reader->end) {
		char c = *reader->at;
		if (c == '"') {
			reader->at++;
			*to = 0;
			value->text = begin;
			value->length = to - begin;
			return true;
		}
		if (c == '\\') {
			reader->at++;
			if (!read_escape(reader, &to))
				return false;
			continue;
		}
		size_t length = (unsigned char)c < 0x20 ? 0 : utf8_length(reader->at, reader->end);
		if (length == 0)
			return false;
		memmove(to, reader->at, length);
		to += length;
		reader->at += length;
	}
	return false;
}

static bool read_array(struct reader *reader)
{
	if (!add(reader, JSON_ARRAY))
		return false;
	reader->at++;
	skip_blanks(reader);
	if (skip_char(reader, ']'))
		return true;
	do {
		if (!read_value(reader))
			return false;
	} while (skip_char(reader, ','));
	return skip_char(reader, ']');
}

static bool same_text(const struct json *a, const struct json *b)
{
	return a->length == b->length && memcmp(a->text, b->text, a->length) == 0;
}

/* Whether the names from `first` up to `name` do not have it. */
static bool is_new(const struct json *first, const struct json *name)
{
	for (const struct json *at = first; at < name; at += 1 + at[1].size)
		if (same_text(at, name))
			return false;
	return true;
}

static bool read_object(struct reader *reader)
{
	struct json *object = add(reader, JSON_OBJECT);
	unsigned int names = 0;

	if (!object)
		return false;
	reader->at++;
	skip_blanks(reader);
	if (skip_char(reader, '}'))
		return true;
	do {
		struct json *name = &reader->values[reader->count];
		skip_blanks(reader);
		/* Each name is compared with all before it: so many, and no more. */
		if (names++ == JSON_NAMES || !read_string(reader) || !is_new(object + 1, name))
			return false;
		skip_blanks(reader);
		if (!skip_char(reader, ':') || !read_value(reader))
			return false;
	} while (skip_char(reader, ','));
	return skip_char(reader, '}');
}

static bool read_plain(struct reader *reader)
{
	switch (*reader->at) {
	case '"':
		return read_string(reader);
	case 'n':
		return skip_word(reader, "null") && add(reader, JSON_NULL);
	case 'f':
		return skip_word(reader, "false") && add(reader, JSON_FALSE);
	case 't':
		return skip_word(reader, "true") && add(reader, JSON_TRUE);
	default:
		return read_number(reader);
	}
}

/* With the blanks on both sides of it. */
static bool read_value(struct reader *reader)
{
	size_t index = reader->count;
	bool good;

	skip_blanks(reader);
	if (reader->at == reader->end)
		return false;
	if (*reader->at == '[' || *reader->at == '{') {
		if (++reader->depth > JSON_DEPTH)
			return false;
		good = *reader->at == '[' ? read_array(reader) : read_object(reader);
		reader->depth--;
	} else {
		good = read_plain(reader);
	}
	if (!good)
		return false;
	reader->values[index].size = reader->count - index;
	skip_blanks(reader);
	return true;
}

size_t json_read(char *text, size_t length, struct json *values, size_t room)
{
	struct reader reader = { .at = text, .end = text + length, .values = values, .room = room };

	/* Sizes and lengths have 32 bits. */
	if (length > INT32_MAX || !read_value(&reader) || reader.at != reader.end)
		return 0;
	return reader.count;
}

const struct json *json_member(const struct json *object, const char *name)
{
	if (!object || object->type != JSON_OBJECT)
		return NULL;
	for (const struct json *at = object + 1; at < object + object->size; at += 1 + at[1].size)
		if (strcmp(at->text, name) == 0)
			return at + 1;
	return NULL;
}

const char *json_string(const struct json *value)
{
	return value && value->type == JSON_STRING ? value->text : NULL;
}

const struct json *json_first(const struct json *array)
{
	return array && array->type == JSON_ARRAY && array->size > 1 ? array + 1 : NULL;
}

const struct json *json_next(const struct json *array, const struct json *item)
{
	const struct json *next = item + item->size;

	return next < array + array->size ? next : NULL;
}

size_t json_quote(const char *text, char *to, size_t room)
{
	static const char digits[] = "0123456789abcdef";
	const char *end = text + strlen(text);
	char *begin = to, *last = to + room;

	if (room < 3)
		return 0;
	*to++ = '"';
	while (text < end) {
		unsigned char c = *text;
		size_t length = utf8_length(text, end);
		/* The longest, and quote and zero. */
		if (length == 0 || last - to < 6 + 2)
			return 0;
		if (c == '"' || c == '\\') {
			*to++ = '\\';
			*to++ = c;
		} else if (c < 0x20) {
			memcpy(to, "\\u00", 4);
			to[4] = digits[c >> 4];
			to[5] = digits[c & 0xf];
			to += 6;
		} else {
			memcpy(to, text, length);
			to += length;
		}
		text += length;
	}
	if (last - to < 2)
		return 0;
	*to++ = '"';
	*to = 0;
	return to - begin;
}

struct writer {
	char *to;
	size_t length, room;
	bool full;
};

static void put_raw(struct writer *writer, const char *text, size_t length)
{
	if (writer->full || length >= writer->room - writer->length) {
		writer->full = true;
		return;
	}
	memcpy(writer->to + writer->length, text, length);
	writer->length += length;
	writer->to[writer->length] = 0;
}

static void put_quoted(struct writer *writer, const char *text)
{
	size_t written = writer->full ? 0 : json_quote(text, writer->to + writer->length, writer->room - writer->length);

	writer->full |= written == 0;
	writer->length += written;
}

/* No deeper than what was read. */
static void put_value(struct writer *writer, const struct json *value)
{
	static const char *const words[] = { [JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true" };
	const struct json *at = value + 1, *end = value + value->size;

	switch (value->type) {
	case JSON_NULL:
	case JSON_FALSE:
	case JSON_TRUE:
		put_raw(writer, words[value->type], strlen(words[value->type]));
		break;
	case JSON_NUMBER:
		put_raw(writer, value->text, value->length);
		break;
	case JSON_STRING:
		put_quoted(writer, value->text);
		break;
	case JSON_ARRAY:
		put_raw(writer, "[", 1);
		for (; at < end; at += at->size) {
			if (at > value + 1)
				put_raw(writer, ",", 1);
			put_value(writer, at);
		}
		put_raw(writer, "]", 1);
		break;
	case JSON_OBJECT:
		put_raw(writer, "{", 1);
		for (; at < end; at += 1 + at[1].size) {
			if (at > value + 1)
				put_raw(writer, ",", 1);
			put_quoted(writer, at->text);
			put_raw(writer, ":", 1);
			put_value(writer, at + 1);
		}
		put_raw(writer, "}", 1);
	}
}

size_t json_write(const struct json *value, char *to, size_t room)
{
	struct writer writer = { .to = to, .room = room, .full = room == 0 };

	put_value(&writer, value);
	return writer.full ? 0 : writer.length;
}
