/*
 * Writes to a file and brings it to the disk, in one turn of a worker thread. By two calls of Node's
 * own, its event loop and a thread would wake each other twice.
 */
#include "call.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct writing {
	napi_async_work work;
	napi_deferred deferred;
	napi_ref keep;
	int fd;
	const void *bytes;
	size_t length;
	int64_t offset;
	long result;
};

static void run(napi_env env, void *data)
{
	(void)env;
	struct writing *writing = data;

	do
		writing->result = pwrite(writing->fd, writing->bytes, writing->length, writing->offset);
	while (writing->result < 0 && errno == EINTR);
	/* After a failure it is not called again: the kernel then takes the pages for clean. */
	if (writing->result < 0 || fdatasync(writing->fd) < 0)
		writing->result = -errno;
}

static void told(napi_env env, napi_status status, void *data)
{
	struct writing *writing = data;
	napi_value result;

	napi_delete_reference(env, writing->keep);
	napi_create_int64(env, status == napi_ok ? writing->result : -ECANCELED, &result);
	napi_resolve_deferred(env, writing->deferred, result);
	napi_delete_async_work(env, writing->work);
	free(writing);
}

/* (fd, bytes, offset) => how many were written, or -errno */
static napi_value write_synced(napi_env env, napi_callback_info info)
{
	napi_value argv[3], promise, label;
	size_t argc = 3;
	napi_typedarray_type type;
	void *bytes;
	struct writing *writing = calloc(1, sizeof(*writing));

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (!writing || argc != 3 || napi_get_value_int32(env, argv[0], &writing->fd) != napi_ok ||
	    napi_get_typedarray_info(env, argv[1], &type, &writing->length, &bytes, NULL, NULL) != napi_ok ||
	    type != napi_uint8_array || napi_get_value_int64(env, argv[2], &writing->offset) != napi_ok) {
		free(writing);
		napi_throw_type_error(env, NULL, "writeSynced: (fd, Uint8Array, number)");
		return NULL;
	}
	writing->bytes = bytes;
	napi_create_reference(env, argv[1], 1, &writing->keep);
	napi_create_promise(env, &writing->deferred, &promise);
	napi_create_string_utf8(env, "writeSynced", NAPI_AUTO_LENGTH, &label);
	napi_create_async_work(env, NULL, label, run, told, writing, &writing->work);
	napi_queue_async_work(env, writing->work);
	return promise;
}

void write_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "writeSynced", write_synced, NULL);
}
