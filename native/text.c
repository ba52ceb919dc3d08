/* See text.h. */
#include "text.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void put(struct text *text, const char *more)
{
	size_t room = sizeof(text->bytes) - 1 - text->length, length = strlen(more);

	if (length > room)
		length = room;
	memcpy(text->bytes + text->length, more, length);
	text->length += length;
	text->bytes[text->length] = 0;
}

/*
 * The code of the character at `*at`, which is moved behind it. U+FFFD stands for a byte that is no
 * UTF-8.
 */
static uint32_t next_code(const char **at)
{
	const unsigned char *bytes = (const unsigned char *)*at;
	int more = bytes[0] >= 0xf0 ? 3 : bytes[0] >= 0xe0 ? 2 : bytes[0] >= 0xc2 ? 1 : 0;
	uint32_t code = bytes[0] & (more == 3 ? 0x07 : more == 2 ? 0x0f : more == 1 ? 0x1f : 0x7f);

	if (more == 0 && bytes[0] >= 0x80)
		code = 0xfffd;
	for (int i = 1; i <= more; i++) {
		if ((bytes[i] & 0xc0) != 0x80) {
			*at += 1;
			return 0xfffd;
		}
		code = code << 6 | (bytes[i] & 0x3f);
	}
	*at += 1 + more;
	return code;
}

void put_printable(struct text *text, const char *more)
{
	while (*more) {
		char piece[16];
		uint32_t code = next_code(&more);
		if (code >= 0x20 && code <= 0x7e)
			snprintf(piece, sizeof(piece), "%c", (char)code);
		else
			snprintf(piece, sizeof(piece), "\\u{%x}", code);
		put(text, piece);
	}
}

const char *errno_name(int error)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
#define NAME(number) { number, #number }
		NAME(EPERM),	    NAME(ENOENT), NAME(EIO),	NAME(E2BIG),	    NAME(ENOEXEC),	NAME(EAGAIN),
		NAME(ENOMEM),	    NAME(EACCES), NAME(EBUSY),	NAME(EEXIST),	    NAME(ENOTDIR),	NAME(EISDIR),
		NAME(EINVAL),	    NAME(ENFILE), NAME(EMFILE), NAME(ETXTBSY),	    NAME(ENOSPC),	NAME(EROFS),
		NAME(ENAMETOOLONG), NAME(ENOSYS), NAME(ELOOP),	NAME(ENOTSOCK),	    NAME(EPROTOTYPE),	NAME(EOPNOTSUPP),
		NAME(EUSERS),	    NAME(EDQUOT), NAME(ECONNREFUSED), NAME(ELIBBAD),
#undef NAME
	};
	static char number[16];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].number == error)
			return names[i].name;
	snprintf(number, sizeof(number), "errno %d", error);
	return number;
}
