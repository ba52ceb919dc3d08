/*
 * Namespaces of our own, made by the user: the kernel lets each user map its own id, and its own
 * group once setgroups(2) is given up.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t length = strlen(text);

	if (fd < 0 || write(fd, text, length) != length)
		die(path);
	close(fd);
}

static void map_id(const char *path, unsigned int inside, unsigned int outside)
{
	char text[64];

	snprintf(text, sizeof(text), "%u %u 1\n", inside, outside);
	write_file(path, text);
}

/* Whether that setting of the kernel is there, and begins with this character. */
static bool is_set(const char *path, char expected)
{
	char value = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool same = fd >= 0 && read(fd, &value, 1) == 1 && value == expected;

	if (fd >= 0)
		close(fd);
	return same;
}

static const char APPARMOR[] = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

const char *namespaces_forbidden(void)
{
	if (is_set("/proc/sys/kernel/unprivileged_userns_clone", '0'))
		return "The sysctl kernel.unprivileged_userns_clone forbids it";
	if (is_set(APPARMOR, '1'))
		return "AppArmor forbids it (sysctl kernel.apparmor_restrict_unprivileged_userns)";
	return "See user_namespaces(7) for who may";
}

/* Limits count for root, too. */
_Noreturn static void refuse_namespaces(int error)
{
	struct text message = { 0 };

	put(&message, "an ordinary user cannot make the namespaces on this machine (");
	put(&message, errno_name(error));
	put(&message, ")");
	fail("BPFTOKEN_NOT_SUPPORTED", message.bytes,
	     error == ENOSPC || error == EUSERS ? "See the sysctls user.max_user_namespaces, max_mnt_namespaces and max_net_namespaces" :
						  namespaces_forbidden());
}

/*
 * There the namespaces can be made, and then nothing can be done in them; and nobody comes back.
 * Who has a profile of its own is judged by that.
 */
static bool apparmor_forbids(void)
{
	return is_set(APPARMOR, '1') && is_set("/proc/self/attr/current", 'u');
}

bool own_namespaces(bool network, bool identity)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (apparmor_forbids())
		return false;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP | (network ? CLONE_NEWNET : 0)) < 0) {
		if (errno == EPERM || errno == EACCES)
			return false;
		refuse_namespaces(errno);
	}
	write_file("/proc/self/setgroups", "deny");
	map_id("/proc/self/gid_map", identity ? gid : 0, gid);
	map_id("/proc/self/uid_map", identity ? uid : 0, uid);
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		die("mount");
	if (network)
		loopback_up();
	return true;
}
