/*
 * Finding the program and becoming it: as execvp(3) does, with the exit statuses of env(1) in mind.
 */
#include "launch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where a program is looked for when its environment has no PATH. */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/*
 * A file that is executable but no program is a script for the shell: POSIX wants that of env(1).
 */
static int as_script(const char *file, char **argv, char **environment)
{
	size_t count = 0;

	while (argv[count])
		count++;
	char **shell = calloc(count + 2, sizeof(*shell));
	if (!shell)
		return ENOMEM;
	shell[0] = "/bin/sh";
	shell[1] = (char *)file;
	for (size_t i = 1; i < count; i++)
		shell[i + 1] = argv[i];
	execve(shell[0], shell, environment);
	free(shell);
	return errno;
}

static int try(const char *file, char **argv, char **environment)
{
	execve(file, argv, environment);
	return errno == ENOEXEC ? as_script(file, argv, environment) : errno;
}

static const char *path_of(char **environment)
{
	for (; *environment; environment++)
		if (strncmp(*environment, "PATH=", 5) == 0)
			return *environment + 5;
	return DEFAULT_PATH;
}

int execute(char **argv, char **environment)
{
	char file[PATH_MAX];
	struct stat ignored;
	int found = ENOENT;

	if (!*argv[0] || strchr(argv[0], '/'))
		return try(argv[0], argv, environment);
	for (const char *at = path_of(environment);; at++) {
		int length = strcspn(at, ":");
		/* An empty element is the working directory. */
		int written = snprintf(file, sizeof(file), "%.*s/%s", length ? length : 1, length ? at : ".", argv[0]);
		int error = written < (int)sizeof(file) ? try(file, argv, environment) : ENOENT;
		switch (error) {
		case EACCES:
			/* In a directory that we may not search, nothing was found. */
			if (stat(file, &ignored) == 0)
				found = EACCES;
			break;
		case ENOENT:
		case ENOTDIR:
		case ENODEV:
		case ESTALE:
		case ETIMEDOUT:
			break;
		default:
			return error;
		}
		at += length;
		if (!*at)
			return found;
	}
}
