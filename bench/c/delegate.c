/*
 * One delegation in plain C, for comparison.
 *
 *   delegate PID PATH UID GID CMDS MAPS PROGS ATTACHS
 *
 * For each line "bare N" or "checked N" on stdin it delegates N times and answers with one line of
 * JSON: for each delegation the nanoseconds of its steps. `bare` does only what makes the mount;
 * `checked` also the system calls by which bpftoken makes sure of the target before and of the
 * mount after. Undoing is not timed.
 */
#include "delegation.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define NS_GET_USERNS _IO(0xb7, 0x1)
#define NS_GET_OWNER_UID _IO(0xb7, 0x4)

enum { STEPS = 9 }; /* identify, directory, context, options, create, mount, attach, verify, close */

static const char *proc(const char *name)
{
	static char text[64];
	snprintf(text, sizeof(text), "/proc/%d/%s", pid, name);
	return text;
}

static int open_proc(const char *name, int flags)
{
	return ok(open(proc(name), flags | O_CLOEXEC), name);
}

/* The whole file, in a buffer that the next call reuses. */
static char *read_proc(const char *name)
{
	static char text[256 * 1024];
	int fd = open_proc(name, O_RDONLY);
	size_t length = 0;
	ssize_t got;

	while (length < sizeof(text) - 1 && (got = ok(read(fd, text + length, sizeof(text) - 1 - length), name)) > 0)
		length += got;
	text[length] = '\0';
	close(fd);
	return text;
}

static void still_alive(int pidfd)
{
	ok(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), "pidfd_send_signal");
}

static void read_link(const char *name, char link[64])
{
	link[ok(readlink(name, link, 63), name)] = '\0';
}

struct facts {
	char user[64], mount[64];
	unsigned uid, gid, owner;
};

static void read_namespaces(int pidfd, struct facts *facts)
{
	read_link(proc("ns/user"), facts->user);
	still_alive(pidfd);
	read_link(proc("ns/mnt"), facts->mount);
	still_alive(pidfd);
}

static void read_facts(int pidfd, struct facts *facts)
{
	int user = open_proc("ns/user", O_RDONLY);

	ok(ioctl(user, NS_GET_OWNER_UID, &facts->owner), "NS_GET_OWNER_UID");
	close(user);
	read_namespaces(pidfd, facts);
	sscanf(read_proc("uid_map"), " 0 %u", &facts->uid);
	still_alive(pidfd);
	sscanf(read_proc("gid_map"), " 0 %u", &facts->gid);
	still_alive(pidfd);
}

static void refuse_foreign(const struct facts *facts)
{
	char own[64], owning[64], name[64];
	int mount, owner;

	read_link("/proc/self/ns/user", own);
	mount = open_proc("ns/mnt", O_RDONLY);
	owner = ok(ioctl(mount, NS_GET_USERNS), "NS_GET_USERNS");
	snprintf(name, sizeof(name), "/proc/self/fd/%d", owner);
	read_link(name, owning);
	close(owner);
	close(mount);
	if (strcmp(own, facts->user) == 0 || strcmp(owning, facts->user) != 0)
		exit(1);
}

/* Whether the target's mountinfo shows the mount that `fd` lies in as a delegated one. */
static bool is_delegated(int pidfd, int fd)
{
	struct statx st;
	char start[32], *line;

	ok(statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_INO, &st), "statx");
	int length = snprintf(start, sizeof(start), "%llu ", (unsigned long long)st.stx_mnt_id);
	char *text = read_proc("mountinfo");
	still_alive(pidfd);
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (strncmp(line, start, length) == 0)
			return strstr(line, " - bpf ") && strstr(line, "delegate_");
	return false;
}

static void delegate(bool checked, uint64_t steps[STEPS])
{
	const struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	uint64_t mark[STEPS + 1], *next = mark;
	struct facts before, after;

	*next++ = now_ns();
	int pidfd = ok(syscall(SYS_pidfd_open, pid, 0), "pidfd_open");
	if (checked) {
		read_facts(pidfd, &before);
		refuse_foreign(&before);
	}
	int root = open_proc("root", O_PATH);
	if (checked)
		still_alive(pidfd);
	*next++ = now_ns();
	int directory = within((struct within){ pidfd, -1, SYS_openat2, { root, (long)path, (long)&how, sizeof(how) }, 0 },
			       "openat2");
	if (checked && is_delegated(pidfd, directory))
		exit(1);
	*next++ = now_ns();
	int context = within((struct within){ pidfd, -1, SYS_fsopen, { (long)"bpf", FSOPEN_CLOEXEC }, 0 }, "fsopen");
	*next++ = now_ns();
	for (int i = 0; i < 7; i++)
		ok(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0), options[i][0]);
	*next++ = now_ns();
	ok(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "FSCONFIG_CMD_CREATE");
	*next++ = now_ns();
	int mount = ok(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
			       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC), "fsmount");
	int undo = ok(fcntl(mount, F_DUPFD_CLOEXEC, 0), "fcntl"); /* only we need it, but it costs next to nothing */
	*next++ = now_ns();
	within((struct within){ pidfd, -1, SYS_move_mount,
				{ mount, (long)"", directory, (long)"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH }, 0 },
	       "move_mount");
	*next++ = now_ns();
	if (checked) {
		read_namespaces(pidfd, &after);
		if (strcmp(before.user, after.user) || strcmp(before.mount, after.mount) || !is_delegated(pidfd, mount))
			exit(1);
	}
	*next++ = now_ns();
	close(directory);
	close(context);
	close(mount);
	close(root);
	*next++ = now_ns();
	for (int i = 0; i < STEPS; i++)
		steps[i] = mark[i + 1] - mark[i];

	within((struct within){ pidfd, undo, SYS_umount2, { (long)".", MNT_DETACH }, 0 }, "umount2");
	close(undo);
	close(pidfd);
}

int main(int argc, char **argv)
{
	char kind[16];
	int count;

	if (!read_arguments(argc, argv))
		return 2;
	while (scanf("%15s %d", kind, &count) == 2) {
		putchar('[');
		for (int i = 0; i < count; i++) {
			uint64_t steps[STEPS];
			delegate(strcmp(kind, "checked") == 0, steps);
			for (int s = 0; s < STEPS; s++)
				printf("%s%llu", s ? "," : i ? ",[" : "[", (unsigned long long)steps[s]);
			putchar(']');
		}
		puts("]");
		fflush(stdout);
	}
	return 0;
}
