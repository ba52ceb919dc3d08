/*
 * bpf(2) calls in plain C, for comparison.
 *
 *   calls MAP_FD BPFFS_PATH [cpu]
 *
 * For each line "update N", "lookup N", "token N", "create N" or "getppid N" on stdin it makes N
 * calls and answers with the nanoseconds from start to end, or with "cpu" those on a processor. The
 * map is a hash map with 4-byte keys and 8-byte values, made by the benchmark. "create" makes an
 * array and closes it; "getppid" is the call that does least.
 */
#include "within.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>

#define KEYS 1024

enum { MAP_CREATE = 0, MAP_LOOKUP_ELEM = 1, MAP_UPDATE_ELEM = 2, TOKEN_CREATE = 36 };

/* The parts of union bpf_attr that we use; Debian's headers may not have the token. */
struct element {
	uint32_t map_fd, pad;
	uint64_t key, value, flags;
};
struct token {
	uint32_t flags, bpffs_fd;
};
struct map {
	uint32_t type, key_size, value_size, max_entries, flags, inner_fd, node;
	char name[16];
};

static uint64_t ns_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static long bpf(int cmd, void *attr, unsigned size)
{
	return syscall(SYS_bpf, cmd, attr, size);
}

static void elements(int cmd, int map, long count)
{
	for (long i = 0; i < count; i++) {
		uint32_t key = i % KEYS;
		uint64_t value = i;
		struct element attr = { .map_fd = map, .key = (uintptr_t)&key, .value = (uintptr_t)&value };
		ok(bpf(cmd, &attr, sizeof(attr)), "bpf");
	}
}

static void tokens(const char *path, long count)
{
	const struct open_how how = { .flags = O_DIRECTORY | O_RDONLY | O_CLOEXEC };

	for (long i = 0; i < count; i++) {
		int root = ok(syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how)), "openat2");
		struct token attr = { .bpffs_fd = root };
		int fd = ok(bpf(TOKEN_CREATE, &attr, sizeof(attr)), "BPF_TOKEN_CREATE");
		close(root);
		close(fd);
	}
}

static void maps(long count)
{
	for (long i = 0; i < count; i++) {
		struct map attr = { .type = 2, .key_size = 4, .value_size = 8, .max_entries = 1, .name = "calls" };
		close(ok(bpf(MAP_CREATE, &attr, sizeof(attr)), "BPF_MAP_CREATE"));
	}
}

int main(int argc, char **argv)
{
	char kind[16];
	long count;

	if (argc != 3 && argc != 4) {
		fputs("usage: calls MAP_FD BPFFS_PATH [cpu]\n", stderr);
		return 2;
	}
	while (scanf("%15s %ld", kind, &count) == 2) {
		clockid_t clock = argc == 4 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
		uint64_t start = ns_of(clock);
		if (strcmp(kind, "token") == 0)
			tokens(argv[2], count);
		else if (strcmp(kind, "create") == 0)
			maps(count);
		else if (strcmp(kind, "getppid") == 0)
			for (long i = 0; i < count; i++)
				syscall(SYS_getppid);
		else
			elements(strcmp(kind, "update") == 0 ? MAP_UPDATE_ELEM : MAP_LOOKUP_ELEM, atoi(argv[1]), count);
		printf("%llu\n", (unsigned long long)(ns_of(clock) - start));
		fflush(stdout);
	}
	return 0;
}
