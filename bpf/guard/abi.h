/*
 * What the guard's programs (guard.bpf.c) and src/guard share: keys and values of the maps, and the
 * event record. All times are nanoseconds of CLOCK_BOOTTIME.
 *
 * This is the only source: scripts/gen-guard-layout.ts makes src/guard/layout.ts from the types of
 * the compiled object, and from the two strings below. A change of any layout changes GUARD_ABI. Another
 * map does not: the guard that lacks it is replaced without a gap, and what is lent goes on.
 */
#ifndef GUARD_ABI_H
#define GUARD_ABI_H

/* Enumerators and not macros, because only those are in the object's types. */
enum guard_number {
	GUARD_ABI = 4,
	/* Longest name of an ability, delegator or cgroup, with its end. */
	GUARD_NAME_BYTES = 64,
	GUARD_TASK_BYTES = 16,
	GUARD_DIGEST_BYTES = 32,

	/* Live delegations at one time. The record of delegation `id` is element id % GUARD_SLOTS of three arrays. */
	GUARD_SLOTS = 8192,
	/* Elements below are for confined cgroups: written by src/guard, whose ids are these numbers, from 1. */
	GUARD_CONFINEMENTS = 64,
	/* Deepest cgroup that can be confined, or be named as a delegator. */
	GUARD_CGROUP_LEVELS = 16,

	/*
	 * Bit n: programs of type n reach network devices. These are sched_cls, sched_act, xdp, lwt_*,
	 * flow_dissector and sk_lookup.
	 */
	GUARD_NETWORK_PROGS_LOW = 0x40481c58,

	/* With what the mount option GUARD_PROBE_KEY is refused: EKEYREJECTED. */
	GUARD_PROBE_ERRNO = 129,

	/*
	 * What a delegation may have alive at one time where its policy states no limit: so few that none
	 * fills a table of the guard (65536 each) alone, so many that none misses more.
	 */
	GUARD_DEFAULT_TOKENS = 1024,
	GUARD_DEFAULT_PROGRAMS = 4096,
	GUARD_DEFAULT_MAPS = 4096,
};

/* All types that reach network devices: those, netfilter (32), and whatever is newer. */
#define GUARD_NETWORK_PROGS (~0ULL << 32 | GUARD_NETWORK_PROGS_LOW)

/* The mount option that is refused always: whoever gets an answer other than GUARD_PROBE_ERRNO has no guard. */
#define GUARD_PROBE_KEY "bpftoken_guard"
/* The mount option by which a task of the host's root says that it means to change the guard. It holds for its process. */
#define GUARD_KEEPER_KEY "bpftoken_keeper"

enum guard_mode {
	GUARD_PERMISSIVE = 0, /* let through, and record what would be refused */
	GUARD_ENFORCE = 1,
};

enum guard_flag {
	GUARD_PASS_TOKEN = 1, /* a token, and what was loaded with it, may be passed to tasks of other user namespaces */
	GUARD_BIND_MOUNT = 2, /* the bpffs may be elsewhere than where it was put first */
	GUARD_HOST_NETWORK = 4, /* attach to the host's network devices */
	GUARD_IRREVOCABLE = 8, /* attachments may be made that outlive the workload */
	GUARD_ANY_CGROUP = 16, /* attach to other cgroups than the workload's own and those below */
};

/* Which verdicts become events. */
enum guard_events {
	GUARD_EVENTS_REFUSED = 0,
	GUARD_EVENTS_ALL = 1,
	GUARD_EVENTS_NONE = 2,
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
	GUARD_RECEIVE = 10, /* a token, program or map comes by SCM_RIGHTS or pidfd_getfd(2), or a map by its pin */
	GUARD_MOVE = 11, /* move_mount(2) */
	GUARD_ATTACH = 12,
	GUARD_COMMAND = 13, /* any other command of bpf(2), by a confined cgroup */
	GUARD_PROTECT = 14, /* the guard's own maps and pins */
	GUARD_DETACH = 15, /* what is attached is taken away, or replaced */
	GUARD_OPEN = 16, /* a program becomes a descriptor again: from a pin, or by its id */
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
	GUARD_CAPABILITY = 8, /* not lent. One event for each token and capability: the verifier asks often, and may go on without */
	GUARD_TOKENS = 9, /* over a limit */
	GUARD_MAPS = 10,
	GUARD_MAP_BYTES = 11,
	GUARD_PROGRAMS = 12,
	GUARD_INSTRUCTIONS = 13,
	GUARD_CGROUP = 14, /* outside the delegation's cgroup, or attached to one that is not its own */
	GUARD_REOPENED = 15, /* a token through /proc: crashes kernels */
	GUARD_FULL = 16, /* the guard cannot keep another record: `holder` has most of them */
	GUARD_OLD_MOUNT = 17, /* mount(2), whose contexts the guard cannot follow */
	GUARD_STRANGER = 18, /* a task of another user namespace */
	GUARD_DIGEST = 19, /* the program is none of those listed */
	GUARD_FUNCTION = 20, /* the attach target is none of those listed */
	GUARD_ELSEWHERE = 21, /* a bpffs that was moved or bind-mounted */
	GUARD_NETWORK = 22, /* the host's network */
	GUARD_OUTLIVES = 23, /* an attachment that no link holds outlives the workload */
	GUARD_LISTS = 24, /* two abilities with lists of digests or functions do not go together */
	GUARD_BEYOND_PARENT = 25, /* more than the delegation that it is derived from has left */
	GUARD_RIGHTS = 26, /* command or type not lent to a confined cgroup */
	GUARD_NO_KEEPER = 27, /* a task that has not said that it means to change the guard */
	GUARD_MISMATCH = 28, /* the record of an object is another one's, or missing */
	GUARD_NOT_OWN = 29, /* what would be taken away is somebody else's */
	GUARD_UNREADABLE = 30, /* what is put into a map cannot be read before the kernel reads it */
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
	__u64 pin_inode; /* directory of the guard's pins; 0: not known yet, and nothing is protected */
	__u32 pin_device; /* the kernel's dev_t */
	__u32 confined_levels; /* bit n: some cgroup n levels below the root is confined */
	__u32 first_map; /* ids of the guard's own maps (`own_maps`) are none below this */
	__u32 last_map; /* and none above this */
	__u32 kernel_btf; /* id of the kernel's own BTF */
	__u32 reserved;
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

/* What a policy lends. A limit of all ones is not stated: GUARD_DEFAULT_*, else none. */
struct guard_terms {
	struct guard_masks masks;
	__u64 capabilities; /* bit n: capability number n */
	__u64 map_bytes;
	__u64 lifetime_ns;
	__u64 digests; /* number of the list; 0: any program */
	__u64 functions; /* number of the list; 0: any attach target */
	__u32 tokens;
	__u32 programs;
	__u32 maps;
	__u32 instructions;
	__u32 mode;
	__u32 flags; /* enum guard_flag */
	__u32 events; /* enum guard_events */
	__u32 depth; /* how many times in a row it may be derived from */
};

/* A digest on a list: SHA-256, or the first 8 bytes a tag and the rest zero. */
struct guard_digest {
	__u64 list;
	__u8 bytes[GUARD_DIGEST_BYTES];
};

/* An attach target on a list: function, typedef (raw tracepoints) or struct (struct_ops) of the kernel's BTF. */
struct guard_function {
	__u64 list;
	__u32 btf; /* id of the BTF object */
	__u32 type; /* id of the type in it */
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

/* A cgroup whose tasks may delegate, also those of cgroups below: by name, since a unit's cgroup is made anew with each start. */
struct guard_cgroup {
	__u64 parent; /* id of the cgroup above; 0: it is the root itself */
	char name[GUARD_NAME_BYTES];
};

struct guard_delegator {
	struct guard_terms ceiling;
	__u64 last_id; /* the delegation that it made last */
	__u64 parent; /* what it lends is derived from this delegation; 0: from none */
	__u64 cgroup; /* tokens of what it lends are made in this cgroup and below only; 0: anywhere */
	__u32 cgroup_level;
	__u32 implicit; /* 1: knows nothing of `delegate` and `abilities`; its first delegate_* marks the context */
	char name[GUARD_NAME_BYTES]; /* for people */
};

/* A context that an allowed delegator has marked, until its superblock is created. */
struct guard_pending {
	__u64 context; /* struct fs_context */
	__u32 tgid;
	__u32 abilities; /* how many were named */
	struct guard_terms terms;
	struct guard_terms ceiling;
	__u64 parent;
	__u64 cgroup;
	__u32 cgroup_level;
	__u32 reserved;
	char policy[GUARD_NAME_BYTES]; /* the first that was named, or the delegator */
};

/* One live loan, or one confined cgroup. Written once: by the programs, or for confined cgroups by src/guard. */
struct guard_delegation {
	__u64 id; /* 0: the element is free */
	struct guard_terms terms;
	__u64 created_ns;
	__u64 expires_ns; /* all ones: never */
	__u64 parent; /* 0: none */
	__u64 cgroup; /* the confined one; else tokens are made in this one and below only, or 0: anywhere */
	__u32 cgroup_level;
	__u32 user_namespace; /* inode number; 0: the host's, of a confined cgroup */
	__u32 delegator; /* tgid */
	__u32 ruled; /* 1: its rules count in its user namespace */
	char policy[GUARD_NAME_BYTES];
};

/* By src/guard alone: to revoke is to write this once. */
struct guard_revocation {
	__u64 id; /* of the delegation that is meant: elements are used again */
	__u64 revoked_ns;
};

/* By the programs: a delegation whose time was over when one of them looked. Of a confined cgroup, src/guard clears it. */
struct guard_expired {
	__u64 id;
};

/* Live objects of one delegation, by the programs alone; what was lent on counts as in use. */
struct guard_usage {
	__u64 map_bytes;
	__u64 mount; /* unique id of the mount that its tokens are made through; 0: not known yet */
	__u64 place; /* where that mount was when the first token was made: its parent and mount point, mixed; 0: not known yet */
	__u64 home; /* cgroup of the task that made the first token; 0: not known yet */
	__u32 superblocks;
	__u32 tokens;
	__u32 programs;
	__u32 maps;
	__u32 children; /* derived delegations */
	__u32 reserved;
};

struct guard_token {
	__u64 delegation;
	__u64 told; /* capabilities for which an event said that they are not lent */
};

/* By the address of its bpf_prog_aux: the verifier moves struct bpf_prog. */
struct guard_program {
	__u64 delegation;
	__u32 admitted; /* 1: its digest is known and allowed */
	__u32 reserved;
};

/* By its address, which stays. */
struct guard_map {
	__u64 delegation;
	__u64 bytes;
};

/* How many delegations have a rule. */
struct guard_rules {
	__u32 own_network; /* not the host's, of those that lend any of GUARD_NETWORK_PROGS */
	__u32 revocable; /* no attachment that outlives the workload */
};

/* What tasks of a user namespace, and of those below it, may attach, by the strictest of the delegations there. */
struct guard_namespace {
	__u64 delegation; /* the last one, for events */
	struct guard_rules enforced;
	struct guard_rules watched; /* of permissive ones */
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
	__u32 type; /* of the map or program, number of the capability, or attach type, as the point has it */
	char task[GUARD_TASK_BYTES];
	char name[GUARD_TASK_BYTES]; /* of the map or program, or the beginning of an option or ability */
	__u64 holder; /* GUARD_FULL: the delegation that has most of what the table holds; else 0 */
};

_Static_assert(sizeof(struct guard_config) == 48, "guard_config");
_Static_assert(sizeof(struct guard_totals) == 32, "guard_totals");
_Static_assert(sizeof(struct guard_terms) == 104, "guard_terms");
_Static_assert(sizeof(struct guard_digest) == 40, "guard_digest");
_Static_assert(sizeof(struct guard_function) == 16, "guard_function");
_Static_assert(sizeof(struct guard_process) == 16, "guard_process");
_Static_assert(sizeof(struct guard_file) == 16, "guard_file");
_Static_assert(sizeof(struct guard_cgroup) == 72, "guard_cgroup");
_Static_assert(sizeof(struct guard_delegator) == 200, "guard_delegator");
_Static_assert(sizeof(struct guard_pending) == 312, "guard_pending");
_Static_assert(sizeof(struct guard_delegation) == 224, "guard_delegation");
_Static_assert(sizeof(struct guard_revocation) == 16, "guard_revocation");
_Static_assert(sizeof(struct guard_expired) == 8, "guard_expired");
_Static_assert(sizeof(struct guard_usage) == 56, "guard_usage");
_Static_assert(sizeof(struct guard_token) == 16, "guard_token");
_Static_assert(sizeof(struct guard_program) == 16, "guard_program");
_Static_assert(sizeof(struct guard_map) == 16, "guard_map");
_Static_assert(sizeof(struct guard_namespace) == 24, "guard_namespace");
_Static_assert(sizeof(struct guard_event) == 88, "guard_event");

#endif
