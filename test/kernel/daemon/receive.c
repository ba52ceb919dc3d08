/*
 * Receives datagrams on the Unix socket of that path and prints each as a line of hexadecimal
 * digits, until its standard input ends. Compiled when a test runs.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static unsigned char data[1 << 18];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path))
		return 2;
	strcpy(address.sun_path, argv[1]);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 1;
	puts("bound");
	fflush(stdout);
	for (;;) {
		struct pollfd both[] = { { .fd = fd, .events = POLLIN }, { .fd = 0, .events = POLLIN } };
		poll(both, 2, -1);
		if (both[0].revents & POLLIN) {
			ssize_t length = recv(fd, data, sizeof(data), 0);
			for (ssize_t i = 0; i < length; i++)
				printf("%02x", data[i]);
			puts("");
			fflush(stdout);
		} else if (both[1].revents) {
			return 0;
		}
	}
}
