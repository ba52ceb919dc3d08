/*
 * Readiness of descriptors that Node has no stream for (ring buffers, pidfds), on Node's own event
 * loop.
 */
#include "call.h"

#include <stdlib.h>
#include <uv.h>

struct poll {
	uv_poll_t handle;
	napi_env env;
	napi_ref callback;
	napi_async_context context;
	bool stopped;
};

static void freed(uv_handle_t *handle)
{
	free(handle->data);
}

static void ready(uv_poll_t *handle, int status, int events)
{
	struct poll *poll = handle->data;
	napi_handle_scope scope;
	napi_value callback, global, argv[1], result;

	napi_open_handle_scope(poll->env, &scope);
	napi_get_reference_value(poll->env, poll->callback, &callback);
	napi_get_global(poll->env, &global);
	napi_create_int32(poll->env, status < 0 ? status : events, &argv[0]);
	/*
	 * make_callback, so that promises settled in it go on; an exception in it is an uncaught
	 * one.
	 */
	if (napi_make_callback(poll->env, poll->context, global, callback, 1, argv, &result) == napi_pending_exception) {
		napi_value error;
		napi_get_and_clear_last_exception(poll->env, &error);
		napi_fatal_exception(poll->env, error);
	}
	napi_close_handle_scope(poll->env, scope);
}

static void end(void *data)
{
	struct poll *poll = data;

	poll->stopped = true;
	uv_poll_stop(&poll->handle);
	napi_delete_reference(poll->env, poll->callback);
	napi_async_destroy(poll->env, poll->context);
	uv_close((uv_handle_t *)&poll->handle, freed);
}

/*
 * (fd, callback(events or -errno)) => handle. Readable only; level triggered. Keeps the loop alive.
 */
static napi_value start(napi_env env, napi_callback_info info)
{
	napi_value argv[2], handle, name;
	size_t argc = 2;
	int32_t fd;
	uv_loop_t *loop;
	struct poll *poll;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_int32(env, argv[0], &fd) != napi_ok || napi_get_uv_event_loop(env, &loop) != napi_ok) {
		napi_throw_type_error(env, NULL, "pollStart: (fd, callback)");
		return NULL;
	}
	poll = calloc(1, sizeof(*poll));
	if (!poll || uv_poll_init(loop, &poll->handle, fd) != 0) {
		free(poll);
		napi_throw_error(env, NULL, "pollStart: this descriptor cannot be polled");
		return NULL;
	}
	poll->env = env;
	poll->handle.data = poll;
	napi_create_string_utf8(env, "bpftoken.poll", NAPI_AUTO_LENGTH, &name);
	napi_async_init(env, NULL, name, &poll->context);
	napi_create_reference(env, argv[1], 1, &poll->callback);
	/* Node turns its loop once more when it ends, and then there is nobody to call. */
	napi_add_env_cleanup_hook(env, end, poll);
	uv_poll_start(&poll->handle, UV_READABLE, ready);
	napi_create_external(env, poll, NULL, NULL, &handle);
	return handle;
}

/* (handle): once; the caller forgets the handle. */
static napi_value stop(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	size_t argc = 1;
	void *data;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_external(env, argv[0], &data) != napi_ok)
		return NULL;
	struct poll *poll = data;
	if (poll->stopped)
		return NULL;
	napi_remove_env_cleanup_hook(env, end, poll);
	end(poll);
	return NULL;
}

/* (handle, whether it keeps the loop alive) */
static napi_value keep_alive(napi_env env, napi_callback_info info)
{
	napi_value argv[2];
	size_t argc = 2;
	void *data;
	bool keeps;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_external(env, argv[0], &data) != napi_ok ||
	    napi_get_value_bool(env, argv[1], &keeps) != napi_ok) {
		napi_throw_type_error(env, NULL, "pollKeepAlive: (handle, boolean)");
		return NULL;
	}
	struct poll *poll = data;
	if (keeps)
		uv_ref((uv_handle_t *)&poll->handle);
	else
		uv_unref((uv_handle_t *)&poll->handle);
	return NULL;
}

void poll_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "pollStart", start, NULL);
	export_function(env, exports, "pollStop", stop, NULL);
	export_function(env, exports, "pollKeepAlive", keep_alive, NULL);
}
