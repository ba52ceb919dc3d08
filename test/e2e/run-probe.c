/*
 * What a program of `bpftoken run` finds itself with.
 *
 *   run-probe                     one fact a line, "NAME VALUE"
 *   run-probe type                tries to type into the terminal that is its standard input, by every way to ioctl(2)
 *   run-probe keyed PROGRAM...    becomes PROGRAM, with a key in its session keyring
 *   run-probe master PROGRAM...   becomes PROGRAM, whose standard input is the master of another session's terminal
 */
#define _GNU_SOURCE
#include <asm/ioctls.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define HIGH_BITS 0xdeadbeef00000000ul
#define X32_IOCTL (0x40000000 + 514)
#define SESSION_KEYRING (-3)
#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEYCTL_SEARCH 10
#define KEY "user", "bpftoken-test"

extern char **environ;

static const char *answer(long result)
{
	return result >= 0 ? "ok" : strerrorname_np(errno);
}

static long native_ioctl(unsigned long request, void *argument)
{
	return syscall(SYS_ioctl, 0, request, argument);
}

#ifdef __x86_64__
static long x32_ioctl(unsigned long request, void *argument)
{
	return syscall(X32_IOCTL, 0, request, argument);
}

/* The system call of 32-bit programs. Its arguments have 32 bits, so the address must. */
static long compat_ioctl(unsigned long request, void *argument)
{
	static char *low;
	long result;

	if (!low)
		low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	memcpy(low, argument, 8);
	__asm__ volatile("int $0x80" : "=a"(result) : "0"(54L), "b"(0L), "c"((long)(unsigned int)request), "d"(low)
			 : "memory", "r8", "r9", "r10", "r11");
	if (result >= 0 || result < -4095)
		return result & 0xffffffff;
	errno = -result;
	return -1;
}
#endif

/* Types one character; beside it an ioctl that must work, by the same way. */
static void type(const char *way, long (*by)(unsigned long, void *), unsigned long bits)
{
	char character[8] = "#", three[8] = { 3 };
	struct { unsigned short rows, columns, x, y; } size;

	printf("%s TIOCSTI %s\n", way, answer(by(TIOCSTI | bits, character)));
	printf("%s TIOCLINUX %s\n", way, answer(by(TIOCLINUX | bits, three)));
	printf("%s TIOCGWINSZ %s\n", way, answer(by(TIOCGWINSZ | bits, &size)));
}

/*
 * Makes a terminal, gives it to a session that lasts as long as we do, and takes its master as
 * standard input.
 */
static int become_master(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), ready[2];
	char byte;

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		if (open(ptsname(master), O_RDWR) < 0 || write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	return read(ready[0], &byte, 1) == 1 && getsid(0) > 0 ? dup2(master, 0) : -1;
}

static void facts(void)
{
	char line[512], text[512] = "";
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;

	printf("descriptors");
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
			printf(" %s", entry->d_name);
	closedir(directory);
	printf("\nkey %s\n", answer(syscall(SYS_keyctl, KEYCTL_SEARCH, SESSION_KEYRING, KEY, 0)));
	mode_t mask = umask(0);
	printf("umask %03o\nuids %d:%d\ngroups %d\n", mask, getuid(), getgid(), getgroups(0, NULL));
	printf("leads-session %d\n", getsid(0) == getpid());
	printf("directory %s\n", getcwd(text, sizeof(text)) ? text : "none");
	printf("nice %d\nscheduler %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
	printf("io-class %ld\n", syscall(SYS_ioprio_get, 1, 0) >> 13);
	for (char **variable = environ; *variable; variable++)
		printf("env %s\n", *variable);
	FILE *status = fopen("/proc/self/status", "r");
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "Sig%511s", text) == 1 || sscanf(line, "Cap%511s", text) == 1 ||
		    sscanf(line, "NoNewPriv%511s", text) == 1)
			fputs(line, stdout);
	FILE *score = fopen("/proc/self/oom_score_adj", "r");
	if (fgets(line, sizeof(line), score))
		printf("oom %s", line);
	ssize_t length = readlink("/proc/self/ns/cgroup", text, sizeof(text) - 1);
	printf("cgroup-namespace %.*s\n", (int)length, text);
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "keyed") == 0) {
		if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ||
		    syscall(SYS_add_key, KEY, "secret", 6, SESSION_KEYRING) < 0)
			return 1;
		execvp(argv[2], argv + 2);
		return 1;
	}
	if (argc > 2 && strcmp(argv[1], "master") == 0) {
		if (become_master() < 0)
			return 1;
		execvp(argv[2], argv + 2);
		return 1;
	}
	if (argc < 2 || strcmp(argv[1], "type") != 0) {
		facts();
		return 0;
	}
	type("native", native_ioctl, 0);
	type("high-bits", native_ioctl, HIGH_BITS);
#ifdef __x86_64__
	type("x32", x32_ioctl, 0);
	/* By a child: where the kernel has no 32-bit system calls, this ends it. */
	fflush(stdout);
	if (fork() == 0) {
		type("32-bit", compat_ioctl, 0);
		return 0;
	}
	wait(NULL);
#endif
	return 0;
}
