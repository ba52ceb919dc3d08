/*
 * The floor: one delegation in plain C with the newest calls (Linux 6.11), and without a care for
 * safety.
 *
 *   delegate-floor PID PATH UID GID CMDS MAPS PROGS ATTACHS
 *
 * For each line "N" on stdin it delegates N times and answers with one line of JSON: the
 * nanoseconds of each. All that bpftoken makes sure of is made sure of, by pidfd ioctls and
 * statmount(2); one child, which shares memory and descriptors, enters the namespaces once. Undoing
 * is not timed.
 */
#include "delegation.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define NS_GET_USERNS _IO(0xb7, 0x1)
#define NS_GET_OWNER_UID _IO(0xb7, 0x4)
#define NS_GET_MNTNS_ID _IOR(0xb7, 0x5, uint64_t)
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_USER_NAMESPACE _IO(0xFF, 9)
#define MNT_ID_UNIQUE 0x4000U
#ifndef SYS_statmount
#define SYS_statmount 457
#endif

struct request {
	uint32_t size, spare;
	uint64_t mnt_id, param, mnt_ns_id;
};

struct job {
	int pidfd, root;
	struct open_how how;
	long directory, context, moved;
	int mount;
	atomic_int stage;
};

static void wait_stage(atomic_int *stage, int value)
{
	for (int now; (now = atomic_load(stage)) < value;)
		syscall(SYS_futex, stage, FUTEX_WAIT, now, NULL, NULL, 0);
}

static void set_stage(atomic_int *stage, int value)
{
	atomic_store(stage, value);
	syscall(SYS_futex, stage, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int child(void *data)
{
	struct job *job = data;

	if (syscall(SYS_setns, job->pidfd, CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		job->directory = -1;
		set_stage(&job->stage, 1);
		return 0;
	}
	job->directory = syscall(SYS_openat2, job->root, path, &job->how, sizeof(job->how));
	job->context = syscall(SYS_fsopen, "bpf", FSOPEN_CLOEXEC);
	set_stage(&job->stage, 1);
	wait_stage(&job->stage, 2);
	job->moved = syscall(SYS_move_mount, job->mount, "", (int)job->directory, "",
			     MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	return 0;
}

static void look(int fd, uint64_t namespace)
{
	static char buffer[4096];
	struct statx st;

	ok(statx(fd, "", AT_EMPTY_PATH, MNT_ID_UNIQUE, &st), "statx");
	/* SB_BASIC, MNT_BASIC, MNT_ROOT, MNT_POINT, FS_TYPE, MNT_OPTS */
	struct request request = { .size = sizeof(request), .mnt_id = st.stx_mnt_id, .param = 0xbb, .mnt_ns_id = namespace };
	ok(syscall(SYS_statmount, &request, buffer, sizeof(buffer), 0), "statmount");
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	ok(fstat(fd, &st), "fstat");
	return st.st_ino;
}

static uint64_t delegate(void)
{
	static char stack[64 * 1024] __attribute__((aligned(16)));
	char name[64], text[4096];
	uint64_t start = now_ns(), namespace = 0;
	unsigned owner_uid;

	int pidfd = ok(syscall(SYS_pidfd_open, pid, 0), "pidfd_open");
	int user = ok(ioctl(pidfd, PIDFD_GET_USER_NAMESPACE, 0), "PIDFD_GET_USER_NAMESPACE");
	int mounts = ok(ioctl(pidfd, PIDFD_GET_MNT_NAMESPACE, 0), "PIDFD_GET_MNT_NAMESPACE");
	uint64_t user_inode = inode_of(user), mounts_inode = inode_of(mounts);
	ok(ioctl(user, NS_GET_OWNER_UID, &owner_uid), "NS_GET_OWNER_UID");
	int owner = ok(ioctl(mounts, NS_GET_USERNS), "NS_GET_USERNS");
	if (inode_of(owner) != user_inode)
		exit(1);
	close(owner);
	ok(ioctl(mounts, NS_GET_MNTNS_ID, &namespace), "NS_GET_MNTNS_ID");
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "/proc/%d/%s", pid, i ? "gid_map" : "uid_map");
		int map = ok(open(name, O_RDONLY | O_CLOEXEC), name);
		ok(read(map, text, sizeof(text) - 1), name);
		close(map);
	}
	snprintf(name, sizeof(name), "/proc/%d/root", pid);
	struct job job = {
		.pidfd = pidfd,
		.root = ok(open(name, O_PATH | O_CLOEXEC), name),
		.how = { .flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS },
	};
	ok(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0), "pidfd_send_signal");

	cpu_set_t anywhere, here;
	sched_getaffinity(0, sizeof(anywhere), &anywhere);
	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	sched_setaffinity(0, sizeof(here), &here);
	int task = ok(clone(child, stack + sizeof(stack), CLONE_VM | CLONE_FILES, &job), "clone");
	wait_stage(&job.stage, 1);
	int directory = ok(job.directory, "openat2"), context = ok(job.context, "fsopen");
	look(directory, namespace);
	for (int i = 0; i < 7; i++)
		ok(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0), options[i][0]);
	ok(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "FSCONFIG_CMD_CREATE");
	int mount = job.mount = ok(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
					   MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC), "fsmount");
	int undo = ok(fcntl(mount, F_DUPFD_CLOEXEC, 0), "fcntl");
	set_stage(&job.stage, 2);
	ok(waitpid(task, NULL, __WALL), "waitpid");
	sched_setaffinity(0, sizeof(anywhere), &anywhere);
	ok(job.moved, "move_mount");

	int user_after = ok(ioctl(pidfd, PIDFD_GET_USER_NAMESPACE, 0), "PIDFD_GET_USER_NAMESPACE");
	int mounts_after = ok(ioctl(pidfd, PIDFD_GET_MNT_NAMESPACE, 0), "PIDFD_GET_MNT_NAMESPACE");
	if (inode_of(user_after) != user_inode || inode_of(mounts_after) != mounts_inode)
		exit(1);
	look(mount, namespace);
	int done[] = { user_after, mounts_after, user, mounts, directory, context, mount, job.root };
	for (size_t i = 0; i < sizeof(done) / sizeof(done[0]); i++)
		close(done[i]);
	uint64_t took = now_ns() - start;

	within((struct within){ pidfd, undo, SYS_umount2, { (long)".", MNT_DETACH }, 0 }, "umount2");
	close(undo);
	close(pidfd);
	return took;
}

int main(int argc, char **argv)
{
	int count;

	if (!read_arguments(argc, argv))
		return 2;
	while (scanf("%d", &count) == 1) {
		putchar('[');
		for (int i = 0; i < count; i++)
			printf("%s%llu", i ? "," : "", (unsigned long long)delegate());
		puts("]");
		fflush(stdout);
	}
	return 0;
}
