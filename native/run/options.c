/*
 * The command line of `run`, as far as it is known here; src/cli/tree/lending.ts has all of it.
 */
#include "run.h"

#include <string.h>

#define DEFAULT_PATH "/sys/fs/bpf"
#define NAME_MAX_BYTES 63
#define PATH_MAX_BYTES 4095

static enum parsed wrong(struct text *said, const char *what, const char *value, const char *why)
{
	*said = (struct text){ 0 };
	put(said, what);
	put_printable(said, value);
	put(said, why);
	return WRONG;
}

/* A DNS label, as src/api/loan.ts has it. */
static bool is_policy_name(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length <= NAME_MAX_BYTES && name[0] != '-' && name[length - 1] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}

/* A list, with commas. */
static bool parse_capabilities(const char *list, uint64_t *capabilities)
{
	for (;; list++) {
		size_t length = strcspn(list, ",");
		uint64_t bit = capability_named(list, length);
		if (length > 0 && bit == 0)
			return false;
		*capabilities |= bit;
		list += length;
		if (!*list)
			return true;
	}
}

struct value {
	char ***words; /* at the option; moved to the last word of it */
	const char *text;
};

/* Whether the word is this option with its value, behind = or as the word that follows. */
static bool has_value(const char *option, struct value *value)
{
	const char *word = **value->words;
	size_t length = strlen(option);

	if (strncmp(word, option, length) != 0)
		return false;
	if (word[length] == '=') {
		value->text = word + length + 1;
		return true;
	}
	if (word[length] || !(*value->words)[1])
		return false;
	value->text = *++*value->words;
	return true;
}

static bool is(const char *word, const char *option)
{
	return strcmp(word, option) == 0;
}

/* As isPolicyFile() in src/cli/daemon/policy-choice.ts. */
static bool is_policy_file(const char *word)
{
	size_t length = strlen(word);

	return is(word, "-") || strchr(word, '/') || (length > 4 && is(word + length - 4, ".yml")) ||
	       (length > 5 && is(word + length - 5, ".yaml"));
}

/* True: the word, and its value where it has one, is known. */
static bool parse_option(char ***words, struct options *options, size_t *named, bool *capabilities_good)
{
	const char *word = **words;
	struct value value = { .words = words };

	if (is(word, "--host-net"))
		options->host_network = true;
	else if (is(word, "--apart"))
		options->apart = true;
	else if (is(word, "--identity"))
		options->identity = true;
	else if (is(word, "--json"))
		options->json = true;
	else if (is(word, "--quiet") || is(word, "-q"))
		options->quiet = true;
	else if (is(word, "--keep-env"))
		options->keep_environment = true;
	else if (has_value("--policy", &value))
		options->policy = value.text;
	else if (has_value("--path", &value))
		options->path = value.text;
	else if (has_value("--socket", &value))
		options->socket = value.text;
	else if (has_value("--user", &value))
		options->user = value.text;
	else if (has_value("--env", &value))
		options->named[(*named)++] = (char *)value.text;
	else if (has_value("--cap", &value))
		*capabilities_good &= parse_capabilities(value.text, &options->capabilities);
	else
		return false;
	return true;
}

static enum parsed check(const struct options *options, bool capabilities_good, struct text *said)
{
	if (!is_policy_name(options->policy))
		return wrong(said, "--policy ", options->policy,
			     " is no name of a policy, and an ordinary user names one that the daemon has");
	if (options->path[0] != '/')
		return wrong(said, "--path ", options->path, " is not absolute");
	if (strlen(options->path) > PATH_MAX_BYTES)
		return wrong(said, "--path is longer than the kernel takes", "", "");
	if (!capabilities_good)
		return wrong(said, "--cap names no capability of capabilities(7)", "", "");
	for (char **named = options->named; *named; named++)
		if (**named == '=' || !**named)
			return wrong(said, "--env ", *named, " names no variable");
	return PARSED;
}

enum parsed parse_options(char **words, char **named, struct options *options, struct text *said)
{
	bool capabilities_good = true;
	size_t count = 0;

	*options = (struct options){ .path = DEFAULT_PATH, .named = named };
	for (; *words && **words == '-'; words++) {
		if (is(*words, "--")) {
			words++;
			break;
		}
		if (!parse_option(&words, options, &count, &capabilities_good))
			return UNKNOWN;
	}
	named[count] = NULL;
	options->command = words;
	/* What is missing, or for root, is told by who knows all of the command line. */
	return *words && options->policy && !is_policy_file(options->policy) ? check(options, capabilities_good, said) : UNKNOWN;
}
