/*
 * The child: what is done inside a target's namespaces. The top of main.c says why it is safe to.
 */
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BPF_FS_MAGIC 0xcafe4a11
#define BPF_MAP_CREATE 0
#define BPF_TOKEN_CREATE 36
#define BPF_F_TOKEN_FD (1U << 16)

static int mine[SLOT_COUNT], own_token = -1;

/*
 * Becomes the owner of the user namespace, who keeps all capabilities by it, and enters that and
 * the mount namespace. Changing identity resets both what decides whether others may look into us
 * and whether we die with our parent.
 */
static int enter(uint32_t uid, uint32_t gid)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2];

	if (uid != 0) {
		if (prctl(PR_SET_KEEPCAPS, 1) < 0 || syscall(SYS_setgroups, 0, NULL) < 0 ||
		    syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0 ||
		    syscall(SYS_capget, &header, caps) < 0)
			return -errno;
		caps[0].effective = caps[0].permitted;
		caps[1].effective = caps[1].permitted;
		if (syscall(SYS_capset, &header, caps) < 0)
			return -errno;
	}
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || setns(mine[SLOT_USER], CLONE_NEWUSER) < 0)
		return -errno;
	if (prctl(PR_GET_DUMPABLE) != 0)
		return -EXECUTOR_EXPOSED;
	if (setns(mine[SLOT_MOUNTS], CLONE_NEWNS) < 0)
		return -errno;
	if (prctl(PR_GET_DUMPABLE) != 0)
		return -EXECUTOR_EXPOSED;
	return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0;
}

static int fill(int which, long fd)
{
	if (fd < 0)
		return -errno;
	close_slot(mine, which);
	mine[which] = fd;
	return 0;
}

/* What is below the root is another's to write, and nobody has looked at it from inside yet. */
static bool no_links;

/* Below the target's root, by a path that no symbolic link leads out of. */
static int open_path(const char *path, int flags)
{
	struct open_how how = {
		.flags = flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (no_links ? RESOLVE_NO_SYMLINKS : 0),
	};

	/*
	 * EAGAIN: something was renamed or mounted meanwhile. Who makes that happen all the time
	 * has until the deadline.
	 */
	int fd;
	do
		fd = syscall(SYS_openat2, mine[SLOT_ROOT], path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN);
	return fd;
}

static struct batch_answer answer;

/* Opens the directory for the executor, and says where it lies. */
static int find(int which, const char *path)
{
	struct place root, *place = &answer.place[which];
	int result = fill(which, open_path(path, O_PATH));

	if (result == 0)
		result = place_of(mine[which], place);
	if (result == 0 && which == SLOT_DIRECTORY && (result = place_of(mine[SLOT_ROOT], &root)) == 0)
		place->is_target_root = place->mount == root.mount && place->inode == root.inode &&
					place->device_major == root.device_major &&
					place->device_minor == root.device_minor;
	return result;
}

/*
 * A container that is being made: its runtime has mounted all below the directory that is to be its
 * root, and makes it that when we are done. -EXDEV: it is the root that the process has already.
 * -ENOTTY: it is no mount of its own, as the root that a runtime has prepared is.
 */
static int enter_root(const char *path)
{
	struct place old, new;
	int fd = open_path(path, O_PATH), result;

	if (fd < 0)
		return -errno;
	if ((result = place_of(mine[SLOT_ROOT], &old)) == 0 && (result = place_of(fd, &new)) == 0) {
		if (old.mount == new.mount && old.inode == new.inode)
			result = -EXDEV;
		else if (!new.is_root)
			result = -ENOTTY;
	}
	if (result < 0) {
		close(fd);
		return result;
	}
	answer.place[SLOT_ROOT] = new;
	no_links = true;
	return fill(SLOT_ROOT, fd);
}

/* One directory after the other, each looked up anew: what was there before may change meanwhile. */
static int make_directory(const char *path)
{
	char part[4096];
	size_t length = strlen(path);

	if (length >= sizeof(part))
		return -ENAMETOOLONG;
	/* Others than us go through it, whatever our daemon's files shall be. */
	umask(022);
	for (size_t end = 1; end <= length; end++) {
		if (path[end] != '/' && path[end] != '\0')
			continue;
		memcpy(part, path, end);
		part[end] = '\0';
		int there = open_path(part, O_PATH), result = there < 0 ? -errno : 0;
		if (there >= 0)
			close(there);
		if (result == 0)
			continue;
		if (result != -ENOENT)
			return result;
		char *name = strrchr(part, '/') + 1;
		char first = *name;
		*name = '\0';
		int above = open_path(part, O_PATH);
		if (above < 0)
			return -errno;
		*name = first;
		result = mkdirat(above, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
		close(above);
		if (result < 0)
			return result;
	}
	return 0;
}

/*
 * A descriptor of the target can be a file of its own file system, where each call may hang, even
 * close(2): so it is looked at here, and only a new context of bpffs goes on to the executor.
 * -EBADFD: it is none.
 *
 * Bpffs takes any option that it does not know, and no user that is not a number. No other file
 * system that the target could mount does both. The guard does not judge these, and the executor
 * proves the rest.
 */
static int take_context(unsigned number)
{
	char name[64], link[64] = "";
	int context = syscall(SYS_pidfd_getfd, mine[SLOT_PROCESS], number, 0);

	if (context < 0)
		return -errno;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", context);
	if (readlink(name, link, sizeof(link) - 1) < 0 || strcmp(link, "anon_inode:[fscontext]") != 0 ||
	    syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "bpftoken_unknown", NULL, 0) < 0 ||
	    syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "uid", "nobody", 0) == 0 || errno != EINVAL)
		return -EBADFD;
	return fill(SLOT_CONTEXT, context);
}

static int mount_onto(int mount, int directory)
{
	int flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;

	return syscall(SYS_move_mount, mount, "", directory, "", flags) < 0 ? -errno : 0;
}

/*
 * Takes away the topmost of the mounts that lie on `root`: "." in it, whatever its name is by now.
 */
static int detach_topmost(int root)
{
	if (fchdir(root) < 0 || umount2(".", MNT_DETACH) < 0)
		return -errno;
	return 0;
}

/*
 * Takes away the mount that `root` is the root of, and before that whatever covers it. -EINVAL: it
 * is mounted nowhere.
 */
static int detach(int root)
{
	int result = detach_topmost(root), next = result;

	while (next == 0)
		next = detach_topmost(root);
	return next == -EINVAL ? result : next;
}

#define COVERS 16

/*
 * Nothing but a path leads to a mount that lies under others. So these are taken away for a moment:
 * a copy of each, with all that is mounted in it, is held, and put back in the end.
 */
static int detach_covered(const char *path, unsigned count)
{
	int cover[COVERS], covers = 0, result = 0;
	struct statfs type;

	if (count == 0 || count > COVERS)
		return -E2BIG;
	/*
	 * Copies that we alone hold go with us: so this comes to its end, though the executor be
	 * gone.
	 */
	prctl(PR_SET_PDEATHSIG, 0);
	while (result == 0 && covers < (int)count) {
		int top = open_path(path, O_PATH), copy;

		if (top < 0) {
			result = -errno;
			break;
		}
		copy = syscall(SYS_open_tree, top, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		result = copy < 0 ? -errno : detach_topmost(top);
		if (result == 0)
			cover[covers++] = copy;
		else if (copy >= 0)
			close(copy);
		close(top);
	}
	if (result == 0)
		result = fill(SLOT_REACHED, open_path(path, O_PATH));
	if (result == 0 && (fstatfs(mine[SLOT_REACHED], &type) < 0 || (uint32_t)type.f_type != BPF_FS_MAGIC))
		result = -ESTALE;
	if (result == 0)
		result = detach(mine[SLOT_REACHED]);
	while (covers-- > 0) {
		int place = open_path(path, O_PATH);
		int back = place < 0 ? -errno : mount_onto(cover[covers], place);

		if (back < 0 && result == 0)
			result = -EUCLEAN;
		if (place >= 0)
			close(place);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return result;
}

/*
 * As a program without privilege outside would do it: EPERM, after which the context takes nothing
 * any more.
 */
static int spoil(int context)
{
	if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		return -EEXIST;
	/* EBUSY: it failed or was created before. */
	return errno == EPERM || errno == EBUSY ? 0 : -errno;
}

static int make_token(const char *path)
{
	const int cap = 39; /* CAP_BPF */
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2] = { { 0, 0, 0 }, { 1u << (cap - 32), 1u << (cap - 32), 0 } };
	struct {
		uint32_t flags, bpffs_fd;
	} attr = { 0, 0 };
	int root = open_path(path, O_RDONLY);

	if (root < 0)
		return -errno;
	attr.bpffs_fd = root;
	if (syscall(SYS_capset, &header, caps) < 0 ||
	    (own_token = syscall(SYS_bpf, BPF_TOKEN_CREATE, &attr, sizeof(attr))) < 0)
		return -errno;
	return 0;
}

static int make_map(void)
{
	struct {
		uint32_t type, key, value, entries, flags, unused[14], token;
	} attr = { .type = 2 /* array */, .key = 4, .value = 4, .entries = 1, .flags = BPF_F_TOKEN_FD, .token = own_token };

	_Static_assert(offsetof(typeof(attr), token) == 76, "map_token_fd");
	return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

static int child_action(const struct executor_action *action)
{
	const char *text = text_of(action);

	switch (action->op) {
	case OP_OPEN_DIRECTORY:
		return find(SLOT_DIRECTORY, text);
	case OP_OPEN_CONTEXT:
		return fill(SLOT_CONTEXT, syscall(SYS_fsopen, text, FSOPEN_CLOEXEC));
	case OP_ATTACH:
		return mount_onto(mine[SLOT_MOUNT], mine[SLOT_DIRECTORY]);
	case OP_OPEN_REACHED:
		return find(SLOT_REACHED, text);
	case OP_DETACH:
		return detach(mine[SLOT_MOUNT]);
	case OP_DETACH_COVERED:
		return detach_covered(text, action->number);
	case OP_SPOIL_CONTEXT:
		return spoil(mine[SLOT_CONTEXT]);
	case OP_MAKE_TOKEN:
		return make_token(text);
	case OP_MAKE_MAP:
		return make_map();
	case OP_ENTER_ROOT:
		return enter_root(text);
	case OP_MAKE_DIRECTORY:
		return make_directory(text);
	case OP_TAKE_CONTEXT:
		return take_context(action->number);
	}
	return -ENOSYS;
}

uint32_t filled_by(int op)
{
	switch (op) {
	case OP_OPEN_DIRECTORY:
		return 1u << SLOT_DIRECTORY;
	case OP_OPEN_CONTEXT:
	case OP_TAKE_CONTEXT:
		return 1u << SLOT_CONTEXT;
	case OP_OPEN_REACHED:
	case OP_DETACH_COVERED:
		return 1u << SLOT_REACHED;
	case OP_ENTER_ROOT:
		return 1u << SLOT_ROOT;
	}
	return 0;
}

uint32_t needed_by(int op)
{
	switch (op) {
	case OP_ATTACH:
	case OP_DETACH:
		return 1u << SLOT_MOUNT;
	case OP_SPOIL_CONTEXT:
		return 1u << SLOT_CONTEXT;
	case OP_TAKE_CONTEXT:
		return 1u << SLOT_PROCESS;
	}
	return 0;
}

static char message[EXECUTOR_MESSAGE_BYTES] __attribute__((aligned(16)));

int child_main(void)
{
	bool inside = false;
	int fds[SLOT_COUNT], count;
	ssize_t got;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "bpftoken-inside");
	for (int i = 0; i < SLOT_COUNT; i++)
		mine[i] = -1;
	/* Page faults are taken now, not when there is a plan. */
	memset(message, 0, sizeof(message) / 4);
	while ((got = receive_message(CLIENT, message, sizeof(message), fds, &count, 0)) > 0) {
		const struct batch *batch = (void *)message;
		const struct executor_action *action = (void *)(batch + 1);
		uint32_t tried = 0;
		int result = 0;

		/* The owner of the user namespace can limit how many descriptors we may get. */
		if (!fill_slots(mine, batch->slots, fds, count))
			break;
		memset(&answer, 0, sizeof(answer));
		modern = batch->modern;
		if (!batch->outside && !inside) {
			if ((result = enter(batch->uid, batch->gid)) < 0)
				result -= EXECUTOR_ENTERING;
			inside = true;
		}
		if (result < 0)
			answer.result[tried++] = result;
		for (; result == 0 && tried < batch->actions; action = next_action(action)) {
			result = answer.result[tried++] = child_action(action);
			if (result == 0)
				answer.slots |= filled_by(action->op);
		}
		size_t bytes = offsetof(struct batch_answer, result) + tried * sizeof(int32_t);
		if (send_message(CLIENT, &answer, bytes, mine, answer.slots) < 0)
			break;
	}
	return 0;
}
