/*
 * One system call as data: which, with which arguments, and the buffers it needs.
 *
 * A call is marshalled once from JavaScript and then run at once (addon.c) or on a worker thread.
 * JavaScript never sees or gives an address: it gives byte arrays, and call.c writes their
 * addresses where the kernel wants them and wipes them afterwards.
 */
#ifndef BPFTOKEN_CALL_H
#define BPFTOKEN_CALL_H

#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>

#define CALL_ARGS 6
#define CALL_STRINGS 2
#define CALL_STRING_BYTES 4096
#define CALL_REFS 16

/*
 * Argument kinds in a signature: i integer, s string or null, b byte array or null, z its length.
 */
struct named_call {
	const char *name;
	long nr;
	const char *signature;
	bool refs; /* (bytes, offset, bytes) triples follow: addresses to write into byte arrays */
};

struct call {
	const struct named_call *named;
	long arg[CALL_ARGS];
	int strings, patches, values;
	uint8_t *patch[CALL_REFS];	     /* where an address stands while the call runs */
	napi_value value[CALL_REFS * 2 + CALL_ARGS]; /* arrays that must outlive an asynchronous call */
	char string[CALL_STRINGS][CALL_STRING_BYTES];
};

extern const struct named_call NAMED_CALLS[];
extern const int NAMED_CALL_COUNT;

const struct named_call *call_find(const char *name);

/* Fills call from argv; false with a pending JavaScript exception where they do not fit. */
bool call_marshal(napi_env env, const struct named_call *named, size_t argc, napi_value *argv, struct call *call);

/* The result, or -errno. Safe on any thread: plain memory and one system call. */
long call_run(const struct call *call);

/* Takes the addresses out of the byte arrays again. */
void call_wipe(struct call *call);

/* Promises: run on a worker thread, in our own namespaces. (name, ...args) => Promise<number> */
napi_value call_later(napi_env env, napi_callback_info info);

/* The same on a thread of its own, for calls that may never return: see aside.c. */
napi_value call_aside(napi_env env, napi_callback_info info);

void memory_register(napi_env env, napi_value exports);
void poll_register(napi_env env, napi_value exports);
void socket_register(napi_env env, napi_value exports);
void tasks_register(napi_env env, napi_value exports);
void write_register(napi_env env, napi_value exports);

/* Adds a function to exports. */
void export_function(napi_env env, napi_value exports, const char *name, napi_callback function, void *data);

#endif
