/* What the runtime says of the container: see hook.h. */
#include "hook.h"

#include "../client/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_VALUES 8192
#define CONFIG_VALUES 32768
#define ENGINE_VALUES 65536
#define WORDS_MAX 65536

/* Pages of these that nothing reaches cost nothing. */
static char state_text[STATE_MAX + 1], config_text[CONFIG_MAX + 1], engine_text[ENGINE_MAX + 1], body[BODY_MAX];
static struct json state_values[STATE_VALUES], config_values[CONFIG_VALUES], engine_values[ENGINE_VALUES];

/* Bytes of it; -1: there are more than `most`, or it cannot be read. */
static ssize_t read_all(int fd, char *to, size_t most)
{
	size_t length = 0;

	for (;;) {
		ssize_t got = read(fd, to + length, most + 1 - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			return length;
		length += got;
		if (length > most)
			return -1;
	}
}

/* ---- JSON is written again: what was read was decoded where it stood ---- */

struct writer {
	size_t length;
	bool full;
};

static void put_raw(struct writer *to, const char *text, size_t length)
{
	if (length >= sizeof(body) - to->length) {
		to->full = true;
		return;
	}
	memcpy(body + to->length, text, length);
	to->length += length;
	body[to->length] = '\0';
}

static void put_text(struct writer *to, const char *text)
{
	put_raw(to, text, strlen(text));
}

static void put_string(struct writer *to, const char *text)
{
	size_t written = json_quote(text, body + to->length, sizeof(body) - to->length);

	to->full |= written == 0;
	to->length += written;
}

static void put_value(struct writer *to, const struct json *value)
{
	size_t written = json_write(value, body + to->length, sizeof(body) - to->length);

	to->full |= written == 0;
	to->length += written;
}

/* These members of the object, as far as it has them. `null` counts as none. */
static void put_members(struct writer *to, const struct json *object, const char *const *names)
{
	const char *before = "";

	put_text(to, "{");
	for (; *names; names++) {
		const struct json *value = json_member(object, *names);
		if (!value || value->type == JSON_NULL)
			continue;
		put_text(to, before);
		put_string(to, *names);
		put_text(to, ":");
		put_value(to, value);
		before = ",";
	}
	put_text(to, "}");
}

static bool names_bpf(const struct json *rule)
{
	const struct json *names = json_member(rule, "names");

	for (const struct json *name = json_first(names); name; name = json_next(names, name))
		if (name->type == JSON_STRING && strcmp(name->text, "bpf") == 0)
			return true;
	return false;
}

/* Of the rules, which are long, those that are about bpf(2). */
static void put_seccomp(struct writer *to, const struct json *seccomp)
{
	static const char *const rule_names[] = { "action", "errnoRet", "args", NULL };
	const struct json *rules = json_member(seccomp, "syscalls"), *action = json_member(seccomp, "defaultAction");
	const char *before = "";

	put_text(to, "{\"defaultAction\":");
	if (action)
		put_value(to, action);
	else
		put_text(to, "\"\"");
	put_text(to, ",\"syscalls\":[");
	for (const struct json *rule = json_first(rules); rule; rule = json_next(rules, rule)) {
		if (!names_bpf(rule))
			continue;
		put_text(to, before);
		put_members(to, rule, rule_names);
		/* Its names are one. */
		to->length--;
		if (body[to->length - 1] != '{')
			put_text(to, ",");
		put_text(to, "\"names\":[\"bpf\"]}");
		before = ",";
	}
	put_text(to, "]}");
}

static void put_config(struct writer *to, const struct json *config)
{
	static const char *const of_config[] = { "root", "annotations", NULL };
	static const char *const of_process[] = { "user", "noNewPrivileges", "capabilities", NULL };
	static const char *const of_linux[] = { "uidMappings", "gidMappings", "namespaces", NULL };
	const struct json *process = json_member(config, "process"), *linux_part = json_member(config, "linux");
	const struct json *seccomp = json_member(linux_part, "seccomp");

	put_text(to, ",\"config\":");
	put_members(to, config, of_config);
	to->length--;
	if (body[to->length - 1] != '{')
		put_text(to, ",");
	put_text(to, "\"process\":");
	put_members(to, process, of_process);
	put_text(to, ",\"linux\":");
	put_members(to, linux_part, of_linux);
	if (seccomp && seccomp->type == JSON_OBJECT) {
		to->length--;
		if (body[to->length - 1] != '{')
			put_text(to, ",");
		put_text(to, "\"seccomp\":");
		put_seccomp(to, seccomp);
		put_text(to, "}");
	}
	put_text(to, "}");
}

/* ---- What is read ---- */

/*
 * Where the runtime, which called us, was told that the bundle is. With --privileged crun says that it
 * is "/", and was told otherwise. NULL: its words name no directory.
 */
static const char *bundle_told(pid_t runtime, char *words, size_t room)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", runtime);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read_all(fd, words, room - 1);

	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return NULL;
	words[length] = '\0';
	for (const char *word = words, *next; (next = word + strlen(word) + 1) < words + length; word = next)
		if ((strcmp(word, "--bundle") == 0 || strcmp(word, "-b") == 0) && *next == '/')
			return next;
	return NULL;
}

/* -1: there is none. */
static int open_config(const char *bundle)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/config.json", bundle) >= (int)sizeof(path))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* The id is a name of a file, and of nothing else. */
static bool is_plain(const char *id)
{
	return *id && *id != '.' && !strchr(id, '/');
}

/* ---- What Podman has written down of the container ---- */

/* The number of values in the JSON of a file that is root's alone to change; 0: there is none. */
static size_t read_of_root(const char *path, struct json *values, size_t room)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	bool ours = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == 0 && !(st.st_mode & 022);
	ssize_t length = ours ? read_all(fd, engine_text, ENGINE_MAX) : -1;

	if (fd >= 0)
		close(fd);
	return length < 0 ? 0 : json_read(engine_text, length, values, room);
}

static const struct json *container_in(const struct json *list, const char *id)
{
	for (const struct json *one = json_first(list); one; one = json_next(list, one)) {
		const char *own = json_string(json_member(one, "id"));
		if (own && strcmp(own, id) == 0)
			return one;
	}
	return NULL;
}

/*
 * Whether it may be the image that asks: Podman adds the annotations of an image's manifest to those
 * that whoever starts the container gives, and says of none where it is from.
 */
static bool image_may_ask(const char *records, const char *image)
{
	static const char ours[] = "bpftoken.dev/", containers[] = "-containers";
	char path[2 * PATH_MAX];
	size_t length = strlen(records), end = sizeof(containers) - 1;

	if (!*image)
		return false;
	if (!is_plain(image) || length < end || strcmp(records + length - end, containers) != 0 ||
	    snprintf(path, sizeof(path), "%.*s-images/%s/manifest", (int)(length - end), records, image) >=
		    (int)sizeof(path) ||
	    read_of_root(path, engine_values, ENGINE_VALUES) == 0)
		return true;
	const struct json *all = json_member(engine_values, "annotations");
	if (!all || all->type != JSON_OBJECT)
		return false;
	for (const struct json *at = all + 1; at < all + all->size; at += 1 + at[1].size)
		if (strncmp(at->text, ours, sizeof(ours) - 1) == 0)
			return true;
	return false;
}

/*
 * The name and the image, which no runtime is told, from the records of containers/storage: they lie
 * beside the directory of the container that its bundle is in. Of others than Podman there are none,
 * and then a policy that names containers does not match. Containers that are removed when they end
 * have a file of their own since Podman 4.4.
 */
static void put_engine(struct writer *to, const char *bundle, const char *id)
{
	static const char *const lists[] = { "containers.json", "volatile-containers.json" };
	char records[PATH_MAX], path[PATH_MAX + 32], image_id[256];
	static struct json meta[256];
	const struct json *own = NULL;

	if (!is_plain(id) || snprintf(path, sizeof(path), "%s/../..", bundle) >= PATH_MAX || !realpath(path, records))
		return;
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]) && !own; i++) {
		snprintf(path, sizeof(path), "%s/%s", records, lists[i]);
		if (read_of_root(path, engine_values, ENGINE_VALUES) > 0)
			own = container_in(engine_values, id);
	}
	if (!own)
		return;
	/* Not that of the metadata, which is as it was made: it may be called otherwise by now. */
	const char *name = json_string(json_first(json_member(own, "names")));
	const char *made_of = json_string(json_member(own, "image"));
	/* JSON in a string of JSON, which is decoded where it stands. */
	const struct json *text = json_member(own, "metadata");
	bool good = json_string(text) && json_read((char *)text->text, text->length, meta, 256) > 0;
	const char *image = good ? json_string(json_member(meta, "image-name")) : NULL;

	put_text(to, ",\"engine\":{");
	if (name) {
		put_text(to, "\"name\":");
		put_string(to, name);
		put_text(to, ",");
	}
	if (image && *image) {
		put_text(to, "\"image\":");
		put_string(to, image);
		put_text(to, ",");
	}
	bool fits = snprintf(image_id, sizeof(image_id), "%s", made_of ? made_of : "") < (int)sizeof(image_id);
	put_text(to, "\"imageMayAsk\":");
	put_text(to, !fits || image_may_ask(records, image_id) ? "true}" : "false}");
}

const char *question(int from, pid_t runtime, char *id, size_t room, const char **fault)
{
	static const char *const of_state[] = { "id", "pid", "status", "root", "annotations", NULL };
	static char words[WORDS_MAX];
	struct writer to = { 0 };
	struct stat st;

	snprintf(id, room, "?");
	ssize_t length = read_all(from, state_text, STATE_MAX);
	*fault = "the runtime's state has more than 160 KiB, or cannot be read";
	if (length < 0)
		return NULL;
	*fault = "the runtime's state is no JSON: a runtime calls this, at its stage createRuntime";
	if (json_read(state_text, length, state_values, STATE_VALUES) == 0 || state_values->type != JSON_OBJECT)
		return NULL;
	const char *name = json_string(json_member(state_values, "id"));
	const char *bundle = json_string(json_member(state_values, "bundle"));
	*fault = "the runtime's state does not say which container it is, and where its bundle is";
	if (!name || !bundle)
		return NULL;
	snprintf(id, room, "%s", name);
	const char *told = strcmp(bundle, "/") == 0 ? bundle_told(runtime, words, sizeof(words)) : NULL;
	if (told)
		bundle = told;
	put_text(&to, "{\"state\":");
	put_members(&to, state_values, of_state);
	/* Its id is there. */
	to.length--;
	put_text(&to, ",\"bundle\":");
	put_string(&to, bundle);
	put_text(&to, "}");
	int fd = open_config(bundle);
	if (fd >= 0) {
		*fault = "the bundle's config.json is no file, has more than 1 MiB, or cannot be read";
		length = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read_all(fd, config_text, CONFIG_MAX) : -1;
		close(fd);
		if (length < 0)
			return NULL;
		*fault = "the bundle's config.json is no JSON, or has too much in it";
		if (json_read(config_text, length, config_values, CONFIG_VALUES) == 0 ||
		    config_values->type != JSON_OBJECT)
			return NULL;
		put_config(&to, config_values);
	}
	put_engine(&to, bundle, name);
	put_text(&to, "}");
	*fault = "what the runtime says of the container is longer than the daemon takes";
	return to.full ? NULL : body;
}
