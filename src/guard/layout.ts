/**
 * The guard's own ABI: keys and values of its maps, and the event record. The source is bpf/guard.h; a test holds these
 * tables against the BTF of the compiled object, field by field. Times are nanoseconds of CLOCK_BOOTTIME.
 */
import { bytes, nested, struct, u8, u16, u32, u64 } from '../uapi/codec.ts'

export const GUARD_ABI = 3
/** Of the name of an ability, delegator or cgroup, with the zero byte that ends it. */
export const NAME_BYTES = 64
/** The record of a delegation is element `id % SLOTS` of three arrays. */
export const SLOTS = 8192
/** Ids below are of confined cgroups, and given by us. */
export const CONFINEMENTS = 64
/** Deepest cgroup that can be confined, or be named as a delegator. */
export const CGROUP_LEVELS = 16
/** A limit of all ones is not stated: the default holds, or none. */
export const NO_LIMIT32 = 0xffff_ffff
export const NO_LIMIT64 = (1n << 64n) - 1n

/** The mount option that the guard refuses always, and with what. */
export const PROBE_KEY = 'bpftoken_guard'
export const PROBE_ERRNO_NAME = 'EKEYREJECTED'
/** The mount option by which a process says that it means to change the guard. */
export const KEEPER_KEY = 'bpftoken_keeper'

/** Types of programs that reach network devices, and whatever is newer. */
export const NETWORK_PROGS = 0xffffffff40481c58n

/** enum guard_flag */
export const GUARD_FLAGS = {
  passToken: 1,
  bindMount: 2,
  hostNetwork: 4,
  irrevocable: 8,
  anyCgroup: 16,
} as const

/** enum guard_events */
export const EVENTS_WORDS = ['refused', 'all', 'none'] as const

export const guard_config = struct(48, {
  abi: u32(0),
  mode: u32(4), // of what belongs to no delegation: 0 permissive, 1 enforce
  audit: u32(8), // 1: events for what is allowed, too
  build: u32(12), // beginning of the object's SHA-256
  pin_inode: u64(16), // directory of the pins; 0: nothing is protected yet
  pin_device: u32(24), // the kernel's dev_t
  confined_levels: u32(28), // bit n: some cgroup n levels below the root is confined
  first_map: u32(32), // ids of the guard's own maps are none below this
  last_map: u32(36), // and none above this
  kernel_btf: u32(40), // id of the kernel's own BTF
  reserved: u32(44),
})

export const guard_totals = struct(32, {
  last_id: u64(0),
  lost_events: u64(8),
  refused: u64(16),
  would_refuse: u64(24),
})

export const guard_masks = struct(32, {
  cmds: u64(0),
  maps: u64(8),
  progs: u64(16),
  attachs: u64(24),
})

export const guard_terms = struct(104, {
  masks: nested(0, guard_masks),
  capabilities: u64(32), // bit n: capability number n
  map_bytes: u64(40),
  lifetime_ns: u64(48),
  digests: u64(56), // number of the list; 0: any program
  functions: u64(64), // number of the list; 0: any attach target
  tokens: u32(72),
  programs: u32(76),
  maps: u32(80),
  instructions: u32(84),
  mode: u32(88),
  flags: u32(92), // GUARD_FLAGS
  events: u32(96), // EVENTS_WORDS
  depth: u32(100), // how many times in a row it may be derived from
})

export const guard_digest = struct(40, {
  list: u64(0),
  bytes: bytes(8, 32), // SHA-256, or the first 8 bytes a tag and the rest zero
})

export const guard_function = struct(16, {
  list: u64(0),
  btf: u32(8), // id of the BTF object
  type: u32(12), // id of the type in it
})

export const guard_process = struct(16, {
  tgid: u32(0),
  reserved: u32(4),
  start_ticks: u64(8), // as in /proc/PID/stat
})

export const guard_file = struct(16, {
  inode: u64(0),
  device: u32(8), // the kernel's dev_t: major << 20 | minor
  reserved: u32(12),
})

export const guard_cgroup = struct(72, {
  parent: u64(0), // id of the cgroup above; 0: it is the root itself
  name: bytes(8, NAME_BYTES),
})

export const guard_delegator = struct(200, {
  ceiling: nested(0, guard_terms),
  last_id: u64(104),
  parent: u64(112), // what it lends is derived from this delegation; 0: from none
  cgroup: u64(120), // tokens of what it lends are made in this cgroup and below only; 0: anywhere
  cgroup_level: u32(128),
  implicit: u32(132),
  name: bytes(136, NAME_BYTES), // for people
})

export const guard_pending = struct(312, {
  context: u64(0),
  tgid: u32(8),
  abilities: u32(12), // how many were named
  terms: nested(16, guard_terms),
  ceiling: nested(120, guard_terms),
  parent: u64(224),
  cgroup: u64(232),
  cgroup_level: u32(240),
  reserved: u32(244),
  policy: bytes(248, NAME_BYTES),
})

export const guard_delegation = struct(224, {
  id: u64(0), // 0: the element is free
  terms: nested(8, guard_terms),
  created_ns: u64(112),
  expires_ns: u64(120), // all ones: never
  parent: u64(128), // 0: none
  cgroup: u64(136), // the confined one; else where tokens are made, or 0: anywhere
  cgroup_level: u32(144),
  user_namespace: u32(148), // inode number; 0: the host's, of a confined cgroup
  delegator: u32(152), // tgid
  reserved: u32(156),
  policy: bytes(160, NAME_BYTES),
})

export const guard_revocation = struct(16, {
  id: u64(0), // of the delegation that is meant: elements are used again
  revoked_ns: u64(8),
})

export const guard_usage = struct(56, {
  map_bytes: u64(0),
  mount: u64(8),
  place: u64(16),
  home: u64(24), // cgroup of the task that made the first token; 0: not known yet
  superblocks: u32(32),
  tokens: u32(36),
  programs: u32(40),
  maps: u32(44),
  children: u32(48),
  reserved: u32(52),
})

export const guard_rules = struct(8, {
  own_network: u32(0),
  revocable: u32(4),
})

export const guard_namespace = struct(24, {
  delegation: u64(0), // the last one, for events
  enforced: nested(8, guard_rules),
  watched: nested(16, guard_rules), // of permissive ones
})

export const guard_event = struct(88, {
  time_ns: u64(0),
  delegation: u64(8), // 0: none
  cgroup: u64(16), // id
  tgid: u32(24),
  tid: u32(28),
  uid: u32(32),
  point: u16(36),
  verdict: u8(38),
  reason: u8(39),
  cmd: u32(40), // of bpf(2); all ones: none
  type: u32(44), // of the map or program, number of the capability, or attach type
  task: bytes(48, 16),
  name: bytes(64, 16), // of the map or program, or the beginning of an option or ability
  holder: u64(80), // of reason full: the delegation that has most; else 0
})

/** The words of bpf/guard.h, by number: enum guard_point, guard_verdict, guard_reason. */
export const POINTS = {
  1: 'mark',
  2: 'option',
  3: 'superblock',
  4: 'token_create',
  5: 'token_cmd',
  6: 'token_capable',
  7: 'map_create',
  8: 'prog_load',
  9: 'reopen',
  10: 'receive',
  11: 'move',
  12: 'attach',
  13: 'command',
  14: 'protect',
  15: 'detach',
  16: 'open',
} as const

export const VERDICTS = { 0: 'allowed', 1: 'would-refuse', 2: 'refused' } as const

export const REASONS = {
  0: 'none',
  1: 'no-delegator',
  2: 'not-marked',
  3: 'no-ability',
  4: 'beyond-abilities',
  5: 'unregistered',
  6: 'revoked',
  7: 'expired',
  8: 'capability',
  9: 'tokens',
  10: 'maps',
  11: 'map-bytes',
  12: 'programs',
  13: 'instructions',
  14: 'cgroup',
  15: 'reopened',
  16: 'full',
  17: 'old-mount',
  18: 'stranger',
  19: 'digest',
  20: 'function',
  21: 'elsewhere',
  22: 'network',
  23: 'outlives',
  24: 'lists',
  25: 'beyond-parent',
  26: 'rights',
  27: 'no-keeper',
  28: 'mismatch',
  29: 'not-own',
  30: 'unreadable',
} as const
