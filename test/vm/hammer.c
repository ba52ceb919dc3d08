/*
 * Makes maps, one after the other, under the tokens with descriptors 3 to 2 + COUNT in turn, until
 * it is refused: hammer HEX OFFSET COUNT, where HEX is the attribute of BPF_MAP_CREATE and OFFSET
 * that of the token's descriptor in it. Says `go` after the first round, and after later ones where
 * it has not said so for a while; and at the end how many it made, when the last that succeeded
 * began (CLOCK_MONOTONIC, ns), and the errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned char attr[256] = { 0 };
	long long made = 0, last = 0, told = 0;

	if (argc != 4 || strlen(argv[1]) > 2 * sizeof(attr))
		return 2;
	size_t bytes = strlen(argv[1]) / 2;
	int offset = atoi(argv[2]), count = atoi(argv[3]);
	for (size_t i = 0; i < bytes; i++)
		sscanf(argv[1] + 2 * i, "%2hhx", &attr[i]);
	for (;; made++) {
		struct timespec now;
		int token = 3 + made % count;

		memcpy(attr + offset, &token, sizeof(token));
		clock_gettime(CLOCK_MONOTONIC, &now);
		long map = syscall(SYS_bpf, 0, attr, bytes);
		if (map < 0)
			break;
		close(map);
		usleep(500); /* The kernel frees maps later, and must keep up. */
		last = now.tv_sec * 1000000000LL + now.tv_nsec;
		if (made > 0 && made % count == 0 && last - told > 50000000) {
			told = last;
			puts("go");
			fflush(stdout);
		}
	}
	printf("{\"made\":%lld,\"last\":\"%lld\",\"errno\":%d}\n", made, last, errno);
	return 0;
}
