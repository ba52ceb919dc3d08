/* Messages with descriptors, and the slots that these are kept in. */
#include "message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int count_bits(uint32_t bits)
{
	return __builtin_popcount(bits);
}

int send_message(int socket, const void *data, size_t bytes, const int slot[SLOT_COUNT], uint32_t slots)
{
	char control[CMSG_SPACE(SLOT_COUNT * sizeof(int))] = { 0 };
	struct iovec part = { (void *)data, bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int count = count_bits(slots);

	if (count) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		int *next = (int *)CMSG_DATA(header);
		for (int i = 0; i < SLOT_COUNT; i++)
			if (slots >> i & 1)
				*next++ = slot[i];
	}
	ssize_t sent;
	while ((sent = sendmsg(socket, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	return sent < 0 ? -errno : 0;
}

ssize_t receive_message(int socket, void *data, size_t bytes, int fds[SLOT_COUNT], int *count, int flags)
{
	char control[CMSG_SPACE(SLOT_COUNT * sizeof(int))];
	struct iovec part = { data, bytes };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t got;

	*count = 0;
	while ((got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (got < 0)
		return -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		*count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
	}
	return got;
}

void close_slot(int slot[SLOT_COUNT], int which)
{
	if (slot[which] >= 0)
		close(slot[which]);
	slot[which] = -1;
}

void close_slots(int slot[SLOT_COUNT])
{
	for (int i = 0; i < SLOT_COUNT; i++)
		close_slot(slot, i);
}

bool fill_slots(int slot[SLOT_COUNT], uint32_t slots, const int *fds, int count)
{
	if (slots >> SLOT_COUNT || count_bits(slots) != count) {
		for (int i = 0; i < count; i++)
			close(fds[i]);
		return false;
	}
	for (int i = 0; i < SLOT_COUNT; i++)
		if (slots >> i & 1) {
			close_slot(slot, i);
			slot[i] = *fds++;
		}
	return true;
}

const char *text_of(const struct executor_action *action)
{
	return (const char *)(action + 1);
}

const struct executor_action *next_action(const struct executor_action *action)
{
	return (const void *)((const char *)action + action->bytes);
}
