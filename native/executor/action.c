/* What the executor does itself, in our own namespaces. */
#include "action.h"
#include "mount.h"

#include <errno.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int set_string(int context, const char *key, const char *value)
{
	return syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static int set_number(int context, const char *key, uint32_t value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	return set_string(context, key, text);
}

/*
 * Were it a context of another file system, we would create a superblock for it with our privilege,
 * of a type that the target may not mount. Only bpffs both refuses a delegation that is no word of
 * its grammar and accepts one that is empty. -EBADF: it is none, or not a new one.
 *
 * The superblock will belong to the user namespace of whoever opened the context. The kernel does
 * not say which that is, but it takes as owner only ids that are mapped there. -EXDEV: it is
 * another one's.
 */
static int prove_context(int context, uint32_t mapped, uint32_t unmapped)
{
	int result = set_string(context, "delegate_cmds", "no_such_command");

	/* Somebody judges options before bpffs does. */
	if (result == -EACCES)
		return result;
	if (result != -EINVAL || set_string(context, "delegate_cmds", "0") != 0)
		return -EBADF;
	if ((mapped != EXECUTOR_NONE && set_number(context, "uid", mapped) != 0) ||
	    (unmapped != EXECUTOR_NONE && set_number(context, "uid", unmapped) == 0))
		return -EXDEV;
	return 0;
}

/* As its mount would: once that has been made, no other can be, and with it the superblock goes. */
static int discard_context(int context)
{
	int mount = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);

	if (mount < 0)
		return -errno;
	close(mount);
	return 0;
}

bool is_same_file(int one, int other)
{
	struct stat a, b;

	return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int refuse_delegation_below(const struct plan *plan, struct look look)
{
	struct look below;
	int result;

	while ((result = look_below(plan, &look, &below)) > 0) {
		if (delegates(&below))
			return -EEXIST;
		look = below;
	}
	return result;
}

static int refuse_occupied(const struct plan *plan)
{
	const struct place *place = &plan->place[SLOT_DIRECTORY];
	struct look look;

	/* The root directory is not looked up: what is mounted over it is reached by nobody. */
	if (place->is_target_root)
		return -EXDEV;
	int result = look_at(plan, place->mount, &look);
	if (result < 0)
		return result;
	if (delegates(&look))
		return -EEXIST;
	return place->is_root ? refuse_delegation_below(plan, look) : 0;
}

static int refuse_unreached(const struct plan *plan)
{
	const struct place *reached = &plan->place[SLOT_REACHED];
	struct look look;

	if (!reached->mount || !reached->is_root || reached->mount != plan->place[SLOT_MOUNT].mount)
		return -ESTALE;
	/* Between REFUSE_OCCUPIED and ATTACH somebody else could have delegated there. */
	int result = look_at(plan, reached->mount, &look);
	return result < 0 ? result : refuse_delegation_below(plan, look);
}

static int is_in(const struct plan *plan, int request, const char *name, int slot)
{
	struct stat is, was;

	if (modern) {
		int fd = ioctl(plan->slot[SLOT_PROCESS], request, 0);
		if (fd < 0)
			return -errno;
		int result = is_same_file(fd, plan->slot[slot]) ? 0 : -EXDEV;
		close(fd);
		return result;
	}
	char path[64];
	snprintf(path, sizeof(path), "/proc/%u/ns/%s", plan->head.pid, name);
	if (stat(path, &is) < 0 || fstat(plan->slot[slot], &was) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return is.st_ino == was.st_ino ? 0 : -EXDEV;
}

static int refuse_moved(const struct plan *plan)
{
	int result = is_in(plan, PIDFD_GET_USER_NAMESPACE, "user", SLOT_USER);

	if (result == 0)
		result = is_in(plan, PIDFD_GET_MNT_NAMESPACE, "mnt", SLOT_MOUNTS);
	if (result == 0 && syscall(SYS_pidfd_send_signal, plan->slot[SLOT_PROCESS], 0, NULL, 0) < 0 && errno == ESRCH)
		result = -ESRCH;
	return result;
}

struct seen_mounts seen;

static int add_mount(struct look *look)
{
	const char *text[] = { look->type, look->root, look->point, look->options };
	size_t at = seen.bytes + sizeof(look->mount);

	for (int i = 0; i < 4; i++) {
		size_t length = strlen(text[i]) + 1;
		if (at + length + 4 > sizeof(seen.data))
			return -E2BIG;
		memcpy(seen.data + at, text[i], length);
		at += length;
	}
	while (at % 4)
		seen.data[at++] = '\0';
	look->mount.bytes = at - seen.bytes;
	memcpy(seen.data + seen.bytes, &look->mount, sizeof(look->mount));
	seen.bytes = at;
	seen.count++;
	return 0;
}

static int look_and_tell(const struct plan *plan, uint32_t slot, uint32_t depth)
{
	struct look look, below;
	const struct place *place = &plan->place[slot < SLOT_COUNT ? slot : 0];
	int result = place->mount ? look_at(plan, place->mount, &look) : -EBADF;

	if (result == 0) {
		look.mount.at_root = place->is_root;
		result = add_mount(&look);
	}
	while (result == 0 && place->is_root && depth-- > 0 && (result = look_below(plan, &look, &below)) > 0) {
		look = below;
		result = add_mount(&look);
	}
	return result;
}

/*
 * What bpftoken does meanwhile has as long as all the rest, and is no part of that: on a machine
 * that is busy it is not the plan that takes long.
 */
static int pause_here(struct plan *plan)
{
	struct executor_answer answer = { .kind = EXECUTOR_PAUSED, .failed = -1, .steps = plan->tried };
	int64_t since = now_ms();
	int result;

	send_message(CLIENT, &answer, sizeof(answer), NULL, 0);
	if ((result = wait_for(CLIENT, since + plan->head.deadline_ms, false)) < 0)
		return result;
	plan->deadline += now_ms() - since;
	return hear(0) == EXECUTOR_KEEP ? 0 : -ECANCELED;
}

/* By a child that is used for nothing else: it may hang on what it gets. */
static int take_context(struct plan *plan, const struct executor_action *action)
{
	int32_t result;

	let_go(&plan->child);
	run_batch(plan, &action, 1, &result, plan->deadline, true);
	let_go(&plan->child);
	if (result < 0)
		return result;
	plan->taken = true;
	return note_in_journal(plan, OP_SPOIL_CONTEXT, plan->slot[SLOT_CONTEXT], -1);
}

static int make_mount(struct plan *plan, uint32_t attributes)
{
	close_slot(plan->slot, SLOT_MOUNT);
	plan->slot[SLOT_MOUNT] = syscall(SYS_fsmount, plan->slot[SLOT_CONTEXT], FSMOUNT_CLOEXEC, attributes);
	return plan->slot[SLOT_MOUNT] < 0 ? -errno : place_of(plan->slot[SLOT_MOUNT], &plan->place[SLOT_MOUNT]);
}

int own_action(struct plan *plan, const struct executor_action *action)
{
	int context = plan->slot[SLOT_CONTEXT], result;
	const char *text = text_of(action);

	switch (action->op) {
	case OP_TAKE_CONTEXT:
		return take_context(plan, action);
	case OP_SET_FLAG:
		result = syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, text, NULL, 0) < 0 ? -errno : 0;
		return action->number && result == -(int)action->number ? 0 : result;
	case OP_SET_OPTION:
		return set_string(context, text, text + strlen(text) + 1);
	case OP_PROVE_CONTEXT:
		return prove_context(context, action->number, action->more);
	case OP_CREATE:
		return syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -errno : 0;
	case OP_DISCARD_CONTEXT:
		return discard_context(context);
	case OP_MAKE_MOUNT:
		return make_mount(plan, action->number);
	case OP_REFUSE_OCCUPIED:
		return refuse_occupied(plan);
	case OP_REFUSE_UNREACHED:
		return refuse_unreached(plan);
	case OP_REFUSE_MOVED:
		return refuse_moved(plan);
	case OP_LOOK:
		return look_and_tell(plan, action->number, action->more);
	case OP_PAUSE:
		return pause_here(plan);
	}
	return -ENOSYS;
}
