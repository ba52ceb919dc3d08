/*
 * JSON as RFC 8259 has it and no more, read in place: strings are decoded where they stand, each
 * with a zero behind it, and values refer to them. Nothing is allocated.
 *
 * Refused beyond what the grammar refuses: text that is no UTF-8, lone surrogates, a zero within a
 * string (it would hide the rest of it), one name twice in an object (readers differ in which of
 * them counts), more than JSON_DEPTH levels, more than JSON_NAMES names in one object, more values
 * than there is room for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH 32
/* The daemon takes no more than 1000 of anybody. */
#define JSON_NAMES 1024

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/*
 * A value; what it holds follows it. An object holds names and values by turns. So the next value
 * beside this one is `size` further on.
 */
struct json {
	enum json_type type;
	uint32_t size; /* itself included */
	/*
	 * Of a string: decoded, and a zero behind. Of a number: as it is written, nothing behind.
	 */
	const char *text;
	uint32_t length; /* bytes of the text */
};

/*
 * Reads the one document that `text` is, and overwrites it. Gives the number of values, of which
 * the first is the document; 0: it is refused.
 */
size_t json_read(char *text, size_t length, struct json *values, size_t room);

/* The value of that name in an object; NULL: there is none, or this is NULL or no object. */
const struct json *json_member(const struct json *object, const char *name);

/* The text of a string; NULL for all else. */
const char *json_string(const struct json *value);

/*
 * The first value in an array, and the next:
 * for (item = json_first(a); item; item = json_next(a, item))
 */
const struct json *json_first(const struct json *array);
const struct json *json_next(const struct json *array, const struct json *item);

/*
 * Writes the value again, with all that it holds, and a zero behind. Gives the bytes without the
 * zero; 0: there is no room.
 */
size_t json_write(const struct json *value, char *to, size_t room);

/*
 * Writes `text` as a string with its quotes, and a zero behind. Gives the bytes without the zero;
 * 0: it is no UTF-8, or there is no room.
 */
size_t json_quote(const char *text, char *to, size_t room);
