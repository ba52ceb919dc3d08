/*
 * Makes one call of bpf(2), and ends without anything between.
 *
 *   ends-at-once [token]   BPF_MAP_CREATE of a hash, with a token of /sys/fs/bpf if it says so
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	/* map_type, key_size, value_size, max_entries, map_flags ... map_token_fd at 76 */
	unsigned int attr[24] = { 1, 4, 4, 1 };

	(void)argv;
	if (argc > 1) {
		unsigned int of[2] = { 0, open("/sys/fs/bpf", O_DIRECTORY | O_CLOEXEC) };

		attr[4] = 1 << 16;
		attr[19] = syscall(SYS_bpf, 36, of, sizeof(of));
	}
	_exit(syscall(SYS_bpf, 0, attr, 80) < 0);
}
