/*
 * Receives descriptor 3 by io_uring, with the credentials that it had at first as those of the
 * operation: once as it is, and once in a user namespace of its own making, below. Says of each
 * time how it went, one word a line: ok, refused (no descriptor came), or none (no io_uring).
 */
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ENTRIES = 8, RING_BYTES = 4096 };

static struct io_uring_params params;
static int ring, personality, ends[2];

/* Of the one message that comes. */
static char control[CMSG_SPACE(sizeof(int))], byte;
static struct iovec bytes = { &byte, 1 };
static struct msghdr message = { .msg_iov = &bytes, .msg_iovlen = 1 };

static int send_descriptor(void)
{
	struct cmsghdr *header;
	int fd = 3;

	message.msg_control = control;
	message.msg_controllen = sizeof(control);
	header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(ends[0], &message, 0) == 1;
}

static const char *receive(void)
{
	int protection = PROT_READ | PROT_WRITE;
	char *queue = mmap(0, RING_BYTES, protection, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	struct io_uring_sqe *entries = mmap(0, RING_BYTES, protection, MAP_SHARED, ring, IORING_OFF_SQES);
	unsigned int *tail, *array, at;

	if (queue == MAP_FAILED || entries == MAP_FAILED || !send_descriptor())
		return "none";
	memset(control, 0, sizeof(control));
	message.msg_controllen = sizeof(control);
	tail = (unsigned int *)(queue + params.sq_off.tail);
	array = (unsigned int *)(queue + params.sq_off.array);
	at = *tail % ENTRIES;
	entries[at] = (struct io_uring_sqe){
		.opcode = IORING_OP_RECVMSG,
		.fd = ends[1],
		.addr = (unsigned long)&message,
		.len = 1,
		.personality = personality,
	};
	array[at] = at;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return "none";
	return message.msg_controllen >= CMSG_LEN(sizeof(int)) ? "ok" : "refused";
}

int main(void)
{
	pid_t child;

	ring = syscall(SYS_io_uring_setup, ENTRIES, &params);
	personality = ring < 0 ? -1 : syscall(SYS_io_uring_register, ring, IORING_REGISTER_PERSONALITY, NULL, 0);
	if (personality < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
		puts("none\nnone");
		return 0;
	}
	puts(receive());
	fflush(stdout);
	child = fork();
	if (child == 0) {
		puts(unshare(CLONE_NEWUSER) == 0 ? receive() : "none");
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return 0;
}
