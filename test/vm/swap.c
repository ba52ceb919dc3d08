/*
 * Makes maps under the token with descriptor 5, while another thread puts there the token with
 * descriptor 3, then that with 4, then 3 again: swap HEX, where HEX is the attribute of
 * BPF_MAP_CREATE. Keeps the maps. Goes on until calls were refused with EDQUOT and with EPERM, each
 * MANY times, or for SECONDS; then says how many maps there are, and how many calls ended with
 * which errno, and waits for the end of its input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MANY = 500, SECONDS = 120 };

static atomic_bool done;

static void *swap(void *unused)
{
	for (int i = 0; !done; i++)
		dup2(3 + i % 2, 5);
	return unused;
}

int main(int argc, char **argv)
{
	unsigned char attr[256] = { 0 };
	int errors[256] = { 0 }, made = 0;
	time_t end = time(NULL) + SECONDS;
	pthread_t thread;

	if (argc != 2 || strlen(argv[1]) > 2 * sizeof(attr))
		return 2;
	for (size_t i = 0; i < strlen(argv[1]) / 2; i++)
		sscanf(argv[1] + 2 * i, "%2hhx", &attr[i]);
	dup2(3, 5);
	if (pthread_create(&thread, NULL, swap, NULL) != 0)
		return 1;
	while ((errors[EDQUOT] < MANY || errors[EPERM] < MANY) && time(NULL) < end) {
		if (syscall(SYS_bpf, 0, attr, strlen(argv[1]) / 2) >= 0)
			made++;
		else
			errors[errno & 255]++;
	}
	done = 1;
	pthread_join(thread, NULL);
	printf("{\"made\":%d", made);
	for (int i = 0; i < 256; i++)
		if (errors[i] > 0)
			printf(",\"%d\":%d", i, errors[i]);
	printf("}\n");
	fflush(stdout);
	getchar(); /* keeps the maps until its input ends */
	return 0;
}
