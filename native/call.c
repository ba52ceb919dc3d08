/* The table of system calls, and how one is marshalled and run. */
#include "call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Calls newer than the build machine's headers; the numbers are the same on every architecture. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef SYS_listmount
#define SYS_listmount 458
#endif

const struct named_call NAMED_CALLS[] = {
	{ "bpf", SYS_bpf, "ibz", true },
	{ "close", SYS_close, "i", false },
	{ "close_range", SYS_close_range, "iii", false },
	{ "connect", SYS_connect, "ibz", false },
	{ "flock", SYS_flock, "ii", false },
	{ "fsconfig", SYS_fsconfig, "iissi", false },
	{ "fsmount", SYS_fsmount, "iii", false },
	{ "fsopen", SYS_fsopen, "si", false },
	{ "fspick", SYS_fspick, "isi", false },
	{ "getsockopt", SYS_getsockopt, "iiibb", false },
	{ "ioctl", SYS_ioctl, "iib", false },
	{ "keyctl", SYS_keyctl, "is", false },
	{ "listmount", SYS_listmount, "bbii", false },
	{ "mount_setattr", SYS_mount_setattr, "isibz", false },
	{ "move_mount", SYS_move_mount, "isisi", false },
	{ "open_tree", SYS_open_tree, "isi", false },
	{ "openat2", SYS_openat2, "isbz", false },
	{ "perf_event_open", SYS_perf_event_open, "biiii", true },
	{ "pidfd_getfd", SYS_pidfd_getfd, "iii", false },
	{ "pidfd_open", SYS_pidfd_open, "ii", false },
	{ "pidfd_send_signal", SYS_pidfd_send_signal, "iibi", false },
	{ "read", SYS_read, "ibz", false },
	{ "sendto", SYS_sendto, "ibzibz", false },
	{ "setsockopt", SYS_setsockopt, "iiibz", false },
	{ "socket", SYS_socket, "iii", false },
	{ "statmount", SYS_statmount, "bbzi", false },
	{ "statx", SYS_statx, "isiib", false },
	{ "timerfd_create", SYS_timerfd_create, "ii", false },
	{ "timerfd_settime", SYS_timerfd_settime, "iibb", false },
	{ "umount2", SYS_umount2, "si", false },
};
const int NAMED_CALL_COUNT = sizeof(NAMED_CALLS) / sizeof(NAMED_CALLS[0]);

void export_function(napi_env env, napi_value exports, const char *name, napi_callback function, void *data)
{
	napi_value value;
	napi_create_function(env, name, NAPI_AUTO_LENGTH, function, data, &value);
	napi_set_named_property(env, exports, name, value);
}

const struct named_call *call_find(const char *name)
{
	for (int i = 0; i < NAMED_CALL_COUNT; i++)
		if (strcmp(NAMED_CALLS[i].name, name) == 0)
			return &NAMED_CALLS[i];
	return NULL;
}

static bool refuse(napi_env env, const char *name, const char *what)
{
	char text[128];
	snprintf(text, sizeof(text), "%s: %s", name, what);
	napi_throw_type_error(env, NULL, text);
	return false;
}

/* null gives a NULL pointer of length 0. */
static bool get_bytes(napi_env env, napi_value value, uint8_t **data, size_t *length)
{
	napi_valuetype type;
	napi_typedarray_type array;

	*data = NULL;
	*length = 0;
	if (napi_typeof(env, value, &type) == napi_ok && type == napi_null)
		return true;
	return napi_get_typedarray_info(env, value, &array, length, (void **)data, NULL, NULL) == napi_ok &&
	       array == napi_uint8_array;
}

bool call_marshal(napi_env env, const struct named_call *named, size_t argc, napi_value *argv, struct call *call)
{
	size_t next = 0, length = 0;

	call->named = named;
	call->strings = call->patches = call->values = 0;
	memset(call->arg, 0, sizeof(call->arg));
	for (int i = 0; named->signature[i]; i++) {
		napi_valuetype type;
		size_t got;

		if (named->signature[i] == 'z') {
			call->arg[i] = (long)length;
			continue;
		}
		if (next == argc)
			return refuse(env, named->name, "too few arguments");
		switch (named->signature[i]) {
		case 'i':
			if (napi_get_value_int64(env, argv[next], &call->arg[i]) != napi_ok)
				return refuse(env, named->name, "not a number");
			break;
		case 's':
			if (napi_typeof(env, argv[next], &type) == napi_ok && type == napi_null)
				break;
			if (napi_get_value_string_utf8(env, argv[next], call->string[call->strings], CALL_STRING_BYTES,
						       &got) != napi_ok)
				return refuse(env, named->name, "not a string");
			/*
			 * Fail closed: a string that was cut, or that ends early for the kernel,
			 * names another thing.
			 */
			if (got == CALL_STRING_BYTES - 1 || strlen(call->string[call->strings]) != got)
				return refuse(env, named->name, "string too long or with a zero byte");
			call->arg[i] = (long)call->string[call->strings++];
			break;
		case 'b': {
			uint8_t *data;
			if (!get_bytes(env, argv[next], &data, &length))
				return refuse(env, named->name, "not a Uint8Array");
			call->value[call->values++] = argv[next];
			call->arg[i] = (long)data;
			break;
		}
		}
		next++;
	}
	if (!named->refs)
		return next == argc ? true : refuse(env, named->name, "too many arguments");

	if ((argc - next) % 3 != 0 || (argc - next) / 3 > CALL_REFS)
		return refuse(env, named->name, "addresses come as (bytes, offset, bytes), 16 at most");
	for (; next < argc; next += 3) {
		uint8_t *target, *data;
		size_t target_length;
		int64_t off;

		if (!get_bytes(env, argv[next], &target, &target_length) ||
		    napi_get_value_int64(env, argv[next + 1], &off) != napi_ok ||
		    !get_bytes(env, argv[next + 2], &data, &length))
			return refuse(env, named->name, "an address is not (bytes, offset, bytes)");
		if (off < 0 || target_length < 8 || (size_t)off > target_length - 8)
			return refuse(env, named->name, "an address lies outside its bytes");
		call->value[call->values++] = argv[next];
		call->value[call->values++] = argv[next + 2];
		call->patch[call->patches++] = target + off;
		uint64_t address = (uint64_t)(uintptr_t)data;
		memcpy(target + off, &address, sizeof(address));
	}
	return true;
}

long call_run(const struct call *call)
{
	const long *a = call->arg;
	long result = syscall(call->named->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	return result < 0 ? -errno : result;
}

void call_wipe(struct call *call)
{
	for (int i = 0; i < call->patches; i++)
		memset(call->patch[i], 0, 8);
}

/* ---- on a worker thread ---- */

struct later {
	napi_async_work work;
	napi_deferred deferred;
	napi_ref keep[CALL_REFS * 2 + CALL_ARGS];
	long result;
	struct call call;
};

static void later_execute(napi_env env, void *data)
{
	(void)env;
	struct later *later = data;
	later->result = call_run(&later->call);
}

static void later_complete(napi_env env, napi_status status, void *data)
{
	struct later *later = data;
	napi_value result;

	call_wipe(&later->call);
	for (int i = 0; i < later->call.values; i++)
		napi_delete_reference(env, later->keep[i]);
	napi_create_int64(env, status == napi_ok ? later->result : -ECANCELED, &result);
	napi_resolve_deferred(env, later->deferred, result);
	napi_delete_async_work(env, later->work);
	free(later);
}

napi_value call_later(napi_env env, napi_callback_info info)
{
	napi_value argv[1 + CALL_ARGS + CALL_REFS * 3], promise, label;
	size_t argc = sizeof(argv) / sizeof(argv[0]);
	char name[32];
	const struct named_call *named = NULL;
	struct later *later = calloc(1, sizeof(*later)); /* null has no reference */

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (later && argc > 0 && napi_get_value_string_utf8(env, argv[0], name, sizeof(name), NULL) == napi_ok)
		named = call_find(name);
	if (!named || !call_marshal(env, named, argc - 1, argv + 1, &later->call)) {
		free(later);
		if (!named)
			napi_throw_type_error(env, NULL, "later: no such call");
		return NULL;
	}
	for (int i = 0; i < later->call.values; i++)
		napi_create_reference(env, later->call.value[i], 1, &later->keep[i]);
	napi_create_promise(env, &later->deferred, &promise);
	napi_create_string_utf8(env, named->name, NAPI_AUTO_LENGTH, &label);
	napi_create_async_work(env, NULL, label, later_execute, later_complete, later, &later->work);
	napi_queue_async_work(env, later->work);
	return promise;
}
