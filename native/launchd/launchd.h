/*
 * bpftoken-launchd: starts the program of `bpftoken run` for an ordinary user, where the machine
 * lets users make no user namespaces, or the user asks for it (--apart).
 *
 *   bpftoken-launchd [--socket FILE]
 *
 * The namespaces are root's, as where root types `run`: a process that merely has the same user id
 * as the program has no power over it. What the program has beyond its user is what the policy
 * lends, and no more.
 *
 * It is a service of its own and no child of the daemon, whose confinement the program would
 * inherit. Root alone may ask it, and that is the daemon, which decides; this here knows no policy.
 * Each request has a process of its own, which knows one user.
 *
 * The daemon connects (SOCK_SEQPACKET) and says:
 *   struct apart_request   with the pidfd of the asker, which it has held since the asker connected,
 *                          and the socket that the asker named (a Unix stream): `control`
 *   launchd -> daemon      'p' with a pidfd: the namespaces of that process are there, and it waits
 *                          'r' + text: refused, and why
 *   daemon -> launchd      'g' + uint64_t: the loan is in place; the program has these capabilities
 * When the daemon closes the connection before that, nothing is started.
 *
 * Before it asks the daemon the asker has sent over its end of `control`:
 *   struct apart_head      with five descriptors: a memfd of texts (see apart.h), its end of the
 *                          socket of launch.c's descriptor 4, and what the program has as 0 to 2
 * So a descriptor is never taken by number, but given by who has it: what the asker cannot open it
 * cannot give. Once it knows of the loan it says 's', and then hears what launch.c says on
 * descriptor 3, or 'r' + text.
 *
 * Whoever asks is looked at three times: before anything is done, when the namespaces are there,
 * and before the program starts. It must be the process that the daemon holds, all four of its ids
 * the same, and it must be confined by nothing that a child of ours would not be: see asker.c.
 */
#pragma once

#include "../apart.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- asker.c ---- */

#define ASKER_GROUPS 1024
#define ASKER_TEXT 16384

struct asker {
	int pidfd, directory; /* of /proc */
	pid_t pid;
	uid_t uid;
	gid_t gid, groups[ASKER_GROUPS];
	int group_count;
	mode_t umask;
	char cgroups[ASKER_TEXT]; /* as /proc/PID/cgroup has them */
};

/* Holds it, and looks at it. Refuses if it is not this user, or is confined. */
void hold_asker(struct asker *asker, int pidfd, uid_t uid, gid_t gid);
/* Refuses if it has exited, or is not what it was. */
void confirm_asker(const struct asker *asker);
/* Makes its cgroup, limits, groups, umask and login ours. */
void take_on(const struct asker *asker);

/* ---- message.c ---- */

/*
 * The message that is there; -1: there is none. `fds` are its descriptors, closed on exec; what there
 * is too much or too little of is refused.
 */
ssize_t take_message(int socket, void *bytes, size_t room, int *fds, size_t count);
void send_message(int socket, const void *bytes, size_t length, const int *fd);
bool is_unix_socket(int fd, int type);
/*
 * A Unix stream socket whose other end that user has made. What root writes into another one's would
 * be taken there for root's own words (SCM_CREDENTIALS).
 */
bool is_stream_of(int fd, uid_t uid);

/* ---- seats.c ---- */

/*
 * Each waits for a loan, or hangs by what its user has done: a cgroup that is frozen, a file system
 * that does not answer. More than these wait to connect.
 */
#define SEATS 1024
#define SEATS_OF_ONE 32

/* Of who is served at one time. The processes share them. -1: failed. */
int make_seats(void);
/* The number of one that is free; -1: all are taken. */
int free_seat(void);
void seat_process(int seat, pid_t process);
/* That process has ended. */
void leave_seat(pid_t process);
/* By the process that sits there. False: the user has as many as one may have. */
bool take_seat(int seat, uid_t uid);

/* ---- serve.c ---- */

/* One request of the daemon. */
_Noreturn void serve(int daemon, int seat);
