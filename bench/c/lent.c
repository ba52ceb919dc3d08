/*
 * lent NAMESPACES MOUNTS: so many mount namespaces with a process each, and in each so many mounts,
 * one of them a bpffs that delegates. Says "ready", and takes all away at the end of its input.
 */
#include "within.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static FILE *table_of_mounts(void)
{
	FILE *table = fopen("/proc/self/mountinfo", "re");
	ok(table ? 0 : -1, "mountinfo");
	return table;
}

/* Detaches all but the root and /proc, as far as it can be; how many mounts stay. */
static int keep_few(void)
{
	char line[4096], path[4096];
	int left = 0;
	FILE *table = table_of_mounts();

	ok(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make private");
	while (fgets(line, sizeof(line), table))
		if (sscanf(line, "%*s %*s %*s %*s %4095s", path) == 1 && strcmp(path, "/") && strcmp(path, "/proc"))
			umount2(path, MNT_DETACH);
	fclose(table);
	for (table = table_of_mounts(); fgets(line, sizeof(line), table);)
		left++;
	fclose(table);
	return left;
}

/* As in a container: one file system with directories, and others on these. */
static void lend(int mounts)
{
	char path[32];

	ok(unshare(CLONE_NEWNS), "unshare");
	ok(mount("none", "/mnt", "tmpfs", 0, NULL), "mount of tmpfs");
	for (int i = 2; i < mounts; i++) {
		snprintf(path, sizeof(path), "/mnt/%d", i);
		ok(mkdir(path, 0700), "mkdir");
		ok(mount("none", path, "tmpfs", 0, NULL), "mount of tmpfs");
	}
	ok(mkdir("/mnt/bpf", 0700), "mkdir");
	ok(mount("none", "/mnt/bpf", "bpf", 0,
		 "delegate_cmds=map_create:prog_load,delegate_maps=array,delegate_progs=xdp,delegate_attachs=xdp"),
	   "mount of bpffs");
}

int main(int argc, char **argv)
{
	int namespaces = argc > 1 ? atoi(argv[1]) : 1, mounts = argc > 2 ? atoi(argv[2]) : 1, done[2];
	char word;

	ok(pipe2(done, O_CLOEXEC), "pipe2");
	ok(unshare(CLONE_NEWNS), "unshare");
	mounts -= keep_few();
	for (int i = 0; i < namespaces; i++) {
		if (ok(fork(), "fork"))
			continue;
		ok(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
		close(done[0]);
		lend(mounts);
		ok(write(done[1], "r", 1), "write");
		for (;;)
			pause();
	}
	for (int i = 0; i < namespaces; i++)
		if (ok(read(done[0], &word, 1), "read") == 0)
			return 1;
	puts("ready");
	fflush(stdout);
	while (read(0, &word, 1) > 0)
		;
	return 0;
}
