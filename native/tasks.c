/*
 * Which namespaces tasks are in, of all that /proc lists, on a worker thread: five system calls for
 * each task, which would hold up Node's event loop.
 */
#include "call.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIDFD_THREAD O_EXCL
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_NET_NAMESPACE _IO(0xFF, 4)
#define PIDFD_GET_USER_NAMESPACE _IO(0xFF, 9)

static const struct kind {
	const char *name;
	unsigned long request;
	bool with_user; /* who asks for it wants the user namespace, too */
} USER = { "user", PIDFD_GET_USER_NAMESPACE, true }, KINDS[] = {
	{ "mnt", PIDFD_GET_MNT_NAMESPACE, false },
	{ "net", PIDFD_GET_NET_NAMESPACE, true },
};
#define KIND_COUNT (sizeof(KINDS) / sizeof(KINDS[0]))

/* What is found of one thread: numbers of its process, its own, and of namespaces; 0 is unknown. */
struct record {
	double pid, tid, user, other;
};

struct looking {
	napi_async_work work;
	napi_deferred deferred;
	const struct kind *kind;
	double except;
	struct record *record;
	size_t count, room;
	int failed;
};

/*
 * The inode number of a file; 0: it cannot be told. By the system call itself: stat(3) is of a newer
 * C library than Node needs.
 */
static double inode_of(int directory, const char *path, int flags)
{
	struct statx found;

	return syscall(SYS_statx, directory, path, flags, STATX_INO, &found) == 0 ? (double)found.stx_ino : 0;
}

/* By a link of /proc, which may wait for an execve(2): before Linux 6.11 there is no other way. */
static double linked(int tid, const struct kind *kind)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", tid, kind->name);
	return inode_of(AT_FDCWD, path, 0);
}

/* The inode number of the namespace that the thread is in; 0: it has ended, or we are not told. */
static double namespace_of(int tid, const struct kind *kind)
{
	int pidfd = syscall(SYS_pidfd_open, tid, PIDFD_THREAD);

	/* EINVAL: there are no pidfds of threads, before Linux 6.9. */
	if (pidfd < 0)
		return errno == EINVAL ? linked(tid, kind) : 0;
	int namespace = ioctl(pidfd, kind->request, 0);
	int failed = namespace < 0 ? errno : 0;
	close(pidfd);
	if (failed)
		return failed == ENOTTY ? linked(tid, kind) : 0;
	double inode = inode_of(namespace, "", AT_EMPTY_PATH);
	close(namespace);
	return inode;
}

static void add(struct looking *looking, struct record record)
{
	if (looking->count == looking->room) {
		size_t room = looking->room ? 2 * looking->room : 256;
		struct record *more = realloc(looking->record, room * sizeof(record));

		if (!more) {
			looking->failed = ENOMEM;
			return;
		}
		looking->record = more;
		looking->room = room;
	}
	looking->record[looking->count++] = record;
}

/*
 * The next number in the directory; 0: there is no more. A failed read is told, not taken for an
 * end.
 */
static int next_number(struct looking *looking, DIR *directory)
{
	struct dirent *entry;

	while (errno = 0, (entry = readdir(directory)))
		if (isdigit((unsigned char)entry->d_name[0]))
			return atoi(entry->d_name);
	/* The process has ended. */
	if (errno && errno != ENOENT && errno != ESRCH)
		looking->failed = errno;
	return 0;
}

static DIR *threads_of(struct looking *looking, int pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *threads = opendir(path);
	if (!threads && errno != ENOENT && errno != ESRCH && errno != EACCES && errno != EPERM)
		looking->failed = errno;
	return threads;
}

/*
 * All threads of a process are in one user namespace. That of the first may have ended before the
 * others.
 */
static double user_of(struct looking *looking, int pid)
{
	double user = namespace_of(pid, &USER);
	DIR *threads = user ? NULL : threads_of(looking, pid);
	int tid;

	while (threads && !user && (tid = next_number(looking, threads)))
		if (tid != pid)
			user = namespace_of(tid, &USER);
	if (threads)
		closedir(threads);
	return user;
}

static void look_at_process(struct looking *looking, int pid)
{
	double user = looking->kind->with_user ? user_of(looking, pid) : 0;
	DIR *threads = user && user == looking->except ? NULL : threads_of(looking, pid);
	int tid;

	while (threads && !looking->failed && (tid = next_number(looking, threads)))
		add(looking, (struct record){ pid, tid, user, namespace_of(tid, looking->kind) });
	if (threads)
		closedir(threads);
}

/* The caller closes it; negative: it cannot be opened. */
static int own_namespace(const struct kind *kind)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind->name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void look(napi_env env, void *data)
{
	(void)env;
	struct looking *looking = data;
	DIR *processes = opendir("/proc");
	/*
	 * Most are in our own: while they are open, the kernel need not make an inode for them each
	 * time.
	 */
	int ours[] = { own_namespace(&USER), own_namespace(looking->kind) };
	int pid;

	if (!processes)
		looking->failed = errno;
	while (!looking->failed && (pid = next_number(looking, processes)))
		look_at_process(looking, pid);
	if (processes)
		closedir(processes);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (ours[i] >= 0)
			close(ours[i]);
}

static void told(napi_env env, napi_status status, void *data)
{
	struct looking *looking = data;
	napi_value result, buffer;
	void *into;
	size_t bytes = looking->count * sizeof(struct record);

	if (status != napi_ok)
		looking->failed = ECANCELED;
	if (!looking->failed && napi_create_arraybuffer(env, bytes, &into, &buffer) == napi_ok &&
	    napi_create_typedarray(env, napi_float64_array, bytes / sizeof(double), buffer, 0, &result) == napi_ok) {
		if (bytes)
			memcpy(into, looking->record, bytes);
	} else {
		napi_create_int64(env, looking->failed ? -looking->failed : -ENOMEM, &result);
	}
	napi_resolve_deferred(env, looking->deferred, result);
	napi_delete_async_work(env, looking->work);
	free(looking->record);
	free(looking);
}

/* (kind, inode of the user namespace whose processes are left out, or 0) => numbers, or -errno */
static napi_value task_namespaces(napi_env env, napi_callback_info info)
{
	napi_value argv[2], promise, label;
	size_t argc = 2;
	char name[8] = "";
	struct looking *looking = calloc(1, sizeof(*looking));

	napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
	if (looking && argc == 2 && napi_get_value_string_utf8(env, argv[0], name, sizeof(name), NULL) == napi_ok)
		for (size_t i = 0; i < KIND_COUNT; i++)
			if (strcmp(name, KINDS[i].name) == 0)
				looking->kind = &KINDS[i];
	if (!looking || !looking->kind || napi_get_value_double(env, argv[1], &looking->except) != napi_ok) {
		free(looking);
		napi_throw_type_error(env, NULL, "taskNamespaces: (mnt or net, number)");
		return NULL;
	}
	napi_create_promise(env, &looking->deferred, &promise);
	napi_create_string_utf8(env, "taskNamespaces", NAPI_AUTO_LENGTH, &label);
	napi_create_async_work(env, NULL, label, look, told, looking, &looking->work);
	napi_queue_async_work(env, looking->work);
	return promise;
}

void tasks_register(napi_env env, napi_value exports)
{
	export_function(env, exports, "taskNamespaces", task_namespaces, NULL);
}
