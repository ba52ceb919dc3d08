/* What the files of the hook have of each other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- bundle.c ---- */

/* What of it there may be: the daemon takes no longer question. */
#define STATE_MAX (160 * 1024)
#define CONFIG_MAX (1024 * 1024)
#define ENGINE_MAX (2 * 1024 * 1024)
#define BODY_MAX (300 * 1024)

/*
 * The question to the daemon, as JSON: of the state that the runtime wrote to `from`, and of the
 * bundle's config.json, what the daemon looks at. The environment of the container's program, which
 * may have secrets, is not among that. Gives NULL and says why in `fault`; else `id` is the
 * container's, cut to its room. `runtime` is the process that called the hook.
 */
const char *question(int from, pid_t runtime, char *id, size_t room, const char **fault);

/* ---- aside.c ---- */

/* Of CLOCK_MONOTONIC. */
int64_t now_ms(void);

/*
 * The same, by a child that is given up at the deadline. A file system that does not answer holds up
 * whoever reads it, and no signal but the one that kills ends that: who waits is another process. As
 * it may outlive us even so, it has neither our standard output nor our standard error.
 */
const char *question_in_time(int from, int64_t deadline, char *id, size_t room, const char **fault);

/* ---- say.c ---- */

/* One line for whoever reads what hooks say, and for the system's log: runtimes hide the first. */
void say(bool failed, const char *container, const char *what, const char *more);
