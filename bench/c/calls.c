/*
 * bpf(2) calls in plain C, for comparison.
 *
 *   calls MAP_FD BPFFS_PATH
 *
 * For each line "update N", "lookup N" or "token N" on stdin it makes N calls and answers with
 * their nanoseconds. The map is a hash map with 4-byte keys and 8-byte values, made by the
 * benchmark.
 */
#include "within.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>

#define KEYS 1024

enum { MAP_LOOKUP_ELEM = 1, MAP_UPDATE_ELEM = 2, TOKEN_CREATE = 36 };

/* The parts of union bpf_attr that we use; Debian's headers may not have the token. */
struct element {
	uint32_t map_fd, pad;
	uint64_t key, value, flags;
};
struct token {
	uint32_t flags, bpffs_fd;
};

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

int main(int argc, char **argv)
{
	char kind[16];
	long count;

	if (argc != 3) {
		fputs("usage: calls MAP_FD BPFFS_PATH\n", stderr);
		return 2;
	}
	while (scanf("%15s %ld", kind, &count) == 2) {
		uint64_t start = now_ns();
		if (strcmp(kind, "token") == 0)
			tokens(argv[2], count);
		else
			elements(strcmp(kind, "update") == 0 ? MAP_UPDATE_ELEM : MAP_LOOKUP_ELEM, atoi(argv[1]), count);
		printf("%llu\n", (unsigned long long)(now_ns() - start));
		fflush(stdout);
	}
	return 0;
}
