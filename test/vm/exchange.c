/*
 * Makes one call of bpf(2) over and over, while another thread puts into descriptor 10 now a copy of
 * descriptor 3, which the caller may use so, and now one of 4, which it may not:
 *
 *   exchange link HEX OFFSET VALUE    HEX is the attribute of BPF_LINK_CREATE. A link of which the
 *                                     kernel says VALUE at OFFSET of struct bpf_link_info came of 4
 *   exchange map INDEX                puts that number of a device into the map. 3 is any map, 4 one
 *                                     of devices
 *   exchange alone INDEX              the same into 3, without another thread
 *
 * Ends after TRIES calls, or SECONDS, or when it came to what was meant. Says how many calls had
 * which end: {"ok":N,"reached":N,"13":N}, where what has a number is an errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAP_LOOKUP_ELEM = 1, MAP_UPDATE_ELEM = 2, OBJ_GET_INFO_BY_FD = 15, LINK_CREATE = 28 };
enum { GOOD = 3, BAD = 4, EXCHANGED = 10 };
enum { TRIES = 60000, SECONDS = 15 };

static atomic_bool done;

static void *exchange(void *unused)
{
	for (unsigned int i = 0; !done; i++) {
		dup3(GOOD + i % 2, EXCHANGED, 0);
		for (atomic_int pause = rand() & 255; pause > 0; pause--)
			;
	}
	return unused;
}

struct element {
	uint32_t map;
	uint64_t key;
	uint64_t value;
	uint64_t flags;
};

static long element(int cmd, uint32_t map, uint32_t *value)
{
	uint32_t key = 0;
	struct element of = { .map = map, .key = (uintptr_t)&key, .value = (uintptr_t)value };

	return syscall(SYS_bpf, cmd, &of, sizeof(of));
}

/* 1: it came of what the caller may not use. */
static int has_reached(int link, size_t offset, uint32_t bad)
{
	unsigned char info[256] = { 0 };
	struct {
		uint32_t fd;
		uint32_t size;
		uint64_t info;
	} ask = { .fd = link, .size = sizeof(info), .info = (uintptr_t)info };
	uint32_t value = 0;

	if (offset > sizeof(info) - sizeof(value) || syscall(SYS_bpf, OBJ_GET_INFO_BY_FD, &ask, sizeof(ask)) != 0)
		exit(1);
	memcpy(&value, info + offset, sizeof(value));
	return value == bad;
}

int main(int argc, char **argv)
{
	unsigned char attr[256] = { 0 };
	int ends[256] = { 0 }, reached = 0, ok = 0, is_link;
	size_t bytes = 0;
	time_t end = time(NULL) + SECONDS;
	pthread_t thread;

	if (argc < 3)
		return 2;
	is_link = strcmp(argv[1], "link") == 0;
	if (is_link) {
		bytes = strlen(argv[2]) / 2;
		if (argc != 5 || bytes > sizeof(attr))
			return 2;
		for (size_t i = 0; i < bytes; i++)
			sscanf(argv[2] + 2 * i, "%2hhx", &attr[i]);
	}
	dup3(GOOD, EXCHANGED, 0);
	if (strcmp(argv[1], "alone") != 0 && pthread_create(&thread, NULL, exchange, NULL) != 0)
		return 1;
	for (int i = 0; i < TRIES && !reached && time(NULL) < end; i++) {
		uint32_t value = is_link ? 0 : strtoul(argv[2], NULL, 10);
		long made = is_link ? syscall(SYS_bpf, LINK_CREATE, attr, bytes) :
				      element(MAP_UPDATE_ELEM, EXCHANGED, &value);

		if (made < 0) {
			ends[errno & 255]++;
		} else if (is_link) {
			reached = has_reached(made, strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
			ok++;
			close(made);
		} else {
			ok++;
			value = 0;
			reached = element(MAP_LOOKUP_ELEM, BAD, &value) == 0 && value != 0;
		}
	}
	done = 1;
	printf("{\"ok\":%d,\"reached\":%d", ok, reached);
	for (int i = 0; i < 256; i++)
		if (ends[i] > 0)
			printf(",\"%d\":%d", i, ends[i]);
	printf("}\n");
	return 0;
}
