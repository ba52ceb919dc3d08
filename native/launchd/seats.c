/*
 * Who is served at one time: of one user only so many, so that those who hang are in the way of
 * their own user and of nobody else.
 */
#include "launchd.h"

#include <stdatomic.h>
#include <sys/mman.h>

struct seat {
	pid_t process; /* 0: it is free. Only the parent of all looks here. */
	_Atomic uid_t uid; /* 0: it is not known yet; root has nothing started here */
};

static struct seat *seats;

int make_seats(void)
{
	seats = mmap(NULL, SEATS * sizeof(*seats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return seats == MAP_FAILED ? -1 : 0;
}

int free_seat(void)
{
	for (int i = 0; i < SEATS; i++)
		if (seats[i].process == 0)
			return i;
	return -1;
}

void seat_process(int seat, pid_t process)
{
	seats[seat].process = process;
}

void leave_seat(pid_t process)
{
	for (int i = 0; i < SEATS; i++)
		if (seats[i].process == process) {
			seats[i].uid = 0;
			seats[i].process = 0;
			return;
		}
}

bool take_seat(int seat, uid_t uid)
{
	int count = 0;

	/* Before it counts: of two at the same time at least one sees the other. */
	seats[seat].uid = uid;
	for (int i = 0; i < SEATS; i++)
		count += seats[i].uid == uid;
	return count <= SEATS_OF_ONE;
}
