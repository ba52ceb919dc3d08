/*
 * bpftoken-launch: becomes the program of `bpftoken run`, inside its own namespaces.
 *
 *   bpftoken-launch NET CAPS CGROUP KIND PROGRAM [ARGUMENT...]
 *
 * NET is "own" or "host", CAPS a hex mask, CGROUP the directory of a cgroup to make and enter, or
 * "-"; KIND is "job" where bpftoken is to stop when PROGRAM does, "user" where a user has asked for
 * it (see below), and else "-". Started as root by bpftoken, it forks: the parent stays to watch
 * over PROGRAM (watch.c), the child becomes it.
 * Descriptors 3 and 4 are Unix stream sockets, whose other ends bpftoken holds.
 *
 * Descriptor 3, with who becomes PROGRAM:
 *   launch -> bpftoken  'n' or 't', and its number in decimal digits
 *                                    the namespaces exist; with 't' we stay in the session of our terminal
 *   bpftoken -> launch  'u'          ids are mapped: become the user, whom who lends is to see
 *   launch -> bpftoken  'u'          done
 *   bpftoken -> launch  'c' + mask   a uint64_t: capabilities beyond CAPS
 *   bpftoken -> launch  'w' + path   the working directory, instead of ours: its bytes as a
 *                                    uint32_t, then the path with a zero
 *                                    These three may be left out.
 *   bpftoken -> launch  'g' + environment   ids are mapped and the delegation is in place: go
 *                                    environment: its bytes as a uint32_t, then NAME=VALUE, each with a zero
 *   launch -> bpftoken  'd'          the user may not enter the working directory: it is / now
 *   launch -> bpftoken  'e' + text   "operation errno"; then exits. End of file instead: PROGRAM runs.
 *
 * Descriptor 4, with who watches:
 *   bpftoken -> launch  bytes        each a signal for PROGRAM, with 0x80 for its process group
 *   launch -> bpftoken  "exited STATUS" or "killed SIGNAL"   PROGRAM has ended
 * When bpftoken's end of it closes, PROGRAM is killed.
 *
 * With CGROUP the watcher kills all that is in it once PROGRAM has ended, removes it, and then
 * exits: with 0, or with 1 where that failed.
 *
 * The user namespace is made while still root, so that its owner is root: a process that merely has
 * the same user id as PROGRAM has no power over it. Whom PROGRAM is inside, the id maps say: they
 * name one user and one group. It gets CAPS: as user 0 by the rules for root, as any other as
 * ambient set.
 *
 * PROGRAM inherits nothing that is not named here: descriptors 0 to 2, the environment that was
 * sent, resource limits, CPU affinity, a nice value that is not below 0. docs/run.md tells all of
 * it. The environment is sent, and is not our own: we are root, and the loader would obey it.
 *
 * With KIND "user" it is bpftoken-launchd (launchd/) that started us, and has given us what is the
 * user's: groups, umask, limits, cgroup. These stay. A terminal of nobody's session among
 * descriptors 0 to 2 becomes the controlling one of ours, so that there is job control.
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENVIRONMENT_MAX (8u << 20)
#define LAST_SIGNAL 64

static void tell(const char *message, size_t length)
{
	/* Nobody is there to hear it: then nobody is there to want the program. */
	if (send(CONTROL, message, length, MSG_NOSIGNAL) != (ssize_t)length)
		_exit(125);
}

void die(const char *operation)
{
	char text[128];
	int length = snprintf(text, sizeof(text), "e%s %d", operation, errno);

	tell(text, length);
	_exit(125);
}

void refuse(const char *operation, int error)
{
	errno = error;
	die(operation);
}

static void hear(void *buffer, size_t length)
{
	/* End of file means: do not start. */
	for (size_t got = 0; got < length;) {
		ssize_t n = read(CONTROL, (char *)buffer + got, length - got);
		if (n <= 0)
			_exit(125);
		got += n;
	}
}

/* ---- What root leaves behind ---- */

static void close_all_but_ours(void)
{
	if (syscall(SYS_close_range, LIFELINE + 1, ~0u, 0) < 0)
		die("close_range");
	if (fcntl(CONTROL, F_SETFD, FD_CLOEXEC) < 0 || fcntl(LIFELINE, F_SETFD, FD_CLOEXEC) < 0)
		die("fcntl");
}

/* To be spared by the OOM killer, and to run before others, are privileges of our caller. */
static void drop_precedence(void)
{
	char score[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	struct sched_param none = { 0 };
	/* By number: musl has only stubs of these two, which fail. */
	int policy = syscall(SYS_sched_getscheduler, 0);

	if (fd < 0 || read(fd, score, sizeof(score) - 1) <= 0)
		die("oom_score_adj");
	if (score[0] == '-' && pwrite(fd, "0", 1, 0) != 1)
		die("oom_score_adj");
	close(fd);
	if (policy < 0 || (policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE &&
			   syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none) < 0))
		die("sched_setscheduler");
	/* -1 is a failure too: then there is nothing to lose by setting it. */
	if (getpriority(PRIO_PROCESS, 0) < 0 && setpriority(PRIO_PROCESS, 0, 0) < 0)
		die("setpriority");
	int io = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	if (io >= 0 && IOPRIO_PRIO_CLASS(io) == IOPRIO_CLASS_RT &&
	    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0)) < 0)
		die("ioprio_set");
}

/* ---- Namespaces and identity ---- */

/* Opened before the delegation can be mounted over /proc. */
static int open_map(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(path);
	return fd;
}

/* A decimal number that ends with blanks or a newline; refuses what an id cannot be. */
static uint32_t next_id(const char *map, char **at)
{
	char *end;

	*at += strspn(*at, " ");
	errno = 0;
	unsigned long long value = strtoull(*at, &end, 10);
	if (errno || end == *at || **at < '0' || **at > '9' || value >= UINT32_MAX || !strchr(" \n", *end))
		refuse(map, EINVAL);
	*at = end;
	return value;
}

/*
 * The one id that we may be inside. The second lock on this door, behind bpftoken's own checks:
 * numbers that the kernel cut to 32 bits, or a mistake of ours, must not make host root of the
 * program.
 */
static uint32_t mapped_id(const char *map, int fd)
{
	char text[128];
	ssize_t length = read(fd, text, sizeof(text) - 1);
	char *at = text;

	if (length <= 0)
		refuse(map, EINVAL);
	text[length] = 0;
	close(fd);
	uint32_t inside = next_id(map, &at), outside = next_id(map, &at), count = next_id(map, &at);
	if (strcmp(at, "\n") != 0 || count != 1)
		refuse(map, EINVAL);
	if (outside == 0)
		refuse(map, EPERM);
	return inside;
}

static void become_user(uid_t uid, gid_t gid, int groups)
{
	uid_t uids[3];
	gid_t gids[3];

	if (setresgid(gid, gid, gid) < 0)
		die("setresgid");
	if (setresuid(uid, uid, uid) < 0)
		die("setresuid");
	if (getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
		die("getresuid");
	for (int i = 0; i < 3; i++)
		if (uids[i] != uid || gids[i] != gid)
			refuse("getresuid", EPERM);
	if (getgroups(0, NULL) != groups)
		refuse("getgroups", EPERM);
}

/* ---- What the program starts with ---- */

/* Keys of our caller's session would be the program's to read. A kernel without keys has none. */
static void own_keyring(void)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		die("keyctl");
}

/*
 * The directory by its path, as the user: root's own reaches into directories that the user could
 * not come to.
 */
static void reenter(const char *directory)
{
	if (directory && directory[0] == '/' && chdir(directory) == 0)
		return;
	if (chdir("/") < 0)
		die("chdir");
	tell("d", 1);
}

/* Texts, each with a zero behind. Kept: the program will have them. */
static char *hear_block(uint32_t *length)
{
	hear(length, sizeof(*length));
	if (*length > ENVIRONMENT_MAX)
		refuse("environment", E2BIG);
	char *text = malloc(*length + 1);
	if (!text)
		die("environment");
	hear(text, *length);
	if (*length > 0 && text[*length - 1] != 0)
		refuse("environment", EINVAL);
	text[*length] = 0;
	return text;
}

/* Its environment, as bpftoken sent it. */
static char **hear_environment(void)
{
	uint32_t length;
	char *text = hear_block(&length);
	size_t count = 0;

	for (uint32_t i = 0; i < length; i++)
		count += text[i] == 0;
	char **environment = calloc(count + 1, sizeof(*environment));
	if (!environment)
		die("environment");
	for (size_t i = 0; i < count; i++, text += strlen(text) + 1)
		environment[i] = text;
	return environment;
}

/*
 * As raw calls: the C library keeps two signals for itself, and our caller may have ignored those.
 */
static void default_signals(void)
{
	static const char standard[64]; /* a kernel's struct sigaction: SIG_DFL, no flags */
	sigset_t none;

	for (int number = 1; number <= LAST_SIGNAL; number++)
		if (number != SIGKILL && number != SIGSTOP &&
		    syscall(SYS_rt_sigaction, number, standard, NULL, LAST_SIGNAL / 8) < 0)
			die("rt_sigaction");
	sigemptyset(&none);
	if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, LAST_SIGNAL / 8) < 0)
		die("rt_sigprocmask");
}

struct identity {
	int uid_map, gid_map; /* -1: we are who they say already */
	uid_t uid; /* ours then, as it is inside */
	int groups; /* beside its own: so many */
};

static void become_mapped(struct identity *identity)
{
	if (identity->uid_map < 0)
		return;
	identity->uid = mapped_id("uid_map", identity->uid_map);
	become_user(identity->uid, mapped_id("gid_map", identity->gid_map), identity->groups);
	identity->uid_map = identity->gid_map = -1;
}

/* Does what bpftoken says, until it says go. */
static void await_go(struct identity *identity, uint64_t *caps, char **directory)
{
	uint64_t more;
	uint32_t length;
	char word;

	for (hear(&word, 1); word != 'g'; hear(&word, 1)) {
		if (word == 'c') {
			hear(&more, sizeof(more));
			*caps |= more;
		} else if (word == 'w') {
			*directory = hear_block(&length);
		} else if (word == 'u') {
			become_mapped(identity);
			tell("u", 1);
		} else {
			_exit(125);
		}
	}
}

int main(int argc, char **argv)
{
	char text[16];

	if (argc < 6 || fcntl(CONTROL, F_GETFD) < 0 || fcntl(LIFELINE, F_GETFD) < 0) {
		fputs("bpftoken-launch is started by bpftoken run, not by hand\n", stderr);
		return 2;
	}
	int network = strcmp(argv[1], "own") == 0 ? CLONE_NEWNET : 0;
	uint64_t caps = strtoull(argv[2], NULL, 16);
	const char *cgroup = strcmp(argv[3], "-") == 0 ? NULL : argv[3];
	char *directory = getcwd(NULL, 0);

	close_all_but_ours();
	bool for_user = strcmp(argv[4], "user") == 0;
	bool terminal = !for_user && has_terminal();
	pid_t watcher = getpid();
	fork_from_watcher(cgroup, terminal && strcmp(argv[4], "job") == 0);
	drop_precedence();
	if (!terminal && setsid() < 0)
		die("setsid");
	if (for_user)
		take_terminal();
	if (!for_user && setgroups(0, NULL) < 0)
		die("setgroups");
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP | network) < 0)
		die("unshare");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		die("mount");
	struct identity identity = { .uid_map = open_map("/proc/self/uid_map"), .gid_map = open_map("/proc/self/gid_map"), .groups = getgroups(0, NULL) };
	tell(text, snprintf(text, sizeof(text), "%c%d", terminal ? 't' : 'n', getpid()));
	await_go(&identity, &caps, &directory);
	char **environment = hear_environment();

	if (network)
		loopback_up();
	become_mapped(&identity);
	keep_only(caps, identity.uid != 0);
	own_keyring();
	reenter(directory);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("PR_SET_NO_NEW_PRIVS");
	keep_from_typing();
	if (!for_user)
		umask(022);
	default_signals();
	/* Changing ids cleared it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		die("PR_SET_PDEATHSIG");
	/* bpftoken may have gone already, or the watcher before that took hold. */
	struct pollfd gone = { .fd = CONTROL, .events = POLLRDHUP };
	if (poll(&gone, 1, 0) != 0 || getppid() != watcher)
		_exit(125);
	refuse("execve", execute(argv + 5, environment));
}
