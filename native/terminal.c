/* The terminal of our caller: whether the program shares it, and what it must not do to it. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#define COMPAT_ARCH AUDIT_ARCH_I386
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#define COMPAT_ARCH AUDIT_ARCH_ARM
#else
#error "which system call numbers this machine can use is not known here"
#endif
#define COMPAT_IOCTL 54 /* of i386 and of 32-bit ARM */
#define X32_BIT 0x40000000

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of an argument comes first");

/* The other end has a number to tell. */
bool is_slave(int fd)
{
	int number;

	return ioctl(fd, TIOCGPTN, &number) < 0;
}

/* Whether one of descriptors 0 to 2 is the terminal of our session: then job control is of use. */
bool has_terminal(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (tcgetsid(fd) == getsid(0) && is_slave(fd))
			return true;
	return false;
}

void take_terminal(void)
{
	/*
	 * Refused where it is of another session: nobody's is stolen. It can be opened as /dev/tty then,
	 * to be read and written: so it must be open for both, which the kernel does not ask of root.
	 */
	for (int fd = 0; fd <= 2; fd++)
		if (isatty(fd) && is_slave(fd) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && ioctl(fd, TIOCSCTTY, 0) == 0)
			return;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define IF_AT_LEAST(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, value, yes, no)
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)

/*
 * Whoever may push characters into a terminal types into the shell that waits there, which may be
 * root's. TIOCSTI and TIOCLINUX are refused, by every way to ioctl(2): the native one, that of
 * 32-bit programs, and x32 as a whole, with the answer of a kernel that lacks it. The kernel looks
 * at the low half of the request only, and so does this. io_uring needs no rule: terminals have no
 * command there.
 */
void keep_from_typing(void)
{
	/* The numbers are how many statements a jump leaves out. */
	struct sock_filter code[] = {
		/*  0 */ LOAD(arch),
		/*  1 */ IF_EQUAL(NATIVE_ARCH, 2, 0),
		/*  2 */ IF_EQUAL(COMPAT_ARCH, 4, 0),
		/*  3 */ ANSWER(SECCOMP_RET_KILL_PROCESS),
		/*  4 */ LOAD(nr),
		/*  5 */ IF_AT_LEAST(X32_BIT, 7, 0),
		/*  6 */ IF_EQUAL(SYS_ioctl, 2, 5),
		/*  7 */ LOAD(nr),
		/*  8 */ IF_EQUAL(COMPAT_IOCTL, 0, 3),
		/*  9 */ LOAD(args[1]),
		/* 10 */ IF_EQUAL(TIOCSTI, 3, 0),
		/* 11 */ IF_EQUAL(TIOCLINUX, 2, 0),
		/* 12 */ ANSWER(SECCOMP_RET_ALLOW),
		/* 13 */ ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
		/* 14 */ ANSWER(SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog filter = { sizeof(code) / sizeof(code[0]), code };

	/* Without this flag older kernels would slow the program down against speculation. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter) < 0)
		die("seccomp");
}
