/* Messages with descriptors: see launchd.h. */
#include "launchd.h"

#include "../launch.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS 8

ssize_t take_message(int socket, void *bytes, size_t room, int *fds, size_t count)
{
	union {
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec part = { bytes, room };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	size_t found = 0;

	ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got < 0)
		return -1;
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
		if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
			continue;
		size_t more = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (found + more > count)
			refuse("descriptors", EINVAL);
		memcpy(fds + found, CMSG_DATA(at), more * sizeof(int));
		found += more;
	}
	if (found != count || message.msg_flags & (MSG_CTRUNC | MSG_TRUNC))
		refuse("descriptors", EINVAL);
	return got;
}

void send_message(int socket, const void *bytes, size_t length, const int *fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr aligned;
	} control = { 0 };
	struct iovec part = { (void *)bytes, length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), fd, sizeof(int));
	}
	/* Whoever does not listen has gone, or is in no hurry: we wait for nobody. */
	if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		_exit(1);
}

bool is_unix_socket(int fd, int type)
{
	int domain, kind;
	socklen_t length = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) == 0 && kind == type;
}

bool is_stream_of(int fd, uid_t uid)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	return is_unix_socket(fd, SOCK_STREAM) && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
	       peer.uid == uid;
}
