/**
 * Which sizes and flags each type of map takes, by the kernel's word. Data, from the alloc_check and
 * alloc functions of kernel/bpf and net/core, Linux 6.9 to 7.3.
 *
 * Here because the model judges by it, and the library says by it what the kernel's EINVAL means.
 * What depends on the kernel or on several fields at once, the model knows.
 */
import { bpf_map_flags as F } from './bpf.ts'

/** Bytes: so many, one of some, from one number to another, any but 0, or any at all. */
export type SizeRule =
  | number
  | 'any'
  | 'free'
  | readonly number[]
  /** `unit`: what it is a multiple of. */
  | { readonly from: number; readonly to: number; readonly unit?: number }

export interface MapShape {
  readonly key: SizeRule
  readonly value: SizeRule
  /** So many; `some`: any but 0; `ring`: a power of two, and whole pages. */
  readonly entries: number | 'some' | 'ring'
  /** Flags that the type knows. */
  readonly flags: number
  /** Flags without which there is none. */
  readonly must?: number
}

/** What rings and arenas are made of, wherever bpf(2) speaks of pages: x86-64 and arm64 with 4 KiB. */
export const SHAPE_PAGE_BYTES = 4096

const { BPF_F_NO_PREALLOC: NO_PREALLOC, BPF_F_NO_COMMON_LRU: NO_COMMON_LRU, BPF_F_NUMA_NODE: NUMA } = F
const BY_USER = F.BPF_F_RDONLY | F.BPF_F_WRONLY
/** Both at once no type takes. */
export const BY_PROGRAM = F.BPF_F_RDONLY_PROG | F.BPF_F_WRONLY_PROG
const ACCESS = BY_USER | BY_PROGRAM
const FD_ARRAY = NUMA | BY_USER

/** Whether a map could be neither read nor written by programs. */
export const isClosed = (flags: number): boolean => (flags & BY_PROGRAM) === BY_PROGRAM

const hash: MapShape = {
  key: 'any',
  value: 'any',
  entries: 'some',
  flags: NO_PREALLOC | NUMA | ACCESS | F.BPF_F_ZERO_SEED,
}
const lru: MapShape = { ...hash, flags: (hash.flags & ~NO_PREALLOC) | NO_COMMON_LRU }
const array: MapShape = { key: 4, value: 'any', entries: 'some', flags: NUMA | ACCESS }
const fdArray: MapShape = { ...array, value: 4, flags: FD_ARRAY }
const queue: MapShape = { key: 0, value: 'any', entries: 'some', flags: NUMA | ACCESS }
const storage: MapShape = {
  key: 4,
  value: 'any',
  entries: 0,
  flags: NO_PREALLOC | F.BPF_F_CLONE,
  must: NO_PREALLOC,
}
const cgroupStorage: MapShape = { key: [8, 16], value: 'any', entries: 0, flags: NUMA | ACCESS }
const sockets: MapShape = { key: 4, value: [4, 8], entries: 'some', flags: FD_ARRAY }
const ring: MapShape = { key: 0, value: 0, entries: 'ring', flags: NUMA }

export const MAP_SHAPES = {
  hash,
  percpu_hash: { ...hash, flags: hash.flags & ~NUMA },
  lru_hash: lru,
  lru_percpu_hash: { ...lru, flags: lru.flags & ~NUMA },
  hash_of_maps: { ...hash, value: 4 },
  array: { ...array, flags: array.flags | F.BPF_F_MMAPABLE | F.BPF_F_INNER_MAP },
  percpu_array: { ...array, flags: ACCESS },
  prog_array: fdArray,
  perf_event_array: { ...fdArray, flags: FD_ARRAY | F.BPF_F_PRESERVE_ELEMS },
  cgroup_array: fdArray,
  array_of_maps: fdArray,
  reuseport_sockarray: { ...array, value: [4, 8] },
  queue,
  stack: queue,
  sk_storage: storage,
  inode_storage: storage,
  task_storage: storage,
  cgrp_storage: storage,
  cgroup_storage: cgroupStorage,
  percpu_cgroup_storage: cgroupStorage,
  ringbuf: { ...ring, flags: NUMA | F.BPF_F_RB_OVERWRITE },
  user_ringbuf: ring,
  stack_trace: {
    key: 4,
    value: { from: 8, to: 0xffff_ffff, unit: 8 },
    entries: 'some',
    flags: FD_ARRAY | F.BPF_F_STACK_BUILD_ID,
  },
  lpm_trie: {
    key: { from: 5, to: 260 },
    value: 'any',
    entries: 'some',
    flags: NO_PREALLOC | NUMA | ACCESS,
    must: NO_PREALLOC,
  },
  bloom_filter: { key: 0, value: 'any', entries: 'some', flags: NUMA | F.BPF_F_ZERO_SEED | ACCESS },
  // Its type has a size of its own.
  struct_ops: {
    key: 4,
    value: 'free',
    entries: 1,
    flags: F.BPF_F_LINK | F.BPF_F_VTYPE_BTF_OBJ_FD,
  },
  cpumap: { key: 4, value: [4, 8], entries: 'some', flags: NUMA },
  devmap: sockets,
  devmap_hash: sockets,
  xskmap: { ...sockets, value: 4 },
  sockmap: sockets,
  sockhash: { ...sockets, key: 'any' },
  arena: {
    key: 0,
    value: 0,
    entries: 'some',
    flags: F.BPF_F_MMAPABLE | F.BPF_F_SEGV_ON_FAULT | F.BPF_F_NO_USER_CONV,
    must: F.BPF_F_MMAPABLE,
  },
  insn_array: { key: 4, value: 16, entries: 'some', flags: 0 },
  rhash: { ...hash, flags: NO_PREALLOC | NUMA | ACCESS, must: NO_PREALLOC },
} as const satisfies Record<string, MapShape>

/** Whether a key or a value may have so many bytes. */
export function sizeFits(size: number, rule: SizeRule): boolean {
  if (rule === 'free') return true
  if (rule === 'any') return size !== 0
  if (typeof rule === 'number') return size === rule
  if ('from' in rule) return size >= rule.from && size <= rule.to && size % (rule.unit ?? 1) === 0
  return rule.includes(size)
}

/** Whether a map may have so many entries. */
export function entriesFit(count: number, rule: MapShape['entries']): boolean {
  if (rule === 'some') return count !== 0
  if (rule !== 'ring') return count === rule
  return count !== 0 && count % SHAPE_PAGE_BYTES === 0 && (count & (count - 1)) === 0
}
