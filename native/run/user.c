/* Whom root's program runs as: see run.h. */
#include "run.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PASSWD "/etc/passwd"

/* Kept: the user has its texts. What is longer is read by others. */
static char passwd[256 * 1024];

/* A whole decimal number that an id can be, and not that of root. */
static bool parse_id(const char *text, uint32_t *id)
{
	uint64_t value = 0;

	if (!*text || strlen(text) > 10 || strspn(text, "0123456789") != strlen(text))
		return false;
	for (; *text; text++)
		value = value * 10 + (*text - '0');
	*id = value;
	return value > 0 && value < UINT32_MAX;
}

static bool read_passwd(void)
{
	int fd = open(PASSWD, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t got = -1;

	if (fd < 0)
		return false;
	while (length < sizeof(passwd) - 1 && (got = read(fd, passwd + length, sizeof(passwd) - 1 - length)) > 0)
		length += got;
	close(fd);
	passwd[length] = 0;
	return got == 0;
}

/* The fields of a line, each with a zero behind it. */
static bool split(char *line, char *fields[7])
{
	for (int i = 0; i < 7; i++) {
		fields[i] = line;
		line += strcspn(line, ":");
		if (i < 6 && !*line)
			return false;
		if (i < 6)
			*line++ = 0;
	}
	return !*line;
}

/* The first entry of that name, or with `by_id` of that number. */
static bool find_entry(const char *key, bool by_id, struct user *user)
{
	char *fields[7], *next;

	if (!read_passwd())
		return false;
	for (char *line = passwd; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = 0;
		if (!split(line, fields) || strcmp(fields[by_id ? 2 : 0], key) != 0)
			continue;
		user->name = fields[0];
		user->home = *fields[5] ? fields[5] : "/";
		user->shell = *fields[6] ? fields[6] : "/bin/sh";
		return *fields[0] && parse_id(fields[2], &user->uid) && parse_id(fields[3], &user->gid);
	}
	return false;
}

/* A name, a uid, or uid:gid. Digits are a number, also where somebody has such a name. */
static bool find_named(const char *wanted, struct user *user)
{
	char id[16];
	size_t length = strcspn(wanted, ":");
	uint32_t gid;

	if (*wanted < '0' || *wanted > '9')
		return !wanted[length] && find_entry(wanted, false, user);
	if (length >= sizeof(id))
		return false;
	memcpy(id, wanted, length);
	id[length] = 0;
	if (wanted[length] && !parse_id(wanted + length + 1, &gid))
		return false;
	if (!find_entry(id, true, user))
		return false;
	if (wanted[length])
		user->gid = gid;
	return true;
}

bool find_user(const char *wanted, struct user *user)
{
	const char *uid = getenv("SUDO_UID"), *gid = getenv("SUDO_GID");

	if (wanted)
		return find_named(wanted, user);
	/* Root who called sudo is nobody in particular. */
	if ((!uid && !gid) || (uid && strcmp(uid, "0") == 0))
		return find_entry("nobody", false, user);
	return uid && gid && find_entry(uid, true, user) && parse_id(gid, &user->gid);
}
