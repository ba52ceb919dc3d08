/**
 * The guard's own ABI: keys and values of its maps, and the event record. The source is bpf/guard.h; a test holds these
 * tables against the BTF of the compiled object, field by field. Times are nanoseconds of CLOCK_BOOTTIME.
 */
import { bytes, struct, u8, u16, u32, u64 } from '../uapi/codec.ts'

export const GUARD_ABI = 1
/** Of an ability's name, with the zero byte that ends it. */
export const NAME_BYTES = 64
/** A limit of all ones is none. */
export const NO_LIMIT32 = 0xffff_ffff
export const NO_LIMIT64 = (1n << 64n) - 1n

/** The mount option that the guard refuses always, and with what. */
export const PROBE_KEY = 'bpftoken_guard'
export const PROBE_ERRNO_NAME = 'EKEYREJECTED'

/** enum guard_flag */
export const GUARD_FLAGS = { passToken: 1 } as const

const masksAt = (off: number) => ({
  cmds: u64(off),
  maps: u64(off + 8),
  progs: u64(off + 16),
  attachs: u64(off + 24),
})

export const guard_config = struct(16, {
  abi: u32(0),
  mode: u32(4), // of what belongs to no delegation: 0 permissive, 1 enforce
  audit: u32(8), // 1: events for what is allowed, too
  build: u32(12), // beginning of the object's SHA-256
})

export const guard_totals = struct(32, {
  last_id: u64(0),
  lost_events: u64(8),
  refused: u64(16),
  would_refuse: u64(24),
})

const TERMS = {
  ...masksAt(0),
  capabilities: u64(32), // bit n: capability number n
  map_bytes: u64(40),
  lifetime_ns: u64(48),
  tokens: u32(56),
  programs: u32(60),
  maps_count: u32(64), // `maps` in C, which the mask of that name has here
  instructions: u32(68),
  mode: u32(72),
  flags: u32(76), // GUARD_FLAGS
}

export const guard_terms = struct(80, TERMS)

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

export const guard_delegator = struct(48, {
  ...masksAt(0),
  last_id: u64(32),
  implicit: u32(40),
  reserved: u32(44),
})

export const guard_delegation = struct(128, {
  ...TERMS,
  created_ns: u64(80),
  expires_ns: u64(88), // all ones: never
  revoked_ns: u64(96), // 0: not revoked
  cgroup: u64(104), // 0: anywhere
  cgroup_level: u32(112),
  user_namespace: u32(116), // inode number
  delegator: u32(120), // tgid
  reserved_: u32(124),
})

export const guard_usage = struct(24, {
  map_bytes: u64(0),
  superblocks: u32(8),
  tokens: u32(12),
  programs: u32(16),
  maps: u32(20),
})

export const guard_event = struct(80, {
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
  type: u32(44), // of the map or program, or the number of the capability
  task: bytes(48, 16),
  name: bytes(64, 16), // of the map or program, or the beginning of an option or ability
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
} as const
