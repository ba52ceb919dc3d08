/* Unix sockets that carry descriptors, which Node's own sockets do not. */
#include "call.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FDS 16

static napi_value number(napi_env env, int64_t value)
{
	napi_value result;
	napi_create_int64(env, value, &result);
	return result;
}

/* () => [fd, fd] of a SOCK_SEQPACKET pair, or -errno. Both close-on-exec. */
static napi_value pair(napi_env env, napi_callback_info info)
{
	int fds[2];
	napi_value array;

	(void)info;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return number(env, -errno);
	napi_create_array_with_length(env, 2, &array);
	napi_set_element(env, array, 0, number(env, fds[0]));
	napi_set_element(env, array, 1, number(env, fds[1]));
	return array;
}

/* (socket, bytes, fds[]) => bytes sent or -errno. Does not block (EAGAIN). */
static napi_value send_fds(napi_env env, napi_callback_info info)
{
	napi_value argv[3], element;
	size_t argc = 3, length;
	int32_t socket;
	uint32_t count = 0;
	void *data;
	napi_typedarray_type type;
	int fds[MAX_FDS];
	char control[CMSG_SPACE(sizeof(fds))] = { 0 };

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_int32(env, argv[0], &socket) != napi_ok ||
	    napi_get_typedarray_info(env, argv[1], &type, &length, &data, NULL, NULL) != napi_ok ||
	    napi_get_array_length(env, argv[2], &count) != napi_ok || count > MAX_FDS) {
		napi_throw_type_error(env, NULL, "sendFds: (socket, Uint8Array, at most 16 descriptors)");
		return NULL;
	}
	for (uint32_t i = 0; i < count; i++) {
		napi_get_element(env, argv[2], i, &element);
		if (napi_get_value_int32(env, element, &fds[i]) != napi_ok) {
			napi_throw_type_error(env, NULL, "sendFds: a descriptor is not a number");
			return NULL;
		}
	}
	struct iovec iov = { data, length };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (count) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	ssize_t sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	return number(env, sent < 0 ? -errno : sent);
}

/*
 * (socket, bytes) => [bytes received, ...fds] or -errno. Does not block; descriptors come
 * close-on-exec.
 */
static napi_value recv_fds(napi_env env, napi_callback_info info)
{
	napi_value argv[2], array;
	size_t argc = 2, length;
	int32_t socket;
	void *data;
	napi_typedarray_type type;
	char control[CMSG_SPACE(MAX_FDS * sizeof(int))];

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_int32(env, argv[0], &socket) != napi_ok ||
	    napi_get_typedarray_info(env, argv[1], &type, &length, &data, NULL, NULL) != napi_ok) {
		napi_throw_type_error(env, NULL, "recvFds: (socket, Uint8Array)");
		return NULL;
	}
	struct iovec iov = { data, length };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got < 0)
		return number(env, -errno);
	napi_create_array(env, &array);
	napi_set_element(env, array, 0, number(env, got));
	uint32_t next = 1;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
			napi_set_element(env, array, next++, number(env, fd));
		}
	}
	return array;
}

/* (name) => index in our network namespace, or -errno. */
static napi_value interface_index(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	size_t argc = 1;
	char name[64];

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_string_utf8(env, argv[0], name, sizeof(name), NULL) != napi_ok) {
		napi_throw_type_error(env, NULL, "interfaceIndex: (name)");
		return NULL;
	}
	unsigned index = if_nametoindex(name);
	return number(env, index ? (int64_t)index : -errno);
}

void socket_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "socketpair", pair, NULL);
	export_function(env, exports, "sendFds", send_fds, NULL);
	export_function(env, exports, "recvFds", recv_fds, NULL);
	export_function(env, exports, "interfaceIndex", interface_index, NULL);
}
