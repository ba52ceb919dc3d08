/* What programs in C say to people: bounded, and never more than a terminal may show. */
#pragma once

#include <stddef.h>

/* Text in a buffer; what has no room is left out. */
struct text {
	char bytes[8192];
	size_t length;
};

void put(struct text *text, const char *more);
/* The same of text that may be anybody's: what is not printable ASCII as \u{...}. */
void put_printable(struct text *text, const char *more);
/* Its errno by name. */
const char *errno_name(int error);
