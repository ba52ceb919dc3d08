/*
 * mountinfo: the least that finds all delegated bpffs mounts, by reading one mountinfo file of each
 * mount namespace that a thread is in. Prints each as its namespace and its line.
 */
#include "within.h"

#include <ctype.h>
#include <dirent.h>
#include <string.h>

enum { SLOTS = 1 << 16 };
static char seen[SLOTS][32];

/* Whether the namespace was not seen before. */
static int is_new(const char *name)
{
	unsigned slot = 5381;

	for (const char *at = name; *at; at++)
		slot = slot * 33 + (unsigned char)*at;
	for (slot %= SLOTS; *seen[slot]; slot = (slot + 1) % SLOTS)
		if (strcmp(seen[slot], name) == 0)
			return 0;
	strcpy(seen[slot], name);
	return 1;
}

static void search(const char *directory, const char *namespace)
{
	char path[512], *line = NULL;
	size_t size = 0;
	snprintf(path, sizeof(path), "%.300s/mountinfo", directory);
	FILE *table = fopen(path, "re");

	while (table && getline(&line, &size, table) > 0) {
		const char *type = strstr(line, " - bpf ");
		if (type && strstr(type, "delegate_"))
			printf("%s %s", namespace, line);
	}
	free(line);
	if (table)
		fclose(table);
}

static void each_number(const char *directory, void (*visit)(const char *path))
{
	char path[512];
	DIR *entries = opendir(directory);

	for (struct dirent *entry; entries && (entry = readdir(entries));)
		if (isdigit((unsigned char)*entry->d_name)) {
			snprintf(path, sizeof(path), "%.60s/%.200s", directory, entry->d_name);
			visit(path);
		}
	if (entries)
		closedir(entries);
}

static void visit_task(const char *task)
{
	char path[512], name[32];
	snprintf(path, sizeof(path), "%.300s/ns/mnt", task);
	ssize_t length = readlink(path, name, sizeof(name) - 1);

	if (length < 0)
		return;
	name[length] = 0;
	if (is_new(name))
		search(task, name);
}

static void visit_process(const char *process)
{
	char path[512];
	snprintf(path, sizeof(path), "%.300s/task", process);
	each_number(path, visit_task);
}

int main(void)
{
	each_number("/proc", visit_process);
	return 0;
}
