/*
 * The addon's door: every call of the table as a function that runs at once, and the other parts.
 */
#include "call.h"

/* (...args) => result or -errno. Nothing is thrown for a failed call: the layer above names it. */
static napi_value run_now(napi_env env, napi_callback_info info)
{
	napi_value argv[CALL_ARGS + CALL_REFS * 3], result;
	size_t argc = sizeof(argv) / sizeof(argv[0]);
	void *named;
	struct call call;

	napi_get_cb_info(env, info, &argc, argv, NULL, &named);
	if (!call_marshal(env, named, argc, argv, &call))
		return NULL;
	long value = call_run(&call);
	call_wipe(&call);
	napi_create_int64(env, value, &result);
	return result;
}

NAPI_MODULE_INIT()
{
	for (int i = 0; i < NAMED_CALL_COUNT; i++)
		export_function(env, exports, NAMED_CALLS[i].name, run_now, (void *)&NAMED_CALLS[i]);
	export_function(env, exports, "later", call_later, NULL);
	export_function(env, exports, "aside", call_aside, NULL);
	memory_register(env, exports);
	poll_register(env, exports);
	socket_register(env, exports);
	tasks_register(env, exports);
	write_register(env, exports);
	return exports;
}
