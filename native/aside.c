/*
 * A call on a thread of its own, which nobody waits for. It may hang for as long as somebody else
 * likes: it takes no thread from Node's pool, which writes files, and keeps no process from ending.
 */
#include "call.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

/* The one that is in every glibc that Node runs with: in new ones it has a newer version too. */
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver pthread_create, pthread_create@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver pthread_create, pthread_create@GLIBC_2.17");
#endif

/* Node gives up its function when it ends, though the thread still runs: so both hold this. */
struct aside {
	pthread_mutex_t lock;
	int holders;
	bool ended; /* there is no function any more */
	napi_threadsafe_function done;
	napi_deferred deferred;
	napi_ref keep[CALL_REFS * 2 + CALL_ARGS]; /* null has no reference */
	long result;
	struct call call;
};

static void let_go(struct aside *aside, bool ended)
{
	pthread_mutex_lock(&aside->lock);
	aside->ended |= ended;
	bool last = --aside->holders == 0;
	pthread_mutex_unlock(&aside->lock);
	if (last) {
		pthread_mutex_destroy(&aside->lock);
		free(aside);
	}
}

static void *run(void *data)
{
	struct aside *aside = data;

	aside->result = call_run(&aside->call);
	pthread_mutex_lock(&aside->lock);
	if (!aside->ended && napi_call_threadsafe_function(aside->done, aside, napi_tsfn_nonblocking) != napi_closing)
		napi_release_threadsafe_function(aside->done, napi_tsfn_release);
	pthread_mutex_unlock(&aside->lock);
	let_go(aside, false);
	return NULL;
}

static void settle(napi_env env, napi_value callback, void *context, void *data)
{
	struct aside *aside = data;
	napi_value result;

	(void)callback;
	(void)context;
	if (!env)
		return;
	call_wipe(&aside->call);
	for (int i = 0; i < aside->call.values; i++)
		napi_delete_reference(env, aside->keep[i]);
	napi_create_int64(env, aside->result, &result);
	napi_resolve_deferred(env, aside->deferred, result);
}

static void end(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	let_go(data, true);
}

/* Signals are for Node's own threads. sigprocmask() is of this thread alone, on Linux. */
static int start(struct aside *aside)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	int failed = pthread_create(&thread, &attributes, run, aside);
	sigprocmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return failed;
}

napi_value call_aside(napi_env env, napi_callback_info info)
{
	napi_value argv[1 + CALL_ARGS + CALL_REFS * 3], promise, label, result;
	size_t argc = sizeof(argv) / sizeof(argv[0]);
	char name[32];
	const struct named_call *named = NULL;
	struct aside *aside = calloc(1, sizeof(*aside));

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (aside && argc > 0 && napi_get_value_string_utf8(env, argv[0], name, sizeof(name), NULL) == napi_ok)
		named = call_find(name);
	if (!named || !call_marshal(env, named, argc - 1, argv + 1, &aside->call)) {
		free(aside);
		if (!named)
			napi_throw_type_error(env, NULL, "aside: no such call");
		return NULL;
	}
	napi_create_string_utf8(env, named->name, NAPI_AUTO_LENGTH, &label);
	pthread_mutex_init(&aside->lock, NULL);
	aside->holders = 2;
	if (napi_create_threadsafe_function(env, NULL, NULL, label, 0, 1, aside, end, NULL, settle, &aside->done) !=
	    napi_ok) {
		free(aside);
		napi_throw_error(env, NULL, "aside: no memory");
		return NULL;
	}
	/* Whoever waits for it has a timer. */
	napi_unref_threadsafe_function(env, aside->done);
	for (int i = 0; i < aside->call.values; i++)
		napi_create_reference(env, aside->call.value[i], 1, &aside->keep[i]);
	napi_create_promise(env, &aside->deferred, &promise);
	int failed = start(aside);
	if (failed) {
		for (int i = 0; i < aside->call.values; i++)
			napi_delete_reference(env, aside->keep[i]);
		napi_create_int64(env, -failed, &result);
		napi_resolve_deferred(env, aside->deferred, result);
		call_wipe(&aside->call);
		napi_release_threadsafe_function(aside->done, napi_tsfn_abort);
		let_go(aside, false);
	}
	return promise;
}
