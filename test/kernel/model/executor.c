/*
 * Runs cases of the kernel model's test on the kernel: takes batches of steps on standard input and
 * answers with their results. It knows nothing of what they mean.
 *
 * Each context is a process that lives on, in a user namespace of its own or not. All share one
 * table of descriptors and some memory, so that a step can use what another context has opened, and
 * no case costs a fork. A step is one system call, with the effective capabilities that it names.
 *
 * Standard input: struct header, then `count` steps, or `count` bytes for the arena at `offset`.
 * Standard output: one int for each step: the result, or -errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STEPS = 8192, CONTEXTS = 8, REGISTERS = 128, ATTR_BYTES = 192, ATTR_ROOM = 8192 };
enum { ARENA_BYTES = 1 << 20, HOOKS = 8 };
#define ARENA ((void *)0x20000000UL)

enum kind { STEPS, DATA };

struct header {
	uint32_t kind;
	uint32_t count;
	uint32_t offset;
	uint32_t reserved;
};

enum op {
	OP_BPF,
	OP_FSOPEN,
	OP_FSCONFIG_STRING, /* arena: key, at `b` the value */
	OP_FSCONFIG_FLAG,
	OP_FSCONFIG_CREATE,
	OP_FSMOUNT,
	OP_OPENAT, /* path in the arena, flags */
	OP_CLOSE,
	OP_DUP, /* from a register to the number `a` */
	OP_MOUNT, /* mount(2) of bpf at the path `a`, options at `b`; unmounted at once */
	OP_SPAWN, /* context `a`: see struct spawn */
	OP_MKDIRAT,
	OP_SECCOMP = 13, /* from now on bpf(2) fails with errno `a` */
	OP_MOVE_MOUNT = 14, /* move_mount(2) of a mount's descriptor to the path at `a` */
	OP_COPY_MOUNT = 15, /* open_tree(2): another mount of the same */
	OP_GET_FD = 16, /* pidfd_getfd(2) of the descriptor `a` of its own */
	OP_UNMOUNT = 17, /* what is at the path `a` */
	OP_SETID = 12, /* becomes user and group `a`, with its capabilities kept */
	OP_HOOKS = 20, /* descriptor `a` is the map by which hooks of security modules refuse */
	OP_CHMOD, /* of the path `a` below the descriptor `cmd`, to `b` */
	OP_CHOWN, /* likewise, to user `b` and group `size` */
	OP_UNLINK, /* likewise */
};

enum flag {
	GIVES_FD = 1, /* a result that is not an error is a descriptor: kept in `out`, or closed */
	OWN_USERNS = 2, /* OP_SPAWN: a user namespace of its own */
	SAME_NETWORK = 4, /* OP_SPAWN: in the network namespace of the context that spawns */
};

struct step {
	uint16_t context;
	uint16_t op;
	uint32_t flags;
	uint64_t capabilities;
	uint32_t cmd;
	uint32_t size;
	uint32_t a;
	uint32_t b;
	int32_t in; /* register whose descriptor is used, or -1 */
	int32_t out; /* register for the result, or -1 */
	uint8_t patch_register[2]; /* plus 1; 0: none */
	uint16_t patch_offset[2];
	uint8_t refusing; /* bits of the hooks that refuse during the step */
	uint8_t refusal; /* errno */
	uint8_t attr[ATTR_BYTES];
};

_Static_assert(sizeof(struct step) == 240, "struct step");

struct shared {
	_Atomic uint32_t turn[CONTEXTS];
	uint32_t from[CONTEXTS], to[CONTEXTS];
	pid_t pid[CONTEXTS];
	int reg[REGISTERS];
	int result[MAX_STEPS];
	struct step step[MAX_STEPS];
};

static struct shared *shared;
static pid_t main_process;

/* What the program of each hook refuses with, or 0; NULL: there are no such programs. */
static volatile uint8_t *hook;

/* Of this process. */
static uint64_t effective;
static uint64_t permitted;

static _Noreturn void context_main(int self);

/* Longer than any step takes: then the context is gone, and with it the test. */
enum { HANG_SEC = 120 };

static long futex(_Atomic uint32_t *word, int op, uint32_t value)
{
	struct timespec limit = { .tv_sec = HANG_SEC };

	return syscall(SYS_futex, word, op, value, op == FUTEX_WAKE ? NULL : &limit, NULL, 0);
}

static void fail(const char *what)
{
	fprintf(stderr, "executor: %s: %s\n", what, strerror(errno));
	/* The others end with it. */
	if (main_process != getpid())
		kill(main_process, SIGKILL);
	_exit(1);
}

static void read_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	if (syscall(SYS_capget, &head, data))
		fail("capget");
	permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	effective = data[0].effective | (uint64_t)data[1].effective << 32;
}

static void have(uint64_t wanted)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	wanted &= permitted;
	if (wanted == effective)
		return;
	for (int i = 0; i < 2; i++) {
		data[i].effective = wanted >> (32 * i);
		data[i].permitted = permitted >> (32 * i);
	}
	if (syscall(SYS_capset, &head, data))
		fail("capset");
	effective = wanted;
}

static const char *text(uint32_t offset)
{
	return (const char *)ARENA + offset;
}

static void write_file(const char *path, const char *content)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, content, strlen(content)) < 0)
		fail(path);
	close(fd);
}

/* A new process for context `a`, whose ids the arena maps: two texts, for uid_map and gid_map alike at `b`. */
static int spawn(const struct step *step)
{
	unsigned long flags = SIGCHLD | CLONE_FILES | CLONE_NEWNS;
	int self = step->a;
	_Atomic uint32_t *turn = &shared->turn[self];
	char path[64];
	long pid;

	if (step->flags & OWN_USERNS)
		flags |= CLONE_NEWUSER;
	if (!(step->flags & SAME_NETWORK))
		flags |= CLONE_NEWNET;
	atomic_store(turn, 2);
	pid = syscall(SYS_clone, flags, 0, 0, 0, 0);
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		while (atomic_load(turn) == 2)
			futex(turn, FUTEX_WAIT, 2);
		context_main(self);
	}
	shared->pid[self] = pid;
	if (step->flags & OWN_USERNS) {
		snprintf(path, sizeof(path), "/proc/%ld/uid_map", pid);
		write_file(path, text(step->b));
		snprintf(path, sizeof(path), "/proc/%ld/gid_map", pid);
		write_file(path, text(step->b));
	}
	atomic_store(turn, 3);
	futex(turn, FUTEX_WAKE, 1);
	while (atomic_load(turn) == 3)
		futex(turn, FUTEX_WAIT, 3);
	return 0;
}

static int become(uint32_t id)
{
	if (prctl(PR_SET_KEEPCAPS, 1) || setresgid(id, id, id) || setresuid(id, id, id))
		return -errno;
	read_capabilities();
	prctl(PR_SET_DUMPABLE, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return 0;
}

static int refuse_bpf(uint32_t error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { sizeof(code) / sizeof(code[0]), code };

	/* With CAP_SYS_ADMIN there is no need to give up privileges. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

static long bpf(const struct step *step)
{
	static uint8_t attr[ATTR_ROOM] __attribute__((aligned(8)));
	uint32_t size = step->size > ATTR_ROOM ? ATTR_ROOM : step->size;

	/*
	 * `b`: what the attributes point to. A program of the kernel's cannot read a page that this
	 * process has not touched.
	 */
	if (step->b)
		(void)*(volatile const char *)text(step->b);

	memcpy(attr, step->attr, ATTR_BYTES);
	for (int i = 0; i < 2; i++)
		if (step->patch_register[i])
			memcpy(attr + step->patch_offset[i], &shared->reg[step->patch_register[i] - 1], 4);
	return syscall(SYS_bpf, step->cmd, attr, size);
}

static long mount_once(const struct step *step)
{
	if (mount("bpf", text(step->a), "bpf", 0, text(step->b)))
		return -1;
	/* The next step has its own again. */
	have(permitted);
	if (umount2(text(step->a), MNT_DETACH))
		fail("umount2");
	return 0;
}

/* As a descriptor comes that somebody else has: between processes that share a table it may be one's own. */
static long get_fd(int fd)
{
	int self = syscall(SYS_pidfd_open, getpid(), 0);
	long result = syscall(SYS_pidfd_getfd, self, fd, 0);
	int error = errno;

	close(self);
	errno = error;
	return result;
}

static long map_hooks(int fd)
{
	void *map = mmap(NULL, HOOKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -1;
	hook = map;
	return 0;
}

/* From now on these hooks refuse, in all of the system. */
static void refuse(const struct step *step)
{
	for (int i = 0; i < HOOKS; i++)
		hook[i] = step->refusing >> i & 1 ? step->refusal : 0;
}

static void refuse_nothing(void)
{
	for (int i = 0; i < HOOKS; i++)
		hook[i] = 0;
}

static long call(const struct step *step)
{
	int in = step->in < 0 ? -1 : shared->reg[step->in];

	switch (step->op) {
	case OP_BPF:
		return bpf(step);
	case OP_FSOPEN:
		return syscall(SYS_fsopen, "bpf", 1);
	case OP_FSCONFIG_STRING:
		return syscall(SYS_fsconfig, in, 1, text(step->a), text(step->b), 0);
	case OP_FSCONFIG_FLAG:
		return syscall(SYS_fsconfig, in, 0, text(step->a), NULL, 0);
	case OP_FSCONFIG_CREATE:
		return syscall(SYS_fsconfig, in, 6, NULL, NULL, 0);
	case OP_FSMOUNT:
		return syscall(SYS_fsmount, in, 1, 0);
	case OP_OPENAT:
		return openat(in < 0 ? AT_FDCWD : in, text(step->a), step->b | O_CLOEXEC);
	case OP_CLOSE:
		shared->reg[step->in] = -1;
		return close(in);
	case OP_DUP:
		return dup3(in, step->a, O_CLOEXEC);
	case OP_MOUNT:
		return mount_once(step);
	case OP_SPAWN:
		return spawn(step);
	case OP_MKDIRAT:
		return mkdirat(in, text(step->a), 0755);
	case OP_SECCOMP:
		return refuse_bpf(step->a);
	case OP_SETID:
		return become(step->a);
	case OP_MOVE_MOUNT:
		return syscall(SYS_move_mount, in, "", AT_FDCWD, text(step->a), 4 /* MOVE_MOUNT_F_EMPTY_PATH */);
	case OP_COPY_MOUNT:
		return syscall(SYS_open_tree, in, "", AT_EMPTY_PATH | O_CLOEXEC | 1 /* OPEN_TREE_CLONE */);
	case OP_GET_FD:
		return get_fd(step->a);
	case OP_UNMOUNT:
		return umount2(text(step->a), MNT_DETACH);
	case OP_HOOKS:
		return map_hooks(step->a);
	case OP_CHMOD:
		return fchmodat(step->cmd, text(step->a), step->b, 0);
	case OP_CHOWN:
		return fchownat(step->cmd, text(step->a), step->b, step->size, 0);
	case OP_UNLINK:
		return unlinkat(step->cmd, text(step->a), 0);
	default:
		errno = ENOTSUP;
		return -1;
	}
}

static void run(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		const struct step *step = &shared->step[i];
		long result;

		have(step->capabilities);
		if (step->refusing && hook)
			refuse(step);
		result = call(step);
		if (result == -1)
			result = -errno;
		if (step->refusing && hook)
			refuse_nothing();
		if (step->flags & GIVES_FD) {
			if (step->out >= 0)
				shared->reg[step->out] = result;
			else if (result >= 0)
				close(result);
		}
		shared->result[i] = result;
	}
}

static _Noreturn void context_main(int self)
{
	_Atomic uint32_t *turn = &shared->turn[self];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	read_capabilities();
	/* Root inside, where the ids are known by now. */
	if (setresgid(0, 0, 0) || setresuid(0, 0, 0))
		fail("setresuid");
	read_capabilities();
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("mount");
	/* Of a process that may not be dumped, root of its own namespace cannot write the id maps. */
	prctl(PR_SET_DUMPABLE, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(turn, 0);
	futex(turn, FUTEX_WAKE, 1);
	for (;;) {
		while (atomic_load(turn) != 1)
			futex(turn, FUTEX_WAIT, 0);
		run(shared->from[self], shared->to[self]);
		atomic_store(turn, 0);
		futex(turn, FUTEX_WAKE, 1);
	}
}

/* Has another context do some steps, and waits. */
static void hand_over(int context, unsigned from, unsigned to)
{
	_Atomic uint32_t *turn = &shared->turn[context];

	shared->from[context] = from;
	shared->to[context] = to;
	atomic_store(turn, 1);
	futex(turn, FUTEX_WAKE, 1);
	while (atomic_load(turn) == 1)
		if (futex(turn, FUTEX_WAIT, 1) && errno == ETIMEDOUT)
			fail("a context");
}

static int read_all(void *to, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t more = read(0, (char *)to + done, bytes - done);

		if (more < 0 && errno == EINTR)
			continue;
		if (more < 0)
			fail("read");
		if (more == 0)
			return 0;
		done += more;
	}
	return 1;
}

static void write_all(const void *from, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t more = write(1, (const char *)from + done, bytes - done);

		if (more <= 0)
			_exit(1);
		done += more;
	}
}

static void batch(unsigned count)
{
	for (unsigned from = 0, to; from < count; from = to) {
		int context = shared->step[from].context;

		for (to = from + 1; to < count && shared->step[to].context == context; to++)
			;
		if (context == 0)
			run(from, to);
		else
			hand_over(context, from, to);
	}
	write_all(shared->result, count * sizeof(int));
}

/* With an argument it stays in the network namespace that it was started in. */
int main(int argc, char **argv)
{
	struct header head;
	void *arena;
	int network = argc > 1 ? 0 : CLONE_NEWNET;

	main_process = getpid();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	arena = mmap(ARENA, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (shared == MAP_FAILED || arena != ARENA)
		fail("mmap");
	/* Namespaces of our own, so that nothing of ours is seen. */
	if (unshare(CLONE_NEWNS | network) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("unshare");
	umask(0);
	/* Of a task's groups the model knows one. */
	if (setgroups(0, NULL))
		fail("setgroups");
	read_capabilities();
	while (read_all(&head, sizeof(head))) {
		if (head.kind == DATA) {
			if (head.offset > ARENA_BYTES || head.count > ARENA_BYTES - head.offset)
				fail("data of a size that is too large");
			if (!read_all((char *)arena + head.offset, head.count))
				break;
		} else {
			if (head.count > MAX_STEPS)
				fail("too many steps");
			if (!read_all(shared->step, head.count * sizeof(struct step)))
				break;
			batch(head.count);
		}
	}
	/* CAP_KILL, which the last case may not have had. */
	have(permitted);
	for (int i = 0; i < CONTEXTS; i++)
		if (shared->pid[i] > 0)
			kill(shared->pid[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	return 0;
}
