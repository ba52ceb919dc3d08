/*
 * What bpftoken and its executor say to each other: see main.c. The one layout of these messages;
 * src/sys/executor/layout.ts has the same numbers, `bpftoken-executor layout` prints these, and
 * test/unit/sys/executor/layout.test.ts compares the two.
 *
 * Every message is one packet of a SOCK_SEQPACKET socket and begins with its kind. All integers are
 * of the machine's own byte order.
 */
#ifndef BPFTOKEN_EXECUTOR_H
#define BPFTOKEN_EXECUTOR_H

#include <stdint.h>

#define EXECUTOR_VERSION 2
#define EXECUTOR_MESSAGE_BYTES 65536
#define EXECUTOR_ACTIONS 64
#define EXECUTOR_UNDOS 4
/* "None", where an id or a slot may be missing. */
#define EXECUTOR_NONE 0xffffffffu
/*
 * Added to the errno of an action that was not tried, because the namespaces could not be entered.
 */
#define EXECUTOR_ENTERING 4096
/* With it, where the kernel would have let the target look into the child. */
#define EXECUTOR_EXPOSED 4095

/* Kinds of messages. */
#define EXECUTOR_KINDS(X)                                                                                             \
	X(HELLO)  /* executor: it is there; struct executor_hello */                                                  \
	X(PLAN)	  /* bpftoken: do this; struct executor_plan, actions, and descriptors by SCM_RIGHTS */               \
	X(CANCEL) /* bpftoken: stop, and undo */                                                                      \
	X(KEEP)	  /* bpftoken: what was done stays; ends the plan, without an answer; ends a pause */                               \
	X(UNDO)	  /* bpftoken: undo what was done; answered by RESULT */                                              \
	X(PAUSED) /* executor: it has come to an action PAUSE, number `steps`; struct executor_answer without more */  \
	X(RESULT) /* executor: struct executor_answer and what belongs to it */                                       \
	X(READY)  /* executor: it has let go of all that the last plan gave it; no more than this word */

/* What an action works on, and what a descriptor that comes with a message is. */
#define EXECUTOR_SLOTS(X)                                                                                             \
	X(PROCESS)   /* pidfd of the target */                                                                        \
	X(USER)	     /* its user namespace */                                                                         \
	X(MOUNTS)    /* its mount namespace */                                                                        \
	X(ROOT)	     /* its root directory */                                                                         \
	X(DIRECTORY) /* where to mount */                                                                             \
	X(CONTEXT)   /* the file system context */                                                                    \
	X(MOUNT)     /* the mount that was made of it, or that is to be unmounted */                                  \
	X(REACHED)   /* what the path leads to afterwards */

/*
 * Actions. `number` and `more` are of the executor_action; the text follows it, each part with a
 * zero byte. Those of the first list are done by the child, inside the target's namespaces.
 */
#define EXECUTOR_CHILD_OPS(X)                                                                                         \
	X(OPEN_DIRECTORY) /* text: path below ROOT; fills DIRECTORY */                                                \
	X(OPEN_CONTEXT)	  /* text: type of file system; fills CONTEXT */                                              \
	X(ATTACH)	  /* MOUNT onto DIRECTORY; undone by DETACH */                                                \
	X(OPEN_REACHED)	  /* text: path below ROOT; fills REACHED */                                                  \
	X(DETACH)	  /* takes MOUNT, and what is mounted on it, away */                                          \
	X(DETACH_COVERED) /* text: path; takes away what lies there under `number` mounts, which stay; fills REACHED */ \
	X(SPOIL_CONTEXT)  /* makes CONTEXT useless for good: creates its superblock without the right to */           \
	X(MAKE_TOKEN)	  /* text: path of a bpffs; a token, with CAP_BPF only */                                     \
	X(MAKE_MAP)	  /* an array, with that token */                                                             \
	X(ENTER_ROOT)	  /* text: path below ROOT of another mount, which is ROOT from then on; symbolic links below it are refused */ \
	X(MAKE_DIRECTORY) /* text: path below ROOT; what is missing of it is made, and stays */

#define EXECUTOR_OWN_OPS(X)                                                                                           \
	X(TAKE_CONTEXT)	     /* descriptor `number` of PROCESS, by a child; fills CONTEXT. Undone by SPOIL or DISCARD */ \
	X(SET_FLAG)	     /* text: key of an option without value; `number` an errno that is no failure */         \
	X(SET_OPTION)	     /* text: key, value */                                                                   \
	X(PROVE_CONTEXT)     /* CONTEXT is a new bpffs; `number` is mapped in its user namespace, `more` is not */   \
	X(CREATE)	     /* the superblock */                                                                     \
	X(DISCARD_CONTEXT)   /* takes the superblock of CONTEXT away from whoever else has the context */             \
	X(MAKE_MOUNT)	     /* `number`: MOUNT_ATTR_*; fills MOUNT */                                                \
	X(REFUSE_OCCUPIED)   /* DIRECTORY is not the target's root, and no delegation is there, not even a covered one */ \
	X(REFUSE_UNREACHED)  /* REACHED is the root of MOUNT, and no delegation lies below */                                                              \
	X(REFUSE_MOVED)	     /* PROCESS lives, and is in USER and MOUNTS still */                                     \
	X(LOOK)		     /* slot `number`: the mount that it lies in, and those which that covers, up to `more` */ \
	X(PAUSE)	     /* says PAUSED and waits for KEEP, to go on, or CANCEL */

#define EXECUTOR_KIND(name) EXECUTOR_##name,
enum executor_kind { EXECUTOR_KINDS(EXECUTOR_KIND) EXECUTOR_KIND_COUNT };
#define EXECUTOR_SLOT(name) SLOT_##name,
enum executor_slot { EXECUTOR_SLOTS(EXECUTOR_SLOT) SLOT_COUNT };
#define EXECUTOR_OP(name) OP_##name,
enum executor_op { EXECUTOR_CHILD_OPS(EXECUTOR_OP) OP_CHILD_COUNT, OP_LAST_CHILD = OP_CHILD_COUNT - 1,
		   EXECUTOR_OWN_OPS(EXECUTOR_OP) OP_COUNT };

/* What the running kernel has. */
#define EXECUTOR_MODERN 1 /* pidfd ioctls and statmount(2) with options: Linux 6.11 */

struct executor_hello {
	uint32_t kind, version, features;
	uint16_t hello_bytes, plan_bytes, action_bytes, answer_bytes, undone_bytes, mount_bytes;
};

struct executor_plan {
	uint32_t kind, actions;
	uint32_t pid;	      /* of PROCESS, for where /proc must do */
	uint32_t deadline_ms; /* for all of it; a pause, and undoing, have as long again */
	uint32_t gid;	      /* of the child, where it is not root's */
	uint32_t slots;	      /* bit n: slot n comes with this message, in order */
	uint32_t give;	      /* bit n: slot n shall come with the answer */
	uint32_t serial;      /* no two plans of an executor have the same */
};

/*
 * In the journal: of the plan `serial` this is to be done with the descriptor that comes with it.
 */
struct executor_entry {
	uint32_t serial, op;
};

/* An action; the next one follows after `bytes`. */
struct executor_action {
	uint16_t op, bytes;
	uint32_t number, more;
};

/* Behind it: int32_t[steps], executor_undone[undone], executor_mount[mounts] with their texts. */
struct executor_answer {
	uint32_t kind;
	int32_t failed; /* which action; -1: none */
	uint32_t steps; /* results that follow: 0 or -errno, for the actions that were tried */
	uint32_t undone, mounts;
	uint32_t slots; /* bit n: slot n comes with it */
	uint32_t held;	/* done steps that wait for KEEP or UNDO; 0: the plan has ended */
};

struct executor_undone {
	uint32_t op;
	int32_t result;
};

/* A mount, and its texts: type, root, point, options of the superblock, each with a zero byte. */
struct executor_mount {
	uint32_t bytes; /* of it with its texts, a multiple of 4 */
	uint32_t id;	/* as mountinfo has it */
	uint32_t device_major, device_minor;
	uint32_t at_root; /* 1: what was looked at is its root directory */
};

_Static_assert(sizeof(struct executor_hello) == 24, "executor_hello");
_Static_assert(sizeof(struct executor_plan) == 32, "executor_plan");
_Static_assert(sizeof(struct executor_entry) == 8, "executor_entry");
_Static_assert(sizeof(struct executor_action) == 12, "executor_action");
_Static_assert(sizeof(struct executor_answer) == 28, "executor_answer");
_Static_assert(sizeof(struct executor_undone) == 8, "executor_undone");
_Static_assert(sizeof(struct executor_mount) == 20, "executor_mount");

#endif
