/* What bpftoken-run and the daemon say to bpftoken-launchd: see launchd/launchd.h. */
#pragma once

#include <stdint.h>

#define APART_VERSION 1

#define APART_HOST_NETWORK 1u
#define APART_IDENTITY 2u

/* Of the daemon; src/daemon/launcher.ts writes it. */
struct apart_request {
	uint32_t version, flags;
	uint32_t uid, gid; /* of the asker, as it connected */
};

/*
 * Of the asker. The texts are in a memfd: the working directory, so many words, so many variables,
 * each with a zero behind.
 */
struct apart_head {
	uint32_t version, bytes, words, variables;
};

#define APART_TEXTS 0
#define APART_LIFELINE 1
#define APART_STANDARD 2
#define APART_DESCRIPTORS 5
#define APART_BYTES (8u << 20)
