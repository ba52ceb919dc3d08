/*
 * bpftoken-runc: runc, or another runtime, which calls bpftoken-hook for containers that ask.
 *
 *   bpftoken-runc [--bpftoken-runtime PATH] [--bpftoken-socket PATH] ARGUMENT...
 *
 * The two options come first, as an engine's configuration gives them; the rest is the runtime's.
 * Only `create`, `run` and `restore` are looked at, and of these only bundles whose config.json has
 * an annotation of ours, and not the hook. Such a container does not start where it cannot be given
 * it.
 */
#include "../client/json.h"
#include "../text.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_MAX (4 * 1024 * 1024)
#define CONFIG_VALUES 131072
#define NAME "bpftoken.dev"
#define OURS NAME "/"
#define HOOK "bpftoken-hook"

static char config[CONFIG_MAX + 1], written[CONFIG_MAX + 8192];
static struct json values[CONFIG_VALUES];
static const char *runtime, *socket_path;

_Noreturn static void fail(const char *what, const char *name)
{
	struct text text = { 0 };

	put(&text, "bpftoken-runc: ");
	put_printable(&text, name);
	put(&text, ": ");
	put(&text, what);
	dprintf(STDERR_FILENO, "%s\n", text.bytes);
	_exit(1);
}

/* The value of an option that is written as two words or as one; NULL: this is another word. */
static const char *value_of(const char *name, char **word, int *used)
{
	size_t length = strlen(name);

	if (strncmp(*word, name, length) != 0)
		return NULL;
	if ((*word)[length] == '=') {
		*used = 1;
		return *word + length + 1;
	}
	if ((*word)[length] == '\0' && word[1]) {
		*used = 2;
		return word[1];
	}
	return NULL;
}

/* Options of runc and crun before the command that have a word of their own behind. */
static bool takes_word(const char *word)
{
	static const char *const names[] = { "--root", "--log", "--log-format", "--log-level", "--criu", "--rootless",
					     "--cgroup-manager", "-l" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], word) == 0)
			return true;
	return false;
}

/* As value_of, and as getopt_long(3) takes it, by which crun reads its options: `-bDIR`, `--bund DIR`. */
static const char *bundle_in(char **word, int *used)
{
	static const char option[] = "--bundle";
	const char *equals = strchr(*word, '=');
	size_t length = equals ? (size_t)(equals - *word) : strlen(*word);
	char name[sizeof(option)];

	/* runc takes one dash, too. */
	if (strncmp(*word, "-bundle", 7) == 0)
		return value_of("-bundle", word, used);
	if (strncmp(*word, "-b", 2) == 0 && (*word)[2] != '\0' && (*word)[2] != '=')
		return *word + 2;
	if (strncmp(*word, "-b", 2) == 0)
		return value_of("-b", word, used);
	if (length < 3 || length >= sizeof(name) || strncmp(*word, option, length) != 0)
		return NULL;
	memcpy(name, option, length);
	name[length] = '\0';
	return value_of(name, word, used);
}

/* Whether it names another file than config.json, which crun takes, and we do not read. */
static bool names_config(const char *word)
{
	return strncmp(word, "--conf", 6) == 0 || strncmp(word, "-f", 2) == 0;
}

/* The bundle that a container is made of; NULL: none is made. */
static const char *bundle_of(char **words)
{
	const char *bundle = ".", *given;
	int used = 1;

	while (*words && **words == '-')
		words += takes_word(*words) && words[1] ? 2 : 1;
	if (!*words || (strcmp(*words, "create") != 0 && strcmp(*words, "run") != 0 && strcmp(*words, "restore") != 0))
		return NULL;
	for (words++; *words; words += used) {
		used = 1;
		if (strcmp(*words, "--") == 0)
			break;
		if (names_config(*words))
			fail("a container is made of config.json alone", *words);
		given = bundle_in(words, &used);
		if (given)
			bundle = given;
	}
	return bundle;
}

static bool asks(const struct json *document)
{
	const struct json *annotations = json_member(document, "annotations");

	if (!annotations || annotations->type != JSON_OBJECT)
		return false;
	for (const struct json *at = annotations + 1; at < annotations + annotations->size; at += 1 + at[1].size)
		if (strncmp(at->text, OURS, strlen(OURS)) == 0)
			return true;
	return false;
}

/*
 * Whether the hook is called already: by Podman's hooks.d, by whoever made the bundle, or by us when
 * the bundle was run before. Of two hooks the second finds what the first has lent, and the container
 * does not start. Whichever daemon the one that is there asks, it stays.
 */
static bool has_hook(const struct json *document)
{
	const struct json *hooks = json_member(json_member(document, "hooks"), "createRuntime");

	for (const struct json *one = json_first(hooks); one; one = json_next(hooks, one)) {
		const char *path = json_string(json_member(one, "path"));
		const char *slash = path ? strrchr(path, '/') : NULL;
		if (slash && strcmp(slash + 1, HOOK) == 0)
			return true;
	}
	return false;
}

/* ---- config.json with the hook ---- */

static size_t length;

static void add(const char *text)
{
	size_t more = strlen(text);

	if (more >= sizeof(written) - length)
		fail("it is too long", "config.json");
	memcpy(written + length, text, more + 1);
	length += more;
}

static void add_string(const char *text)
{
	size_t more = json_quote(text, written + length, sizeof(written) - length);

	if (more == 0)
		fail("it is too long, or no UTF-8", "config.json");
	length += more;
}

static void add_value(const struct json *value)
{
	size_t more = json_write(value, written + length, sizeof(written) - length);

	if (more == 0)
		fail("it is too long", "config.json");
	length += more;
}

/* It lies beside us: who may replace it may replace us. */
static void add_hook(void)
{
	char self[PATH_MAX], hook[PATH_MAX + 32];
	ssize_t got = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (got < 0)
		fail(errno_name(errno), "/proc/self/exe");
	self[got] = '\0';
	snprintf(hook, sizeof(hook), "%s/" HOOK, dirname(self));
	if (access(hook, X_OK) != 0)
		fail(errno_name(errno), hook);
	add("{\"path\":");
	add_string(hook);
	add(",\"args\":[\"" HOOK "\"");
	if (socket_path) {
		add(",\"--socket\",");
		add_string(socket_path);
	}
	add("]}");
}

/* Behind those that there are: they may still move mounts. */
static void add_hooks(const struct json *hooks)
{
	const struct json *own = json_member(hooks, "createRuntime");
	const char *before = "";

	add("{");
	if (hooks && hooks->type == JSON_OBJECT)
		for (const struct json *at = hooks + 1; at < hooks + hooks->size; at += 1 + at[1].size) {
			if (at + 1 == own)
				continue;
			add(before);
			add_string(at->text);
			add(":");
			add_value(at + 1);
			before = ",";
		}
	add(before);
	add("\"createRuntime\":[");
	for (const struct json *one = json_first(own); one; one = json_next(own, one)) {
		add_value(one);
		add(",");
	}
	add_hook();
	add("]}");
}

static void rewrite(const struct json *document)
{
	const struct json *hooks = json_member(document, "hooks");

	add("{\"hooks\":");
	add_hooks(hooks);
	for (const struct json *at = document + 1; at < document + document->size; at += 1 + at[1].size) {
		if (at + 1 == hooks)
			continue;
		add(",");
		add_string(at->text);
		add(":");
		add_value(at + 1);
	}
	add("}\n");
}

/* Whole or not at all. */
static void put_in_place(const char *path, mode_t mode)
{
	char partial[PATH_MAX];

	if (snprintf(partial, sizeof(partial), "%s.bpftoken", path) >= (int)sizeof(partial))
		fail("its path is too long", path);
	/* Of one of us that was ended. */
	unlink(partial);
	int fd = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 0777);
	if (fd < 0)
		fail(errno_name(errno), partial);
	for (size_t at = 0; at < length;) {
		ssize_t put_bytes = write(fd, written + at, length - at);
		if (put_bytes < 0) {
			unlink(partial);
			fail(errno_name(errno), partial);
		}
		at += put_bytes;
	}
	close(fd);
	if (rename(partial, path) != 0) {
		unlink(partial);
		fail(errno_name(errno), path);
	}
}

static void give_hook(const char *bundle)
{
	char path[PATH_MAX];
	struct stat st;
	size_t bytes = 0;
	ssize_t got;

	if (snprintf(path, sizeof(path), "%s/config.json", bundle) >= (int)sizeof(path))
		return;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	/* What is wrong with it the runtime says. */
	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (bytes <= CONFIG_MAX && (got = read(fd, config + bytes, CONFIG_MAX + 1 - bytes)) > 0)
		bytes += got;
	close(fd);
	/* The slash may be written with a backslash before it, and any character by its number. */
	bool may_ask = memmem(config, bytes, NAME, strlen(NAME));
	if (!may_ask && !memmem(config, bytes, "\\u", 2))
		return;
	if (may_ask && bytes > CONFIG_MAX)
		fail("it asks for a loan, and is longer than 4 MiB", path);
	if (bytes > CONFIG_MAX || json_read(config, bytes, values, CONFIG_VALUES) == 0 || values->type != JSON_OBJECT) {
		if (may_ask)
			fail("it asks for a loan, and is no JSON that is read in one way only", path);
		return;
	}
	if (!asks(values) || has_hook(values))
		return;
	rewrite(values);
	put_in_place(path, st.st_mode);
}

int main(int argc, char **argv)
{
	char **words = argv + (argc > 0);
	int used;

	while (*words) {
		const char *value;

		if ((value = value_of("--bpftoken-runtime", words, &used)))
			runtime = value;
		else if ((value = value_of("--bpftoken-socket", words, &used)))
			socket_path = value;
		else
			break;
		words += used;
	}
	const char *bundle = bundle_of(words);
	if (bundle)
		give_hook(bundle);
	if (!runtime)
		runtime = "runc";
	words[-1] = (char *)runtime;
	execvp(runtime, words - 1);
	fail(errno_name(errno), runtime);
}
