/* Messages with descriptors, and the slots that these are kept in. */
#ifndef BPFTOKEN_EXECUTOR_MESSAGE_H
#define BPFTOKEN_EXECUTOR_MESSAGE_H

#include "layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The socket to whoever started us: to bpftoken, or for a child to the executor. */
enum { CLIENT = 3 };

/* Sends the descriptors of `slots` along, in order. 0, or -errno. */
int send_message(int socket, const void *data, size_t bytes, const int slot[SLOT_COUNT], uint32_t slots);

/*
 * The next message: its length, 0 at the end, or -errno. What does not fit is closed by the kernel.
 */
ssize_t receive_message(int socket, void *data, size_t bytes, int fds[SLOT_COUNT], int *count, int flags);

void close_slot(int slot[SLOT_COUNT], int which);
void close_slots(int slot[SLOT_COUNT]);

/*
 * Puts received descriptors where `slots` says. False, with all of them closed: they are not as
 * many.
 */
bool fill_slots(int slot[SLOT_COUNT], uint32_t slots, const int *fds, int count);

const char *text_of(const struct executor_action *action);
const struct executor_action *next_action(const struct executor_action *action);

#endif
