/*
 * Who asks: held by pidfd, and read below its directory of /proc, which is of that process and no
 * other.
 *
 * The program is a child of ours and not of the asker. So whatever confines the asker would be left
 * behind, and the asker could leave it by asking us. It is refused where it is in another namespace
 * or root directory than we, has another label, has given up privileges for good (no_new_privs, by
 * which also whoever is in a sandbox of Landlock made by a user is known), a seccomp filter, or a
 * smaller bounding set. Its cgroups, resource limits and the like we take on.
 */
#include "launchd.h"

#include "../launch.h"
#include "../launched.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Of a personality, what the kernel takes from whoever executes a setuid program. */
#define CLEARED (0ul + READ_IMPLIES_EXEC + ADDR_NO_RANDOMIZE + ADDR_COMPAT_LAYOUT + MMAP_PAGE_ZERO)

_Noreturn static void refuse_asker(const char *why)
{
	fail("BPFTOKEN_DENIED", why, NULL);
}

/* A file of a directory of /proc as text; false: there is none. */
static bool read_text(int directory, const char *name, char *text, size_t room)
{
	size_t length = 0;
	ssize_t got = 0;
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	while (length < room - 1 && (got = read(fd, text + length, room - 1 - length)) > 0)
		length += got;
	close(fd);
	text[length] = 0;
	/* What is longer than we know is not read in part. */
	return got == 0;
}

static void must_read(int directory, const char *name, char *text, size_t room)
{
	if (!read_text(directory, name, text, room))
		refuse(name, errno ? errno : EFBIG);
}

static bool is_alive(int pidfd)
{
	return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0;
}

/* Behind the name of a line, and blanks. */
static const char *line_of(const char *status, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = status; at; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, name, length) == 0 && at[length] == ':')
			return at + length + 1 + strspn(at + length + 1, "\t ");
	}
	refuse_asker("what the kernel says of whoever asks is not known here");
}

static uint64_t number_of(const char *status, const char *name, int base)
{
	return strtoull(line_of(status, name), NULL, base);
}

static bool has_ids(const char *status, const char *name, uint32_t id)
{
	unsigned int ids[4];

	if (sscanf(line_of(status, name), "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return false;
	for (int i = 0; i < 4; i++)
		if (ids[i] != id)
			return false;
	return true;
}

static void read_groups(struct asker *asker, const char *status)
{
	const char *at = line_of(status, "Groups");
	char *end;

	asker->group_count = 0;
	while (*at && *at != '\n') {
		unsigned long id = strtoul(at, &end, 10);
		if (end == at || id >= UINT32_MAX || asker->group_count == ASKER_GROUPS)
			refuse_asker("whoever asks is in more groups than are known here");
		asker->groups[asker->group_count++] = id;
		at = end + strspn(end, " \t");
	}
}

static void require_unconfined(const struct asker *asker, const char *status)
{
	static const char *const kinds[] = { "user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time" };
	char ours[ASKER_TEXT], theirs[ASKER_TEXT], path[32];
	struct stat root, their_root;

	if (number_of(status, "NoNewPrivs", 10) != 0 || number_of(status, "Seccomp", 10) != 0)
		refuse_asker("whoever asks is in a sandbox (no_new_privs, seccomp), which the program would leave");
	must_read(AT_FDCWD, "/proc/self/status", ours, sizeof(ours));
	if (number_of(ours, "CapBnd", 16) & ~number_of(status, "CapBnd", 16))
		refuse_asker("whoever asks has a smaller bounding set of capabilities, which the program would leave");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[i]);
		ssize_t length = readlink(path, ours, sizeof(ours));
		if (length < 0 && errno == ENOENT)
			continue; /* a kernel without */
		if (length < 0 || readlinkat(asker->directory, path + strlen("/proc/self/"), theirs, sizeof(theirs)) != length ||
		    memcmp(ours, theirs, length) != 0)
			refuse_asker("whoever asks is in namespaces of its own, which the program would leave");
	}
	if (stat("/", &root) < 0 || fstatat(asker->directory, "root", &their_root, 0) < 0 ||
	    root.st_dev != their_root.st_dev || root.st_ino != their_root.st_ino)
		refuse_asker("whoever asks has another root directory, which the program would leave");
	/* Without a security module that has labels there is none to be read. */
	if (read_text(AT_FDCWD, "/proc/self/attr/current", ours, sizeof(ours)) &&
	    (!read_text(asker->directory, "attr/current", theirs, sizeof(theirs)) || strcmp(ours, theirs) != 0))
		refuse_asker("whoever asks has another label of a security module, which the program would leave");
}

static void look(struct asker *asker)
{
	char status[ASKER_TEXT];

	must_read(asker->directory, "status", status, sizeof(status));
	if (!has_ids(status, "Uid", asker->uid) || !has_ids(status, "Gid", asker->gid))
		refuse_asker("whoever asks is another user by now");
	read_groups(asker, status);
	asker->umask = number_of(status, "Umask", 8) & 0777;
	must_read(asker->directory, "cgroup", asker->cgroups, sizeof(asker->cgroups));
	require_unconfined(asker, status);
	/* All of it was of that process, if that lives. */
	if (!is_alive(asker->pidfd))
		refuse_asker("whoever asks has exited");
}

void hold_asker(struct asker *asker, int pidfd, uid_t uid, gid_t gid)
{
	char path[64], info[2048];

	*asker = (struct asker){ .pidfd = pidfd, .uid = uid, .gid = gid };
	if (uid == 0 || gid == 0)
		refuse_asker("root, and its group, start no program this way");
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	must_read(AT_FDCWD, path, info, sizeof(info));
	/* No pidfd has no such line. */
	asker->pid = strtol(line_of(info, "Pid"), NULL, 10);
	if (asker->pid <= 0)
		refuse_asker("whoever asks has exited");
	snprintf(path, sizeof(path), "/proc/%d", asker->pid);
	asker->directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* Its number was its own when that was opened, for it lives now. */
	if (asker->directory < 0 || !is_alive(pidfd))
		refuse_asker("whoever asks has exited");
	look(asker);
}

void confirm_asker(const struct asker *asker)
{
	struct asker now = *asker;

	look(&now);
	if (now.group_count != asker->group_count ||
	    memcmp(now.groups, asker->groups, asker->group_count * sizeof(gid_t)) != 0)
		refuse_asker("whoever asks is in other groups by now");
}

/* ---- What is theirs ---- */

/* Where cgroup2 is, alone or beside the older ones. */
static const char *cgroup_root(void)
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	struct statfs there;

	for (size_t i = 0; i < 2; i++)
		if (statfs(places[i], &there) == 0 && there.f_type == CGROUP2_SUPER_MAGIC)
			return places[i];
	refuse_asker("no cgroup2 is mounted at /sys/fs/cgroup");
}

/*
 * That of cgroup2 is entered. If limits of the older hierarchies are others than ours, the program
 * would have left them.
 */
static void enter_cgroup(const struct asker *asker)
{
	char path[PATH_MAX], ours[ASKER_TEXT];
	const char *at = strncmp(asker->cgroups, "0::", 3) == 0 ? asker->cgroups : strstr(asker->cgroups, "\n0::");

	if (!at)
		refuse_asker("whoever asks is in no cgroup2");
	at = strchr(at, '/');
	int length = at ? strcspn(at, "\n") : 0;
	if (length == 0 || snprintf(path, sizeof(path), "%s%.*s/cgroup.procs", cgroup_root(), length, at) >= (int)sizeof(path))
		refuse_asker("the cgroup of whoever asks cannot be named");
	int procs = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (procs < 0 || write(procs, "0", 1) != 1)
		die("cgroup.procs");
	close(procs);
	must_read(AT_FDCWD, "/proc/self/cgroup", ours, sizeof(ours));
	if (strcmp(ours, asker->cgroups) != 0)
		refuse_asker("whoever asks is in a cgroup that the program cannot be put into");
}

static rlim_t limit_of(const char *text)
{
	return strcmp(text, "unlimited") == 0 ? RLIM_INFINITY : strtoull(text, NULL, 10);
}

/*
 * A line for each, in the order of their numbers, below one of titles: the name in a column of 26,
 * what counts now, and what it can be raised to. prlimit(2) would take CAP_SYS_RESOURCE, which root
 * of a container need not have.
 */
static void take_limits(const struct asker *asker)
{
	char text[ASKER_TEXT], soft[32], hard[32];

	must_read(asker->directory, "limits", text, sizeof(text));
	const char *line = text;
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		line = strchr(line, '\n');
		if (!line || strcspn(++line, "\n") < 26 || sscanf(line + 26, "%31s %31s", soft, hard) != 2)
			refuse("limits", EINVAL);
		struct rlimit limit = { limit_of(soft), limit_of(hard) };
		if (setrlimit(i, &limit) < 0)
			die("setrlimit");
	}
}

/* Of precedence what is no privilege: bpftoken-launch drops the rest. */
static void take_precedence(const struct asker *asker)
{
	cpu_set_t processors;
	struct sched_param none = { 0 };
	char score[32];

	long bytes = syscall(SYS_sched_getaffinity, asker->pid, sizeof(processors), &processors);
	if (bytes < 0 || syscall(SYS_sched_setaffinity, 0, bytes, &processors) < 0)
		die("sched_setaffinity");
	int policy = syscall(SYS_sched_getscheduler, asker->pid);
	if (policy < 0 || ((policy == SCHED_BATCH || policy == SCHED_IDLE) && syscall(SYS_sched_setscheduler, 0, policy, &none) < 0))
		die("sched_setscheduler");
	errno = 0;
	int nice = getpriority(PRIO_PROCESS, asker->pid);
	if (errno || (nice > 0 && setpriority(PRIO_PROCESS, 0, nice) < 0))
		die("setpriority");
	int io = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, asker->pid);
	if (io > 0 && IOPRIO_PRIO_CLASS(io) != IOPRIO_CLASS_RT && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, io) < 0)
		die("ioprio_set");
	must_read(asker->directory, "oom_score_adj", score, sizeof(score));
	if (strtol(score, NULL, 10) < 0)
		strcpy(score, "0");
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, score, strlen(score)) < 0)
		die("oom_score_adj");
	close(fd);
}

/* Who has logged in, for the audit of the kernel: what is done is not done by nobody. */
static void take_login(const struct asker *asker)
{
	char theirs[32], ours[32];

	if (!read_text(asker->directory, "loginuid", theirs, sizeof(theirs)))
		return; /* a kernel without */
	must_read(AT_FDCWD, "/proc/self/loginuid", ours, sizeof(ours));
	if (strcmp(ours, theirs) == 0)
		return;
	int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, theirs, strlen(theirs)) < 0)
		die("loginuid");
	close(fd);
}

void take_on(const struct asker *asker)
{
	char text[32];

	enter_cgroup(asker);
	take_login(asker);
	take_precedence(asker);
	must_read(asker->directory, "personality", text, sizeof(text));
	/* bpftoken-launch begins as root. */
	if (personality(strtoul(text, NULL, 16) & ~CLEARED) < 0)
		die("personality");
	umask(asker->umask);
	if (setgroups(asker->group_count, asker->groups) < 0)
		die("setgroups");
	take_limits(asker);
	/* What was read by its number was its own. */
	if (!is_alive(asker->pidfd))
		refuse_asker("whoever asks has exited");
}
