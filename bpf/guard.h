/*
 * What the guard's programs (guard.bpf.c) and src/guard share: keys and values of the maps, and the event record.
 *
 * src/guard reads these layouts from the object's BTF, so this file is their only source. Sizes are asserted here and in
 * test/unit/guard/layout.test.ts. All times are nanoseconds of CLOCK_BOOTTIME. A change of any layout changes GUARD_ABI.
 */
#ifndef GUARD_H
#define GUARD_H

#define GUARD_ABI 1
/* Longest name of an ability, with its end. */
#define GUARD_NAME_BYTES 64
#define GUARD_TASK_BYTES 16

/* The mount option that is refused always, and with what: whoever gets another answer has no guard. EKEYREJECTED. */
#define GUARD_PROBE_KEY "bpftoken_guard"
#define GUARD_PROBE_ERRNO 129

enum guard_mode {
	GUARD_PERMISSIVE = 0, /* let through, and record what would be refused */
	GUARD_ENFORCE = 1,
};

enum guard_flag {
	GUARD_PASS_TOKEN = 1, /* a token may be passed to tasks of other user namespaces */
};

enum guard_verdict {
	GUARD_ALLOWED = 0,
	GUARD_WOULD_REFUSE = 1,
	GUARD_REFUSED = 2,
};

/* At which control point. */
enum guard_point {
	GUARD_MARK = 1, /* mount options `delegate` and `abilities` */
	GUARD_OPTION = 2, /* mount options `delegate_*` */
	GUARD_SUPERBLOCK = 3,
	GUARD_TOKEN_CREATE = 4,
	GUARD_TOKEN_CMD = 5,
	GUARD_TOKEN_CAPABLE = 6,
	GUARD_MAP_CREATE = 7,
	GUARD_PROG_LOAD = 8,
	GUARD_REOPEN = 9,
	GUARD_RECEIVE = 10, /* a token comes by SCM_RIGHTS or pidfd_getfd(2) */
};

enum guard_reason {
	GUARD_NONE = 0,
	GUARD_NO_DELEGATOR = 1, /* the task may not delegate */
	GUARD_NOT_MARKED = 2, /* the context was not marked delegatable by an allowed delegator */
	GUARD_NO_ABILITY = 3, /* no policy of that name is installed */
	GUARD_BEYOND_ABILITIES = 4, /* masks have bits that no named ability gives */
	GUARD_UNREGISTERED = 5, /* a superblock or token that the guard did not see made */
	GUARD_REVOKED = 6,
	GUARD_EXPIRED = 7,
	GUARD_CAPABILITY = 8, /* not lent */
	GUARD_TOKENS = 9, /* over a limit */
	GUARD_MAPS = 10,
	GUARD_MAP_BYTES = 11,
	GUARD_PROGRAMS = 12,
	GUARD_INSTRUCTIONS = 13,
	GUARD_CGROUP = 14, /* outside the delegation's cgroup */
	GUARD_REOPENED = 15, /* a token through /proc: crashes kernels */
	GUARD_FULL = 16, /* the guard cannot keep another record */
	GUARD_OLD_MOUNT = 17, /* mount(2), whose contexts the guard cannot follow */
	GUARD_STRANGER = 18, /* a task of another user namespace */
};

struct guard_masks {
	__u64 cmds;
	__u64 maps;
	__u64 progs;
	__u64 attachs;
};

struct guard_config {
	__u32 abi;
	__u32 mode; /* of what belongs to no delegation */
	__u32 audit; /* 1: events for what is allowed, too */
	__u32 build; /* beginning of the object's SHA-256: whose programs are attached */
};

struct guard_totals {
	__u64 last_id;
	__u64 lost_events;
	__u64 refused;
	__u64 would_refuse;
};

struct guard_name {
	char text[GUARD_NAME_BYTES];
};

/* What a policy lends. A limit of all ones is none. */
struct guard_terms {
	struct guard_masks masks;
	__u64 capabilities; /* bit n: capability number n */
	__u64 map_bytes;
	__u64 lifetime_ns;
	__u32 tokens;
	__u32 programs;
	__u32 maps;
	__u32 instructions;
	__u32 mode;
	__u32 flags; /* enum guard_flag */
};

/* A process that may delegate. start_ticks as in /proc/PID/stat, because numbers of processes are used again. */
struct guard_process {
	__u32 tgid;
	__u32 reserved;
	__u64 start_ticks;
};

/* An executable that may delegate. */
struct guard_file {
	__u64 inode;
	__u32 device; /* the kernel's dev_t: major << 20 | minor */
	__u32 reserved;
};

struct guard_delegator {
	struct guard_masks ceiling;
	__u64 last_id; /* the delegation that it made last */
	__u32 implicit; /* 1: knows nothing of `delegate` and `abilities`; its first delegate_* marks the context */
	__u32 reserved;
};

/* A context that an allowed delegator has marked, until its superblock is created. */
struct guard_pending {
	__u64 context; /* struct fs_context */
	__u32 tgid;
	__u32 abilities; /* how many were named */
	struct guard_terms terms;
	struct guard_masks ceiling;
};

/* One live loan. Written by the programs once; then by src/guard only, which makes `revoked_ns` anything but 0. */
struct guard_delegation {
	struct guard_terms terms;
	__u64 created_ns;
	__u64 expires_ns; /* all ones: never */
	__u64 revoked_ns;
	__u64 cgroup; /* tokens are made in this cgroup and below only; 0: anywhere */
	__u32 cgroup_level;
	__u32 user_namespace; /* inode number */
	__u32 delegator; /* tgid */
	__u32 reserved;
};

/* Live objects of one delegation, by the programs alone. */
struct guard_usage {
	__u64 map_bytes;
	__u32 superblocks;
	__u32 tokens;
	__u32 programs;
	__u32 maps;
};

struct guard_map {
	__u64 delegation;
	__u64 bytes;
};

struct guard_event {
	__u64 time_ns;
	__u64 delegation; /* 0: none */
	__u64 cgroup; /* id */
	__u32 tgid;
	__u32 tid;
	__u32 uid;
	__u16 point; /* enum guard_point */
	__u8 verdict; /* enum guard_verdict */
	__u8 reason; /* enum guard_reason */
	__u32 cmd; /* of bpf(2); ~0: none */
	__u32 type; /* of the map or program, or the number of the capability */
	char task[GUARD_TASK_BYTES];
	char name[GUARD_TASK_BYTES]; /* of the map or program, or the beginning of an option or ability */
};

_Static_assert(sizeof(struct guard_config) == 16, "guard_config");
_Static_assert(sizeof(struct guard_totals) == 32, "guard_totals");
_Static_assert(sizeof(struct guard_terms) == 80, "guard_terms");
_Static_assert(sizeof(struct guard_process) == 16, "guard_process");
_Static_assert(sizeof(struct guard_file) == 16, "guard_file");
_Static_assert(sizeof(struct guard_delegator) == 48, "guard_delegator");
_Static_assert(sizeof(struct guard_pending) == 128, "guard_pending");
_Static_assert(sizeof(struct guard_delegation) == 128, "guard_delegation");
_Static_assert(sizeof(struct guard_usage) == 24, "guard_usage");
_Static_assert(sizeof(struct guard_map) == 16, "guard_map");
_Static_assert(sizeof(struct guard_event) == 80, "guard_event");

#endif
