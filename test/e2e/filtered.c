// SPDX-License-Identifier: Apache-2.0
/* Executes a program under a seccomp filter that lets everything pass. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = { .len = 1, .filter = &pass };

	if (argc < 2 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		return 126;
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
