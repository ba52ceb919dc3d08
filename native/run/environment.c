/* The environment of the program: its user's own, and what is named. */
#include "run.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "/sys/fs/bpf"
#define TOKEN_PATH "LIBBPF_BPF_TOKEN_PATH"

static size_t count(char **words)
{
	size_t n = 0;

	while (words[n])
		n++;
	return n;
}

/* The variable of the name that `word` begins with; NULL: there is none. */
static char **find(char **environment, const char *word)
{
	size_t length = strcspn(word, "=");

	for (; *environment; environment++)
		if (strncmp(*environment, word, length) == 0 && (*environment)[length] == '=')
			return environment;
	return NULL;
}

/* `environment` has room for one more. */
static void set(char **environment, char *variable)
{
	char **found = find(environment, variable);

	if (found) {
		*found = variable;
		return;
	}
	size_t end = count(environment);
	environment[end] = variable;
	environment[end + 1] = NULL;
}

static void put_token_path(char **environment, const char *path)
{
	/* Where every token-aware loader looks by itself needs no naming. */
	if (strcmp(path, DEFAULT_PATH) == 0 && !find(environment, TOKEN_PATH))
		return;
	char *variable = malloc(sizeof(TOKEN_PATH "=") + strlen(path));
	if (!variable)
		die("malloc");
	strcpy(variable, TOKEN_PATH "=");
	strcat(variable, path);
	set(environment, variable);
}

char **program_environment(const struct options *options, char **environment)
{
	size_t there = count(environment);
	char **all = calloc(there + count(options->named) + 2, sizeof(*all));

	if (!all)
		die("calloc");
	memcpy(all, environment, there * sizeof(*all));
	put_token_path(all, options->path);
	for (char **named = options->named; *named; named++) {
		struct text message = { 0 };
		if (strchr(*named, '=')) {
			set(all, *named);
		} else if (!find(all, *named)) {
			put(&message, "--env ");
			put_printable(&message, *named);
			put(&message, ": there is no such variable to pass on");
			fail("BPFTOKEN_USAGE", message.bytes, "Give NAME=VALUE, or leave it out");
		}
	}
	return all;
}
