#define _GNU_SOURCE
/*
 * One system call inside another process's namespaces, for tests: any call of the addon's table, at
 * once, with descriptors of ours. bpftoken itself never does it like this (native/executor/): the
 * child shares our memory and our descriptors, and we wait for it without end. It is an addon of
 * its own, which lab.ts compiles.
 *
 * setns(2) into a user namespace wants a single-threaded caller, which Node is not. So a child made
 * by clone(CLONE_VM | CLONE_VFORK | CLONE_FILES) joins by pidfd, does one call and exits: it shares
 * our memory, so arguments need no copying, and our descriptor table, so a new descriptor is ours.
 *
 * What the target could do to that child decides how safe this is. While it runs it is visible in
 * our PID namespace and has the target's user namespace, where the target's root may hold
 * CAP_SYS_PTRACE: attaching to it would mean writing our memory. The kernel allows that only for
 * dumpable memory, so we make ours undumpable first; from then on only CAP_SYS_PTRACE in the
 * *initial* user namespace may attach (kernel/ptrace.c, __ptrace_may_access, mm->user_ns).
 */
#include "../../../native/call.c"

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES (64 * 1024)

/* How far the child came; JavaScript turns it into the name of the failed operation. */
enum stage { STAGE_CLONE, STAGE_SETNS, STAGE_CAPSET, STAGE_CALL };

struct within {
	napi_async_work work;
	napi_deferred deferred;
	napi_ref keep[CALL_REFS * 2 + CALL_ARGS];
	napi_ref self; /* the handle, alive until the promise is settled */
	int pidfd, namespaces;
	int directory; /* where relative paths begin, in the target; -1: the root of its mount namespace */
	bool limit_caps;
	uint64_t caps;
	volatile long result;
	volatile int stage;
	volatile pid_t pid;	/* set by the kernel before the child runs, 0 once it is reaped */
	pthread_mutex_t reaping; /* held while pid may change hands, so that cancel never hits a stranger */
	volatile bool cancelled;
	struct call call;
};

static int child(void *data)
{
	struct within *within = data;

	within->stage = STAGE_SETNS;
	if (within->namespaces && syscall(SYS_setns, within->pidfd, within->namespaces) < 0) {
		within->result = -errno;
		return 0;
	}
	if (within->limit_caps) {
		struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
		struct __user_cap_data_struct caps[2] = {
			{ (uint32_t)within->caps, (uint32_t)within->caps, 0 },
			{ (uint32_t)(within->caps >> 32), (uint32_t)(within->caps >> 32), 0 },
		};
		within->stage = STAGE_CAPSET;
		if (syscall(SYS_capset, &header, caps) < 0) {
			within->result = -errno;
			return 0;
		}
	}
	within->stage = STAGE_CALL;
	if (within->directory >= 0 && syscall(SYS_fchdir, within->directory) < 0) {
		within->result = -errno;
		return 0;
	}
	within->result = call_run(&within->call);
	return 0;
}

/*
 * Keeps the child on the processor that we are on: it runs while we wait, and a new task is
 * otherwise put on an idle processor, whose waking takes several times as long as the call itself.
 * Only speed depends on it.
 */
static bool stay_here(cpu_set_t *before)
{
	cpu_set_t here;
	int cpu = sched_getcpu();

	if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(*before), before) < 0)
		return false;
	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	return sched_setaffinity(0, sizeof(here), &here) == 0;
}

static void run(struct within *within)
{
	sigset_t all, before;
	cpu_set_t anywhere;
	char *stack = malloc(STACK_BYTES);

	within->stage = STAGE_CLONE;
	within->result = -ENOMEM;
	if (!stack)
		return;
	if (prctl(PR_SET_DUMPABLE, 0) < 0) {
		within->result = -errno; /* Fail closed: see the top of this file. */
		free(stack);
		return;
	}
	/* Handlers are Node's and shared: the child must not run them. SIGKILL still ends it. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	bool pinned = stay_here(&anywhere);
	int pid = -1;
	errno = ETIMEDOUT;
	if (!within->cancelled)
		pid = clone(child, stack + STACK_BYTES,
			    CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PARENT_SETTID, within, &within->pid, NULL, NULL);
	int failed = errno;
	if (pinned)
		sched_setaffinity(0, sizeof(anywhere), &anywhere);
	if (pid < 0) {
		within->result = -failed;
	} else {
		int status = 0;
		pthread_mutex_lock(&within->reaping);
		while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
			;
		within->pid = 0;
		pthread_mutex_unlock(&within->reaping);
		if (WIFSIGNALED(status))
			within->result = within->cancelled ? -ETIMEDOUT : -EINTR;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	free(stack);
}

static void execute(napi_env env, void *data)
{
	(void)env;
	run(data);
}

static napi_value pair(napi_env env, long result, int stage)
{
	napi_value array, element;
	napi_create_array_with_length(env, 2, &array);
	napi_create_int64(env, result, &element);
	napi_set_element(env, array, 0, element);
	napi_create_int32(env, stage, &element);
	napi_set_element(env, array, 1, element);
	return array;
}

static void complete(napi_env env, napi_status status, void *data)
{
	struct within *within = data;

	call_wipe(&within->call);
	for (int i = 0; i < within->call.values; i++)
		napi_delete_reference(env, within->keep[i]);
	napi_delete_async_work(env, within->work);
	napi_resolve_deferred(env, within->deferred,
			      pair(env, status == napi_ok ? within->result : -ECANCELED, within->stage));
	napi_delete_reference(env, within->self); /* last: the collector may now free within */
}

static void finalize(napi_env env, void *data, void *hint)
{
	(void)env, (void)hint;
	struct within *within = data;
	pthread_mutex_destroy(&within->reaping);
	free(within);
}

#define HEAD 5 /* pidfd, namespaces, caps, directory, name; the call's own arguments follow */

static bool marshal(napi_env env, size_t argc, napi_value *argv, struct within *within)
{
	napi_valuetype type;
	const struct named_call *named = NULL;
	char name[32];
	bool lossless = true;

	memset(within, 0, offsetof(struct within, call));
	if (argc < HEAD || napi_get_value_int32(env, argv[0], &within->pidfd) != napi_ok ||
	    napi_get_value_int32(env, argv[1], &within->namespaces) != napi_ok ||
	    napi_typeof(env, argv[2], &type) != napi_ok ||
	    (type != napi_null && napi_get_value_bigint_uint64(env, argv[2], &within->caps, &lossless) != napi_ok) ||
	    !lossless || napi_get_value_int32(env, argv[3], &within->directory) != napi_ok ||
	    napi_get_value_string_utf8(env, argv[4], name, sizeof(name), NULL) != napi_ok ||
	    !(named = call_find(name))) {
		napi_throw_type_error(env, NULL, "within: (pidfd, namespaces, capabilities or null, directory, call, ...arguments)");
		return false;
	}
	within->limit_caps = type != napi_null;
	return call_marshal(env, named, argc - HEAD, argv + HEAD, &within->call);
}

/*
 * (pidfd, namespaces, caps|null, directory|-1, name, ...args) => [result or -errno, stage]; for
 * calls that cannot block.
 */
static napi_value within_now(napi_env env, napi_callback_info info)
{
	napi_value argv[HEAD + CALL_ARGS + CALL_REFS * 3];
	size_t argc = sizeof(argv) / sizeof(argv[0]);
	struct within within;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (!marshal(env, argc, argv, &within))
		return NULL;
	pthread_mutex_init(&within.reaping, NULL);
	run(&within);
	pthread_mutex_destroy(&within.reaping);
	call_wipe(&within.call);
	return pair(env, within.result, within.stage);
}

/* The same on a worker thread => [promise, handle]; withinCancel(handle) kills the child. */
static napi_value within_later(napi_env env, napi_callback_info info)
{
	napi_value argv[HEAD + CALL_ARGS + CALL_REFS * 3], promise, handle, both, label;
	size_t argc = sizeof(argv) / sizeof(argv[0]);
	struct within *within = malloc(sizeof(*within));

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (!within || !marshal(env, argc, argv, within)) {
		free(within);
		return NULL;
	}
	pthread_mutex_init(&within->reaping, NULL);
	for (int i = 0; i < within->call.values; i++)
		napi_create_reference(env, within->call.value[i], 1, &within->keep[i]);
	napi_create_promise(env, &within->deferred, &promise);
	napi_create_external(env, within, finalize, NULL, &handle);
	napi_create_reference(env, handle, 1, &within->self);
	napi_create_string_utf8(env, within->call.named->name, NAPI_AUTO_LENGTH, &label);
	napi_create_async_work(env, NULL, label, execute, complete, within, &within->work);
	napi_queue_async_work(env, within->work);
	napi_create_array_with_length(env, 2, &both);
	napi_set_element(env, both, 0, promise);
	napi_set_element(env, both, 1, handle);
	return both;
}

static napi_value within_cancel(napi_env env, napi_callback_info info)
{
	napi_value argv[1];
	size_t argc = 1;
	void *data;

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (napi_get_value_external(env, argv[0], &data) != napi_ok)
		return NULL;
	struct within *within = data;
	within->cancelled = true;
	/*
	 * Not held by the worker while the child runs, only while it is reaped; then there is no
	 * one to kill.
	 */
	if (pthread_mutex_trylock(&within->reaping) == 0) {
		if (within->pid > 0)
			kill(within->pid, SIGKILL);
		pthread_mutex_unlock(&within->reaping);
	}
	return NULL;
}

NAPI_MODULE_INIT()
{
	export_function(env, exports, "withinNow", within_now, NULL);
	export_function(env, exports, "withinLater", within_later, NULL);
	export_function(env, exports, "withinCancel", within_cancel, NULL);
	return exports;
}
