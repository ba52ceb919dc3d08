/*
 * A program of a container. It makes a token of the bpffs at PATH, and
 *   token map PATH            makes a map under it
 *   token keep PATH           makes a map under it, and another one for each line of its input
 *   token send PATH SOCKET    passes it to whoever listens at SOCKET, and waits until its input ends
 *   token receive SOCKET      listens there, makes a map under what it is passed, and another one for
 *                             each line of its input
 * For each step it prints `ok`, or the step with the errno; `none` if no descriptor came.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAP_CREATE = 0, TOKEN_CREATE = 36, HASH = 1, WITH_TOKEN = 1 << 16 };

static int fail(const char *step)
{
	printf("%s %s\n", step, strerrorname_np(errno));
	fflush(stdout);
	return -1;
}

static int make_token(const char *path)
{
	struct { __u32 flags, bpffs_fd; } attr = { 0 };
	int directory = open(path, O_DIRECTORY | O_CLOEXEC), token;

	if (directory < 0)
		return fail("open");
	attr.bpffs_fd = directory;
	token = syscall(SYS_bpf, TOKEN_CREATE, &attr, sizeof(attr));
	return token < 0 ? fail("token") : token;
}

static int make_map(int token)
{
	struct {
		__u32 type, key, value, entries, flags, inner, node;
		char name[16];
		__u32 ifindex, btf_fd, btf_key, btf_value, btf_vmlinux;
		__u64 extra __attribute__((aligned(8)));
		__s32 btf_obj, token;
	} attr = { .type = HASH, .key = 4, .value = 4, .entries = 1, .flags = WITH_TOKEN, .token = token };
	int map = syscall(SYS_bpf, MAP_CREATE, &attr, sizeof(attr));

	if (map < 0)
		return fail("map");
	close(map);
	puts("ok");
	fflush(stdout);
	return 0;
}

/* One, and another one for each line of the input. */
static void make_maps(int token)
{
	int c;

	make_map(token);
	while ((c = getchar()) != EOF)
		if (c == '\n')
			make_map(token);
}

static int unix_socket(const char *path, struct sockaddr_un *address)
{
	address->sun_family = AF_UNIX;
	strncpy(address->sun_path, path, sizeof(address->sun_path) - 1);
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int send_token(const char *path, const char *where)
{
	struct sockaddr_un address = { 0 };
	union control control = { 0 };
	struct iovec byte = { .iov_base = "t", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int token = make_token(path), to = unix_socket(where, &address);

	if (token < 0)
		return 1;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &token, sizeof(int));
	if (connect(to, (struct sockaddr *)&address, sizeof(address)) < 0 || sendmsg(to, &message, 0) < 0)
		return fail("send"), 1;
	puts("ok");
	fflush(stdout);
	getchar();
	return 0;
}

static int receive_token(const char *where)
{
	struct sockaddr_un address = { 0 };
	union control control = { 0 };
	char text;
	struct iovec byte = { .iov_base = &text, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int at = unix_socket(where, &address), from, token;
	struct cmsghdr *header;

	umask(0); /* whoever sends is another user */
	if (bind(at, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(at, 1) < 0)
		return fail("listen"), 1;
	puts("listening");
	fflush(stdout);
	alarm(120); /* whoever was to send it may have failed */
	from = accept(at, NULL, NULL);
	if (from < 0 || recvmsg(from, &message, 0) < 0)
		return fail("receive"), 1;
	header = CMSG_FIRSTHDR(&message);
	if (header == NULL || header->cmsg_type != SCM_RIGHTS || header->cmsg_len < CMSG_LEN(sizeof(int))) {
		puts("none");
		return 0;
	}
	memcpy(&token, CMSG_DATA(header), sizeof(int));
	alarm(0);
	make_maps(token);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "map") == 0) {
		int token = make_token(argv[2]);

		return token < 0 || make_map(token) < 0;
	}
	if (argc == 3 && strcmp(argv[1], "keep") == 0) {
		int token = make_token(argv[2]);

		if (token < 0)
			return 1;
		make_maps(token);
		return 0;
	}
	if (argc == 4 && strcmp(argv[1], "send") == 0)
		return send_token(argv[2], argv[3]);
	if (argc == 3 && strcmp(argv[1], "receive") == 0)
		return receive_token(argv[2]);
	return 2;
}
