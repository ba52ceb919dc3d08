/* mmap of BPF maps (ring buffers, mmapable arrays) as ArrayBuffers. */
#include "call.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

struct mapping {
	void *at;
	size_t length;
};

static void unmap(napi_env env, void *data, void *hint)
{
	(void)env, (void)data;
	struct mapping *mapping = hint;
	if (mapping->at)
		munmap(mapping->at, mapping->length);
	free(mapping);
}

/*
 * (fd, length, prot, flags, off, address) => ArrayBuffer, unmapped by munmap or when collected; or
 * -errno. Address 0: wherever there is room.
 */
static napi_value map(napi_env env, napi_callback_info info)
{
	napi_value argv[6], result;
	size_t argc = 6;
	int64_t arg[6];

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	for (int i = 0; i < 6; i++)
		if (napi_get_value_int64(env, argv[i], &arg[i]) != napi_ok) {
			napi_throw_type_error(env, NULL, "mmap: (fd, length, prot, flags, off, address)");
			return NULL;
		}
	struct mapping *mapping = malloc(sizeof(*mapping));
	void *at = mapping ? mmap((void *)arg[5], arg[1], arg[2], arg[3], arg[0], arg[4]) : MAP_FAILED;
	if (at == MAP_FAILED) {
		napi_create_int64(env, mapping ? -errno : -ENOMEM, &result);
		free(mapping);
		return result;
	}
	mapping->at = at;
	mapping->length = arg[1];
	if (napi_create_external_arraybuffer(env, at, arg[1], unmap, mapping, &result) != napi_ok) {
		munmap(at, arg[1]);
		free(mapping);
		napi_throw_error(env, NULL, "mmap: no external ArrayBuffer here");
		return NULL;
	}
	/* So that munmap finds it. Where that fails, the collector unmaps it all the same. */
	napi_wrap(env, result, mapping, NULL, NULL, NULL);
	return result;
}

/* Unmaps the ArrayBuffer and detaches it: it reads as empty from now on. */
static napi_value detach(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	size_t argc = 1;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	/* The struct lives until the collector has the ArrayBuffer, which the caller has now. */
	struct mapping *mapping = NULL;
	napi_remove_wrap(env, argv[0], (void **)&mapping);
	if (napi_detach_arraybuffer(env, argv[0]) != napi_ok) {
		napi_throw_type_error(env, NULL, "munmap: not a mapping");
		return NULL;
	}
	if (mapping && mapping->at)
		munmap(mapping->at, mapping->length);
	if (mapping)
		mapping->at = NULL;
	return NULL;
}

/* (mapping) => where it begins, as a bigint; undefined: it is unmapped, or no mapping. */
static napi_value address(napi_env env, napi_callback_info info)
{
	napi_value argv[1], result;
	size_t argc = 1;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	struct mapping *mapping = NULL;
	if (napi_unwrap(env, argv[0], (void **)&mapping) != napi_ok || !mapping || !mapping->at)
		return NULL;
	napi_create_bigint_uint64(env, (uintptr_t)mapping->at, &result);
	return result;
}

void memory_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "mmap", map, NULL);
	export_function(env, exports, "munmap", detach, NULL);
	export_function(env, exports, "mappingAddress", address, NULL);
}
