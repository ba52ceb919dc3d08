/*
 * A workload that makes real calls of bpf(2) under a real token, times them, and runs programs of
 * bpf/guard-cost.bpf.c where it is: see judgement.ts. It stays on one processor.
 *
 * For each line on stdin, one line of numbers on stdout:
 *   token PATH         opens the bpffs there and makes a token, and a map: descriptor of the token
 *   maps TYPE ENTRIES N  makes N maps: nanoseconds, and their descriptors
 *   programs N         loads N programs: the same
 *   lookup N, empty N  N lookups in that map; N calls of a command that is none: nanoseconds
 *   link FD            attaches the program to the workload's own device `lo`: descriptor of the link
 *   close FD...        closes these
 *   run FD WORD...     runs the program of that descriptor with these words of 64 bits: the words
 *                      afterwards
 *   runs FD N M WORD...  runs it N times with the first word counted up, with M 1 each time after
 *                      calls that make a map and close it: the sums of the last two words
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAP_CREATE = 0, MAP_LOOKUP_ELEM = 1, PROG_LOAD = 5, PROG_TEST_RUN = 10, LINK_CREATE = 28, TOKEN_CREATE = 36, NO_COMMAND = 63 };
enum { MAP_TYPE_ARRAY = 2, PROG_TYPE_XDP = 6, F_TOKEN_FD = 1 << 16 };
enum { ATTACH_TYPE_XDP = 37, XDP_SKB_MODE = 2, LOOPBACK = 1 };
enum { MAX_WORDS = 16 };

/* The parts of union bpf_attr that we use; the system's headers may not have the token. */
struct map_attr {
	uint32_t type, key_size, value_size, max_entries, flags;
	uint32_t unused[14];
	uint32_t token_fd;
};
struct prog_attr {
	uint32_t type, insn_cnt;
	uint64_t insns, license;
	uint32_t unused[5];
	uint32_t flags;
	uint32_t more[24];
	uint32_t token_fd;
	uint32_t end;
};
struct run_attr {
	uint32_t prog_fd, retval, data_size_in, data_size_out;
	uint64_t data_in, data_out;
	uint32_t repeat, duration, ctx_size_in, ctx_size_out;
	uint64_t ctx_in, ctx_out;
	uint32_t flags, cpu, batch_size, end;
};
struct element_attr {
	uint32_t map_fd, pad;
	uint64_t key, value, flags;
};
struct link_attr {
	uint32_t prog_fd, device, attach_type, flags;
};
struct token_attr {
	uint32_t flags, bpffs_fd;
};

_Static_assert(sizeof(struct map_attr) == 80, "map_token_fd is at 76");
_Static_assert(sizeof(struct prog_attr) == 152, "prog_token_fd is at 144");
_Static_assert(sizeof(struct run_attr) == 80, "run_attr");

static uint32_t token, own_map;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static long ok(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static long bpf(int cmd, void *attr, unsigned size)
{
	return syscall(SYS_bpf, cmd, attr, size);
}

static int make_map(uint32_t type, uint32_t entries)
{
	struct map_attr attr = {
		.type = type, .key_size = 4, .value_size = 4, .max_entries = entries, .flags = F_TOKEN_FD, .token_fd = token,
	};

	return ok(bpf(MAP_CREATE, &attr, sizeof(attr)), "BPF_MAP_CREATE");
}

static int load_program(void)
{
	static const uint64_t insns[] = { 0x00000002000000b7, 0x95 }; /* r0 = 2; exit */
	struct prog_attr attr = {
		.type = PROG_TYPE_XDP, .insn_cnt = 2, .insns = (uintptr_t)insns, .license = (uintptr_t)"GPL",
		.flags = F_TOKEN_FD, .token_fd = token,
	};

	return ok(bpf(PROG_LOAD, &attr, sizeof(attr)), "BPF_PROG_LOAD");
}

/* `entries` 0: programs. */
static void make_many(long count, uint32_t type, uint32_t entries)
{
	int *fds = calloc(count, sizeof(*fds));
	uint64_t began = now_ns();

	for (long i = 0; i < count; i++)
		fds[i] = entries ? make_map(type, entries) : load_program();
	printf("%llu", (unsigned long long)(now_ns() - began));
	for (long i = 0; i < count; i++)
		printf(" %d", fds[i]);
	free(fds);
}

static void make_token(const char *path)
{
	int root = ok(open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC), path);
	struct token_attr attr = { .bpffs_fd = root };

	token = ok(bpf(TOKEN_CREATE, &attr, sizeof(attr)), "BPF_TOKEN_CREATE");
	close(root);
	own_map = make_map(MAP_TYPE_ARRAY, 1);
	printf("%u", token);
}

static void call_many(long count, int cmd)
{
	uint32_t key = 0, value;
	uint64_t began = now_ns();

	for (long i = 0; i < count; i++) {
		struct element_attr attr = { .map_fd = own_map, .key = (uintptr_t)&key, .value = (uintptr_t)&value };
		long result = bpf(cmd, &attr, sizeof(attr));

		if (cmd == NO_COMMAND ? result != -1 || errno != EINVAL : result != 0) {
			perror("bpf");
			exit(1);
		}
	}
	printf("%llu", (unsigned long long)(now_ns() - began));
}

static void attach(uint32_t prog)
{
	struct link_attr attr = {
		.prog_fd = prog, .device = LOOPBACK, .attach_type = ATTACH_TYPE_XDP, .flags = XDP_SKB_MODE,
	};

	printf("%ld", ok(bpf(LINK_CREATE, &attr, sizeof(attr)), "BPF_LINK_CREATE"));
}

static int words_of(char *text, uint64_t *words)
{
	int count = 0;

	for (char *word = strtok(text, " \n"); word && count < MAX_WORDS; word = strtok(NULL, " \n"))
		words[count++] = strtoull(word, NULL, 10);
	return count;
}

static void run(uint32_t prog, uint64_t *words, int count)
{
	struct run_attr attr = { .prog_fd = prog, .ctx_in = (uintptr_t)words, .ctx_size_in = count * sizeof(*words) };

	ok(bpf(PROG_TEST_RUN, &attr, sizeof(attr)), "BPF_PROG_TEST_RUN");
	if (attr.retval != 0) {
		fprintf(stderr, "the program returned %u\n", attr.retval);
		exit(1);
	}
}

static void run_often(uint32_t prog, long times, int after_calls, uint64_t *words, int count)
{
	uint64_t allowed = 0, ns = 0;

	for (long i = 0; i < times; i++) {
		if (after_calls)
			close(make_map(MAP_TYPE_ARRAY, 1));
		words[0] = i;
		run(prog, words, count);
		allowed += words[count - 2];
		ns += words[count - 1];
	}
	printf("%llu %llu", (unsigned long long)allowed, (unsigned long long)ns);
}

static void answer(char *line)
{
	char *what = strtok(line, " \n");
	char *rest = strtok(NULL, "\n");
	uint64_t words[MAX_WORDS];
	int count;

	if (!strcmp(what, "token")) {
		make_token(rest);
		return;
	}
	count = words_of(rest, words);
	if (!strcmp(what, "maps"))
		make_many(words[2], words[0], words[1]);
	else if (!strcmp(what, "programs"))
		make_many(words[0], 0, 0);
	else if (!strcmp(what, "lookup"))
		call_many(words[0], MAP_LOOKUP_ELEM);
	else if (!strcmp(what, "empty"))
		call_many(words[0], NO_COMMAND);
	else if (!strcmp(what, "link"))
		attach(words[0]);
	else if (!strcmp(what, "close"))
		for (int i = 0; i < count; i++)
			close(words[i]);
	else if (!strcmp(what, "run")) {
		run(words[0], words + 1, count - 1);
		for (int i = 1; i < count; i++)
			printf("%llu ", (unsigned long long)words[i]);
	} else if (!strcmp(what, "runs"))
		run_often(words[0], words[1], words[2], words + 3, count - 3);
	else
		exit(2);
}

int main(void)
{
	char line[4096];
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	ok(sched_setaffinity(0, sizeof(here), &here), "sched_setaffinity");
	while (fgets(line, sizeof(line), stdin)) {
		answer(line);
		putchar('\n');
		fflush(stdout);
	}
	return 0;
}
