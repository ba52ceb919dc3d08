/*
 * bpftoken-launch: becomes the program of `bpftoken run`, inside its own namespaces.
 *
 *   bpftoken-launch CONTROL_FD NET CAPS PROGRAM [ARGUMENT...]
 *
 * NET is "own" or "host", CAPS a hex mask. Started as root by bpftoken, which holds the other end of
 * CONTROL_FD (a Unix stream socket) and speaks one byte each way:
 *
 *   launch -> bpftoken  'n'          the namespaces exist
 *   bpftoken -> launch  'g'          identity is mapped and the delegation is in place: go
 *   launch -> bpftoken  'e' + text   "operation errno"; then exits. End of file instead: PROGRAM runs.
 *
 * The user namespace is made while still root, so that its owner is root: a process that merely has
 * the same user id as PROGRAM has no power over it. PROGRAM itself is uid 0 inside, which maps to the
 * unprivileged user outside, with CAPS as permitted, effective and bounding set.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int control;

static void die(const char *operation)
{
	char text[128];
	int length = snprintf(text, sizeof(text), "e%s %d", operation, errno);
	if (write(control, text, length) < 0)
		_exit(125);
	_exit(125);
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		die("SIOCGIFFLAGS");
	request.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		die("SIOCSIFFLAGS");
	close(fd);
}

static void keep_only(uint64_t caps)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)caps, (uint32_t)caps, 0 },
		{ (uint32_t)(caps >> 32), (uint32_t)(caps >> 32), 0 },
	};

	/* Bounding set first, it needs CAP_SETPCAP. EINVAL ends it: past the kernel's last capability. */
	for (int cap = 0; cap < 64; cap++)
		if (!(caps >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL && cap > CAP_BPF)
				break;
			die("PR_CAPBSET_DROP");
		}
	if (syscall(SYS_capset, &header, data) < 0)
		die("capset");
}

int main(int argc, char **argv)
{
	char answer;

	if (argc < 5) {
		fputs("bpftoken-launch is started by bpftoken run, not by hand\n", stderr);
		return 2;
	}
	control = atoi(argv[1]);
	int network = strcmp(argv[2], "own") == 0 ? CLONE_NEWNET : 0;
	uint64_t caps = strtoull(argv[3], NULL, 16);

	if (fcntl(control, F_SETFD, FD_CLOEXEC) < 0)
		die("fcntl");
	/* Without this a SIGKILLed bpftoken would leave us waiting for an answer that never comes. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		die("PR_SET_PDEATHSIG");
	if (setgroups(0, NULL) < 0)
		die("setgroups");
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | network) < 0)
		die("unshare");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		die("mount");
	if (write(control, "n", 1) != 1)
		_exit(125);
	/* Anything but 'g', end of file included, means: do not start. */
	if (read(control, &answer, 1) != 1 || answer != 'g')
		_exit(125);

	if (network)
		loopback_up();
	if (setresgid(0, 0, 0) < 0)
		die("setresgid");
	if (setresuid(0, 0, 0) < 0)
		die("setresuid");
	keep_only(caps);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("PR_SET_NO_NEW_PRIVS");
	/* Changing ids cleared it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		die("PR_SET_PDEATHSIG");
	/* bpftoken may have gone before that took hold. */
	struct pollfd gone = { .fd = control, .events = POLLRDHUP };
	if (poll(&gone, 1, 0) != 0)
		_exit(125);
	execvp(argv[4], argv + 4);
	die("execve");
}
