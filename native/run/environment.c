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

/* With room for what is named, for what describes a user, for one more and the end. */
static char **roomy_copy(const struct options *options, char **environment, bool (*wanted)(const char *))
{
	char **all = calloc(count(environment) + count(options->named) + 6, sizeof(*all)), **to = all;

	if (!all)
		die("calloc");
	for (; *environment; environment++)
		if (!wanted || wanted(*environment))
			*to++ = *environment;
	return all;
}

static void put_named(const struct options *options, char **all, char **caller)
{
	for (char **named = options->named; *named; named++) {
		char **found = find(caller, *named);
		if (strchr(*named, '=')) {
			set(all, *named);
		} else if (found) {
			set(all, *found);
		} else {
			struct text message = { 0 };
			put(&message, "--env ");
			put_printable(&message, *named);
			put(&message, ": there is no such variable to pass on");
			fail("BPFTOKEN_USAGE", message.bytes, "Give NAME=VALUE, or leave it out");
		}
	}
}

static void describe(char **all, const char *name, const char *value)
{
	char *variable = malloc(strlen(name) + strlen(value) + 2);

	if (!variable)
		die("malloc");
	strcpy(variable, name);
	strcat(variable, "=");
	strcat(variable, value);
	set(all, variable);
}

/*
 * Where every token-aware loader looks by itself needs no naming, unless our caller named another
 * place.
 */
static void put_token_path(char **all, const char *path, char **caller)
{
	if (strcmp(path, DEFAULT_PATH) != 0 || find(caller, TOKEN_PATH))
		describe(all, TOKEN_PATH, path);
}

char **own_environment(const struct options *options, char **environment)
{
	char **all = roomy_copy(options, environment, NULL);

	put_token_path(all, options->path, environment);
	put_named(options, all, environment);
	return all;
}

/* As src/cli/environment.ts has it: all else may be secret, or a setting of root's. */
static bool is_kept(const char *variable)
{
	static const char *const names[] = { "PATH", "TERM", "LANG", "TZ" };
	size_t length = strcspn(variable, "=");

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length && strncmp(names[i], variable, length) == 0)
			return true;
	return length > 3 && strncmp(variable, "LC_", 3) == 0;
}

char **user_environment(const struct options *options, const struct user *user, char **environment)
{
	char **all = roomy_copy(options, environment, options->keep_environment ? NULL : is_kept);

	describe(all, "HOME", user->home);
	describe(all, "USER", user->name);
	describe(all, "LOGNAME", user->name);
	describe(all, "SHELL", user->shell);
	put_token_path(all, options->path, environment);
	put_named(options, all, environment);
	return all;
}

char *block_of(char **environment, size_t *length)
{
	*length = 0;
	for (char **at = environment; *at; at++)
		*length += strlen(*at) + 1;
	char *block = malloc(*length + 1), *to = block;
	if (!block)
		die("malloc");
	for (char **at = environment; *at; at++)
		to = stpcpy(to, *at) + 1;
	return block;
}
