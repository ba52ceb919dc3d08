/*
 * A process whose second thread has files of its own, and in them a token and a map: it says
 * "ready" and waits.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BPF_MAP_CREATE = 0, BPF_TOKEN_CREATE = 36, BPF_MAP_TYPE_ARRAY = 2, BPF_F_TOKEN_FD = 1 << 16 };

static void *second(void *unused)
{
	int root, token, map;

	if (unshare(CLONE_FILES))
		return NULL;
	root = open("/sys/fs/bpf", O_RDONLY | O_DIRECTORY);
	/* flags, bpffs_fd */
	unsigned of_token[2] = { 0, root };
	token = syscall(SYS_bpf, BPF_TOKEN_CREATE, of_token, sizeof(of_token));
	/* map_type, key_size, value_size, max_entries, map_flags; map_token_fd */
	unsigned of_map[20] = { BPF_MAP_TYPE_ARRAY, 4, 4, 1, BPF_F_TOKEN_FD, [19] = token };
	map = syscall(SYS_bpf, BPF_MAP_CREATE, of_map, sizeof(of_map));
	puts(map < 0 ? "failed" : "ready");
	fflush(stdout);
	pause();
	return NULL;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, second, NULL))
		return 1;
	pause();
}
