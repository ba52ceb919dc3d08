/*
 * What native/client makes of bytes: reads frames from standard input, answers each with one.
 *
 *   frame   a letter, the bytes that follow as a uint32_t, these
 *   'j'     a document; answered with it written anew, or with nothing: refused
 *   'q'     text; answered with it as a string of JSON, or with nothing
 *   'm' 'e' what came of an answer of HTTP, which goes on, or has ended; answered with "more" or
 *           "bad", or "whole", its status, and its body
 */
#include "../../../native/client/http.c"
#include "../../../native/client/json.c"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_MAX (1u << 20)
#define VALUES 4096

static void write_value(FILE *to, const struct json *value)
{
	static char quoted[6 * FRAME_MAX];
	const struct json *at = value + 1, *end = value + value->size;

	switch (value->type) {
	case JSON_NULL:
		fputs("null", to);
		break;
	case JSON_FALSE:
		fputs("false", to);
		break;
	case JSON_TRUE:
		fputs("true", to);
		break;
	case JSON_NUMBER:
		fwrite(value->text, 1, value->length, to);
		break;
	case JSON_STRING:
		if (strlen(value->text) != value->length || !json_quote(value->text, quoted, sizeof(quoted)))
			abort();
		fputs(quoted, to);
		break;
	case JSON_ARRAY:
		fputc('[', to);
		for (const struct json *item = json_first(value); item; item = json_next(value, item)) {
			write_value(to, item);
			if (item + item->size < end)
				fputc(',', to);
		}
		fputc(']', to);
		break;
	case JSON_OBJECT:
		fputc('{', to);
		for (; at < end; at += 1 + at[1].size) {
			if (json_member(value, at->text) != at + 1)
				abort();
			write_value(to, at);
			fputc(':', to);
			write_value(to, at + 1);
			if (at + 1 + at[1].size < end)
				fputc(',', to);
		}
		fputc('}', to);
	}
}

static void answer(FILE *to, char letter, char *bytes, size_t length)
{
	static struct json values[VALUES];
	static char quoted[6 * FRAME_MAX];
	struct http_answer http;

	switch (letter) {
	case 'j':
		if (json_read(bytes, length, values, VALUES) > 0)
			write_value(to, values);
		break;
	case 'q':
		bytes[length] = 0;
		if (json_quote(bytes, quoted, sizeof(quoted)))
			fputs(quoted, to);
		break;
	default:
		switch (http_read(bytes, length, letter == 'e', &http)) {
		case HTTP_MORE:
			fputs("more", to);
			break;
		case HTTP_BAD:
			fputs("bad", to);
			break;
		case HTTP_WHOLE:
			fprintf(to, "whole %d ", http.status);
			fwrite(http.body, 1, http.length, to);
		}
	}
}

int main(void)
{
	char letter;
	uint32_t length;

	while (fread(&letter, 1, 1, stdin) == 1 && fread(&length, sizeof(length), 1, stdin) == 1) {
		/* Of its size, so that whatever is read beyond it is found. */
		char *bytes = malloc(length + (letter == 'q'));
		char *said;
		size_t said_length;
		if (length > FRAME_MAX || !bytes || fread(bytes, 1, length, stdin) != length)
			return 1;
		FILE *to = open_memstream(&said, &said_length);
		answer(to, letter, bytes, length);
		fclose(to);
		length = said_length;
		fwrite(&length, sizeof(length), 1, stdout);
		fwrite(said, 1, said_length, stdout);
		fflush(stdout);
		free(said);
		free(bytes);
	}
	return 0;
}
