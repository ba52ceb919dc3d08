/*
 * A workload for tests: does the system calls it is told to, one message each, on the
 * SOCK_SEQPACKET socket that is its standard input. Compiled by workload.ts when a test runs.
 *
 *   call NAME ARGUMENT...   -> "RESULT [HEX...]"   result or -errno, then the b buffers as they are now
 *                              an argument is a number, s and hex (a string), b and hex (bytes); @OFF,HEX behind
 *                              a b writes the address of a string into those bytes
 *   take   (with a descriptor by SCM_RIGHTS)  -> "NUMBER"
 *   give NUMBER             -> "0", with the descriptor
 *
 * With an argument they are two processes with one table of descriptors. The second does what the
 * socket says that is descriptor 3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	long nr;
} CALLS[] = {
	{ "bpf", SYS_bpf },                    { "chroot", SYS_chroot },              { "close", SYS_close },
	{ "connect", SYS_connect },            { "dup", SYS_dup },                    { "dup3", SYS_dup3 },
	{ "eventfd2", SYS_eventfd2 },          { "execve", SYS_execve },              { "execveat", SYS_execveat },
	{ "fchmodat", SYS_fchmodat },          { "fsconfig", SYS_fsconfig },          { "fsmount", SYS_fsmount },
	{ "fsopen", SYS_fsopen },              { "fspick", SYS_fspick },              { "getpid", SYS_getpid },
	{ "listen", SYS_listen },              { "mkdirat", SYS_mkdirat },            { "mount", SYS_mount },
	{ "mmap", SYS_mmap },                  { "move_mount", SYS_move_mount },      { "open_tree", SYS_open_tree },
	{ "munmap", SYS_munmap },              { "openat", SYS_openat },
	{ "pidfd_getfd", SYS_pidfd_getfd },    { "pidfd_open", SYS_pidfd_open },      { "read", SYS_read },
	{ "setresgid", SYS_setresgid },        { "setresuid", SYS_setresuid },        { "setsockopt", SYS_setsockopt },
	{ "setxattr", SYS_setxattr },
	{ "socket", SYS_socket },              { "symlinkat", SYS_symlinkat },        { "umount2", SYS_umount2 },
	{ "unlinkat", SYS_unlinkat },          { "unshare", SYS_unshare },            { "write", SYS_write },
};

static long number_of(const char *name)
{
	for (size_t i = 0; i < sizeof(CALLS) / sizeof(CALLS[0]); i++)
		if (strcmp(CALLS[i].name, name) == 0)
			return CALLS[i].nr;
	fprintf(stderr, "workload: no call %s\n", name);
	exit(2);
}

/* The bytes that hex digits stand for, with a zero byte behind them. */
static unsigned char *bytes_of(const char *hex, size_t *length)
{
	unsigned char *bytes = calloc(1, strlen(hex) / 2 + 1);

	*length = strlen(hex) / 2;
	for (size_t i = 0; i < *length; i++)
		sscanf(hex + 2 * i, "%2hhx", &bytes[i]);
	return bytes;
}

/* What stands behind "call "; the answer goes to reply. */
static void do_call(char *text, char *reply)
{
	long arg[6] = { 0 };
	unsigned char *buffer[6] = { 0 };
	size_t length[6] = { 0 };
	char *save, *word = strtok_r(text, " ", &save);
	long nr = number_of(word);
	int outs[6], out = 0;

	for (int i = 0; i < 6 && (word = strtok_r(NULL, " ", &save)); i++) {
		if (*word == '@') {
			char *hex;
			long off = strtol(word + 1, &hex, 10);
			size_t unused;
			unsigned char *string = bytes_of(hex + 1, &unused); /* kept: the process is short-lived */
			memcpy(buffer[--i] + off, &string, sizeof(string));
		} else if (*word == 's' || *word == 'b') {
			buffer[i] = bytes_of(word + 1, &length[i]);
			arg[i] = (long)buffer[i];
			if (*word == 'b')
				outs[out++] = i;
		} else {
			arg[i] = strtol(word, NULL, 10);
		}
	}
	long result = syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	reply += sprintf(reply, "%ld", result < 0 ? (long)-errno : result);
	for (int i = 0; i < out; i++) {
		*reply++ = ' ';
		*reply = '\0';
		for (size_t at = 0; at < length[outs[i]]; at++)
			reply += sprintf(reply, "%02x", buffer[outs[i]][at]);
	}
	for (int i = 0; i < 6; i++)
		free(buffer[i]);
}

static int serve(int peer)
{
	static char text[16384], reply[16384];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;

	for (;;) {
		struct iovec in = { text, sizeof(text) - 1 };
		struct msghdr message = { .msg_iov = &in, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(peer, &message, 0);
		if (got <= 0)
			return 0; /* the test is over */
		text[got] = '\0';

		struct iovec out = { reply, 0 };
		struct msghdr answer = { .msg_iov = &out, .msg_iovlen = 1 };
		if (strncmp(text, "call ", 5) == 0) {
			do_call(text + 5, reply);
		} else if (strcmp(text, "take") == 0) {
			struct cmsghdr *header = CMSG_FIRSTHDR(&message);
			int fd = -1;
			if (header)
				memcpy(&fd, CMSG_DATA(header), sizeof(fd));
			sprintf(reply, "%d", fd);
		} else if (strncmp(text, "give ", 5) == 0) {
			int fd = atoi(text + 5);
			answer.msg_control = &control;
			answer.msg_controllen = sizeof(control);
			struct cmsghdr *header = CMSG_FIRSTHDR(&answer);
			header->cmsg_level = SOL_SOCKET;
			header->cmsg_type = SCM_RIGHTS;
			header->cmsg_len = CMSG_LEN(sizeof(fd));
			memcpy(CMSG_DATA(header), &fd, sizeof(fd));
			strcpy(reply, "0");
		} else {
			fprintf(stderr, "workload: what is %s\n", text);
			return 2;
		}
		out.iov_len = strlen(reply);
		if (sendmsg(peer, &answer, 0) < 0)
			return 1;
	}
}

int main(int argc, char **argv)
{
	(void)argv;
	/* Without a stack of its own it has a copy of ours, as after fork(2). */
	if (argc > 1 && syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) == 0)
		return serve(3);
	return serve(0);
}
