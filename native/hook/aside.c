/* The question, read by a process of its own and in time: see hook.h. */
#include "hook.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What both processes see. */
struct reading {
	bool good;
	const char *fault;
	char id[256];
	char body[BODY_MAX];
};

int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

_Noreturn static void read_it(int from, pid_t runtime, struct reading *reading, int done)
{
	const char *body;

	/* Should it hang for ever, whoever reads what we say must not wait for it. */
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	body = question(from, runtime, reading->id, sizeof(reading->id), &reading->fault);
	if (body) {
		strcpy(reading->body, body);
		reading->good = true;
	}
	_exit(write(done, "", 1) == 1 ? 0 : 1);
}

/* Whether it has come to its end, by the deadline. */
static bool is_done(int done, int64_t deadline)
{
	struct pollfd wait = { .fd = done, .events = POLLIN };
	char end;

	for (;;) {
		int64_t left = deadline - now_ms();
		if (left <= 0)
			return false;
		int ready = poll(&wait, 1, left < INT_MAX ? left : INT_MAX);
		if (ready > 0)
			return read(done, &end, 1) == 1;
		if (ready < 0 && errno != EINTR)
			return false;
	}
}

/* It is not waited for longer: a file system that does not answer may keep even who was killed. */
static void end(pid_t child)
{
	kill(child, SIGKILL);
	for (int i = 0; i < 20 && waitpid(child, NULL, WNOHANG) == 0; i++)
		poll(NULL, 0, 5);
}

const char *question_in_time(int from, int64_t deadline, char *id, size_t room, const char **fault)
{
	static struct reading *reading;
	int done[2];

	snprintf(id, room, "?");
	*fault = "there is no room, or no process, to read what the runtime says of it";
	reading = mmap(NULL, sizeof(*reading), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (reading == MAP_FAILED || pipe(done) != 0)
		return NULL;
	pid_t runtime = getppid(), child = fork();
	if (child < 0)
		return NULL;
	if (child == 0) {
		close(done[0]);
		read_it(from, runtime, reading, done[1]);
	}
	close(done[1]);
	bool in_time = is_done(done[0], deadline);
	close(done[0]);
	if (reading->id[0])
		snprintf(id, room, "%.*s", (int)sizeof(reading->id) - 1, reading->id);
	if (!in_time) {
		end(child);
		*fault = "what the runtime says of it, or its bundle, could not be read in time";
		return NULL;
	}
	waitpid(child, NULL, 0);
	*fault = reading->fault;
	return reading->good ? reading->body : NULL;
}
