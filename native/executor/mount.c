/* What the kernel says of mounts: by statmount(2), or where that is missing by mountinfo. */
#include "mount.h"
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifndef STATX_BASIC_STATS /* musl before 1.2.5 */
#include <linux/stat.h>
#endif

/* Newer than the headers that we may be built with. */
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif
#define STATMOUNT_SB_BASIC 0x1
#define STATMOUNT_MNT_BASIC 0x2
#define STATMOUNT_MNT_ROOT 0x8
#define STATMOUNT_MNT_POINT 0x10
#define STATMOUNT_FS_TYPE 0x20
#define STATMOUNT_MNT_OPTS 0x80

struct statmount_request {
	uint32_t size, spare;
	uint64_t mnt_id, param, mnt_ns_id;
};

struct statmount_answer {
	uint32_t size, mnt_opts;
	uint64_t mask;
	uint32_t sb_dev_major, sb_dev_minor;
	uint64_t sb_magic;
	uint32_t sb_flags, fs_type;
	uint64_t mnt_id, mnt_parent_id;
	uint32_t mnt_id_old, mnt_parent_id_old;
	uint64_t mnt_attr, mnt_propagation, mnt_peer_group, mnt_master, propagate_from;
	uint32_t mnt_root, mnt_point;
	uint64_t mnt_ns_id;
	uint64_t rest[49];
	char text[];
};
_Static_assert(offsetof(struct statmount_answer, text) == 512, "statmount");

bool modern;

int place_of(int fd, struct place *place)
{
	struct statx st;
	unsigned wanted = STATX_INO | (modern ? STATX_MNT_ID_UNIQUE : STATX_MNT_ID);

	/* What the kernel knows already is enough. */
	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, wanted, &st) < 0)
		return -errno;
	*place = (struct place){
		.inode = st.stx_ino,
		.device_major = st.stx_dev_major,
		.device_minor = st.stx_dev_minor,
		.is_root = !!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT),
	};
	/* stx_mnt_id is newer than the C library's struct. */
	memcpy(&place->mount, (char *)&st + 144, sizeof(place->mount));
	return place->mount ? 0 : -EOPNOTSUPP;
}

#define BASICS (STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_MNT_ROOT | STATMOUNT_MNT_POINT | STATMOUNT_FS_TYPE)

/* What `what` names of the mount, to where `look` points. */
static int ask_statmount(const struct plan *plan, uint64_t id, uint64_t what, struct look *look)
{
	static char buffer[32768] __attribute__((aligned(8)));
	struct statmount_answer *answer = (void *)buffer;
	struct statmount_request request = {
		.size = sizeof(request),
		.mnt_id = id,
		.param = what,
		.mnt_ns_id = plan->namespace_id,
	};

	if (syscall(SYS_statmount, &request, buffer, sizeof(buffer), 0) < 0)
		return -errno;
	*look = (struct look){
		.id = answer->mnt_id,
		.parent = answer->mnt_parent_id,
		.mount = { 0, answer->mnt_id_old, answer->sb_dev_major, answer->sb_dev_minor, 1 },
		.type = answer->mask & STATMOUNT_FS_TYPE ? answer->text + answer->fs_type : "",
		.root = answer->mask & STATMOUNT_MNT_ROOT ? answer->text + answer->mnt_root : "",
		.point = answer->mask & STATMOUNT_MNT_POINT ? answer->text + answer->mnt_point : "",
		.options = answer->mask & STATMOUNT_MNT_OPTS ? answer->text + answer->mnt_opts : "",
	};
	return 0;
}

/* Options are of interest, and their length is bounded, only of a bpffs. */
static int look_by_statmount(const struct plan *plan, uint64_t id, struct look *look)
{
	int result = ask_statmount(plan, id, BASICS, look);

	if (result == 0 && strcmp(look->type, "bpf") == 0)
		result = ask_statmount(plan, id, BASICS | STATMOUNT_MNT_OPTS, look);
	return result;
}

/* In mountinfo a space, tab, newline or backslash stands as three octal digits. */
static void decode_octal(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
			*to++ = (text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0');
			text += 3;
		} else {
			*to++ = *text;
		}
	*to = '\0';
}

/*
 * Before Linux 6.11. The target's number may have gone to another process meanwhile: REFUSE_MOVED
 * finds out.
 */
static int look_by_mountinfo(const struct plan *plan, uint64_t id, struct look *look)
{
	static char line[32768];
	char name[64];
	int found = -ENOENT;

	snprintf(name, sizeof(name), "/proc/%u/mountinfo", plan->head.pid);
	FILE *file = fopen(name, "re");
	if (!file)
		return -errno;
	while (found < 0 && fgets(line, sizeof(line), file)) {
		unsigned long long here, above;
		unsigned major, minor;
		char *save, *word, *field[3];

		if (sscanf(line, "%llu %llu %u:%u", &here, &above, &major, &minor) != 4 || here != id)
			continue;
		strtok_r(line, " ", &save);
		for (int i = 0; i < 2; i++)
			strtok_r(NULL, " ", &save);
		char *root = strtok_r(NULL, " ", &save), *point = strtok_r(NULL, " ", &save);
		while ((word = strtok_r(NULL, " ", &save)) && strcmp(word, "-") != 0)
			;
		for (int i = 0; i < 3; i++)
			field[i] = strtok_r(NULL, " \n", &save);
		if (!root || !point || !field[2]) {
			found = -EOVERFLOW;
			break;
		}
		decode_octal(root);
		decode_octal(point);
		*look = (struct look){ .id = id, .parent = above, .mount = { 0, id, major, minor, 1 },
				       .type = field[0], .root = root, .point = point, .options = field[2] };
		found = 0;
	}
	fclose(file);
	return found;
}

int look_at(const struct plan *plan, uint64_t id, struct look *look)
{
	return modern ? look_by_statmount(plan, id, look) : look_by_mountinfo(plan, id, look);
}

int look_below(const struct plan *plan, const struct look *above, struct look *below)
{
	char point[PATH_MAX];
	uint64_t id = above->id, parent = above->parent;

	if (parent == id)
		return 0;
	if (strlen(above->point) >= sizeof(point))
		return -ENAMETOOLONG;
	strcpy(point, above->point);
	int result = look_at(plan, parent, below);
	/*
	 * Mountinfo leaves out the mount that the target's root directory lies in, if that is not
	 * its root.
	 */
	if (!modern && result == -ENOENT)
		return 0;
	if (result < 0)
		return result;
	return strcmp(below->point, point) == 0 && below->parent != below->id;
}

bool delegates(const struct look *look)
{
	return strcmp(look->type, "bpf") == 0 && strstr(look->options, "delegate_");
}

bool is_modern(void)
{
	struct plan plan = { 0 };
	struct look look;
	struct place place;
	bool is;
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	int user = ioctl(pidfd, PIDFD_GET_USER_NAMESPACE, 0), mount = ioctl(pidfd, PIDFD_GET_MNT_NAMESPACE, 0);
	int root = open("/", O_PATH | O_CLOEXEC);

	modern = true;
	is = user >= 0 && mount >= 0 && ioctl(mount, NS_GET_MNTNS_ID, &plan.namespace_id) == 0 &&
	     place_of(root, &place) == 0 && ask_statmount(&plan, place.mount, BASICS | STATMOUNT_MNT_OPTS, &look) == 0 &&
	     look.options[0] && look.type[0];
	close(pidfd);
	close(user);
	close(mount);
	close(root);
	return is;
}
