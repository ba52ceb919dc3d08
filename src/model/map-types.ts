/** The types of maps: who may make them, and which sizes and flags the kernel takes. */
import { bpf_map_flags as F } from '../uapi/bpf.ts'
import { NET_ADMIN_MAPS } from '../uapi/bpf-needs.ts'
import { type ErrnoName, wordList } from './judge.ts'
import type { KernelFacts } from './kernel.ts'

/** Sizes and flags of a map that is to be made. */
export interface MapSizes {
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  /** Without BPF_F_TOKEN_FD. */
  readonly flags: number
  readonly extra: number
}

/** Types for which no capability is asked, where kernel.unprivileged_bpf_disabled is 0. */
export const UNPRIVILEGED_MAPS = wordList('map types without a capability', [
  ...['array', 'percpu_array', 'prog_array', 'perf_event_array', 'cgroup_array', 'array_of_maps'],
  ...['hash', 'percpu_hash', 'hash_of_maps', 'ringbuf', 'user_ringbuf', 'rhash'],
  ...['cgroup_storage', 'percpu_cgroup_storage'],
])

/** Types that need CAP_NET_ADMIN. All others need CAP_BPF. */
export const NETWORK_MAPS = wordList('map types with CAP_NET_ADMIN', NET_ADMIN_MAPS)

/** What a map of a type has to look like. */
export interface MapType {
  /**
   * When sizes and flags are judged: `check` before the token is looked at, `alloc` after the
   * capabilities.
   */
  readonly stage: 'check' | 'alloc'
  /** Sizes that this kernel takes: what is proposed where a caller names none. */
  readonly sample: MapSizes
  /** Flags that the type knows. */
  readonly flags: number
  readonly refuses: (sizes: MapSizes, kernel: KernelFacts) => ErrnoName | undefined
  /** It must name another map to copy its shape from. */
  readonly needsInner?: true
  /** It must name types of its own BTF, or of the kernel's. */
  readonly needsTypes?: 'own' | 'kernel'
}

const { BPF_F_NO_PREALLOC: NO_PREALLOC, BPF_F_NO_COMMON_LRU: NO_COMMON_LRU, BPF_F_NUMA_NODE: NUMA } = F
const { BPF_F_RDONLY, BPF_F_WRONLY, BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG } = F
const BY_USER = BPF_F_RDONLY | BPF_F_WRONLY
const BY_PROGRAM = BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG
const ACCESS = BY_USER | BY_PROGRAM
/** Without which maps of the hash family are not asked about ZERO_SEED. */
export const ZERO_SEED = F.BPF_F_ZERO_SEED

/** Neither readable nor writable by programs. */
const isClosed = (flags: number): boolean => (flags & BY_PROGRAM) === BY_PROGRAM

/** One size, one of some, any but 0, or any at all. */
type Size = number | 'any' | 'free' | readonly number[]

const sizeFits = (size: number, wanted: Size): boolean =>
  wanted === 'free'
    ? true
    : wanted === 'any'
      ? size !== 0
      : typeof wanted === 'number'
        ? size === wanted
        : wanted.includes(size)

interface Plain {
  readonly stage: 'check' | 'alloc'
  readonly key: Size
  readonly value: Size
  readonly entries: number | 'some'
  readonly flags: number
  /** Flags without which there is none. */
  readonly must?: number
  readonly sample?: Partial<MapSizes>
  readonly extra?: (extra: number) => boolean
  readonly more?: (sizes: MapSizes, kernel: KernelFacts) => ErrnoName | undefined
  readonly needsInner?: true
  readonly needsTypes?: 'own' | 'kernel'
}

function plain(type: Plain): MapType {
  const first = (size: Size): number =>
    size === 'any' || size === 'free' ? 4 : typeof size === 'number' ? size : size[0]!
  const { stage, flags, needsInner, needsTypes } = type
  const sample = {
    keySize: first(type.key),
    valueSize: first(type.value),
    maxEntries: type.entries === 'some' ? 1 : type.entries,
    flags: type.must ?? 0,
    extra: 0,
    ...type.sample,
  }
  return {
    stage,
    flags,
    sample,
    ...(needsInner === undefined ? {} : { needsInner }),
    ...(needsTypes === undefined ? {} : { needsTypes }),
    refuses: (sizes, kernel) => {
      const fits =
        sizeFits(sizes.keySize, type.key) &&
        sizeFits(sizes.valueSize, type.value) &&
        (type.entries === 'some' ? sizes.maxEntries !== 0 : sizes.maxEntries === type.entries) &&
        (sizes.flags & ~flags) === 0 &&
        (sizes.flags & (type.must ?? 0)) === (type.must ?? 0) &&
        ((flags & BY_PROGRAM) === 0 || !isClosed(sizes.flags)) &&
        (type.extra === undefined || type.extra(sizes.extra))
      return fits ? type.more?.(sizes, kernel) : 'EINVAL'
    },
  }
}

const HASH_FLAGS = NO_PREALLOC | NO_COMMON_LRU | NUMA | ACCESS | F.BPF_F_ZERO_SEED

/** The hash family: sizes are judged beforehand, and LRU wants its elements allocated. */
function hash(how: { lru?: true; percpu?: true; value?: Size; needsInner?: true }): MapType {
  return plain({
    stage: 'check',
    key: 'any',
    value: how.value ?? 'any',
    entries: 'some',
    flags: HASH_FLAGS,
    ...(how.needsInner === undefined ? {} : { needsInner: true as const }),
    more: ({ flags }) => {
      // The kernel asks in this order, and before it looks at sizes; `refuses` of `hash` does too.
      if (how.lru === undefined && (flags & NO_COMMON_LRU) !== 0) return 'EINVAL'
      if (how.lru !== undefined && (flags & NO_PREALLOC) !== 0) return 'ENOTSUPP'
      return (flags & NUMA) !== 0 && (how.percpu !== undefined || (flags & NO_COMMON_LRU) !== 0)
        ? 'EINVAL'
        : undefined
    },
  })
}

/** Flags come before sizes there: an LRU without its elements is ENOTSUPP, whatever its sizes. */
function lru(how: { percpu?: true }): MapType {
  const base = hash({ lru: true, ...how })
  return {
    ...base,
    refuses: (sizes, kernel) =>
      (sizes.flags & ~HASH_FLAGS) === 0 && !isClosed(sizes.flags) && (sizes.flags & NO_PREALLOC) !== 0
        ? 'ENOTSUPP'
        : base.refuses(sizes, kernel),
  }
}

function array(type: { flags: number; value?: Size; percpu?: true; needsInner?: true }): MapType {
  return plain({
    stage: 'check',
    key: 4,
    value: type.value ?? 'any',
    entries: 'some',
    flags: type.flags,
    ...(type.needsInner === undefined ? {} : { needsInner: true as const }),
    more: ({ flags }) => (type.percpu === true && (flags & NUMA) !== 0 ? 'EINVAL' : undefined),
  })
}

const storage = plain({
  stage: 'check',
  key: 4,
  value: 'any',
  entries: 0,
  flags: NO_PREALLOC | F.BPF_F_CLONE,
  must: NO_PREALLOC,
  needsTypes: 'own',
})

const cgroupStorage = plain({
  stage: 'alloc',
  key: [8, 16],
  value: 'any',
  entries: 0,
  flags: NUMA | ACCESS,
})

const queue = plain({ stage: 'check', key: 0, value: 'any', entries: 'some', flags: NUMA | ACCESS })
const FD_ARRAY = NUMA | BY_USER
const socket = { stage: 'alloc', value: [4, 8], entries: 'some', flags: NUMA | BY_USER } as const

const PAGE = 4096
const isRing = ({ maxEntries, flags }: MapSizes, kernel: KernelFacts): ErrnoName | undefined =>
  ((flags & F.BPF_F_RB_OVERWRITE) === 0 || kernel.ringsOverwrite) &&
  maxEntries !== 0 &&
  maxEntries % PAGE === 0 &&
  (maxEntries & (maxEntries - 1)) === 0
    ? undefined
    : 'EINVAL'

function ring(flags: number): MapType {
  return plain({
    stage: 'alloc',
    key: 0,
    value: 0,
    entries: 'some',
    flags,
    sample: { maxEntries: PAGE },
    more: isRing,
  })
}

/** By the kernel's mount-option word. A type that is missing here is judged by its capability alone. */
export const MAP_TYPES: Readonly<Record<string, MapType>> = {
  hash: hash({}),
  percpu_hash: hash({ percpu: true }),
  lru_hash: lru({}),
  lru_percpu_hash: lru({ percpu: true }),
  hash_of_maps: hash({ value: 4, needsInner: true }),
  array: array({ flags: NUMA | F.BPF_F_MMAPABLE | ACCESS | F.BPF_F_INNER_MAP }),
  percpu_array: array({ flags: NUMA | ACCESS, percpu: true }),
  prog_array: array({ flags: FD_ARRAY, value: 4 }),
  perf_event_array: array({ flags: FD_ARRAY | F.BPF_F_PRESERVE_ELEMS, value: 4 }),
  cgroup_array: array({ flags: FD_ARRAY, value: 4 }),
  array_of_maps: array({ flags: FD_ARRAY, value: 4, needsInner: true }),
  reuseport_sockarray: array({ flags: NUMA | ACCESS, value: [4, 8] }),
  queue,
  stack: queue,
  sk_storage: storage,
  inode_storage: storage,
  task_storage: storage,
  cgrp_storage: storage,
  cgroup_storage: cgroupStorage,
  percpu_cgroup_storage: cgroupStorage,
  ringbuf: ring(NUMA | F.BPF_F_RB_OVERWRITE),
  user_ringbuf: ring(NUMA),
  stack_trace: plain({
    stage: 'alloc',
    key: 4,
    value: 'any',
    entries: 'some',
    flags: NUMA | BY_USER | F.BPF_F_STACK_BUILD_ID,
    sample: { valueSize: 8 },
    more: ({ valueSize, flags }) => {
      const unit = (flags & F.BPF_F_STACK_BUILD_ID) !== 0 ? 32 : 8
      return valueSize < 8 || valueSize % unit !== 0 ? 'EINVAL' : undefined
    },
  }),
  lpm_trie: plain({
    stage: 'alloc',
    key: 'any',
    value: 'any',
    entries: 'some',
    flags: NO_PREALLOC | NUMA | ACCESS,
    must: NO_PREALLOC,
    sample: { keySize: 8 },
    more: ({ keySize }) => (keySize < 5 || keySize > 260 ? 'EINVAL' : undefined),
  }),
  bloom_filter: plain({
    stage: 'alloc',
    key: 0,
    value: 'any',
    entries: 'some',
    flags: NUMA | F.BPF_F_ZERO_SEED | ACCESS,
    extra: extra => extra <= 15,
  }),
  struct_ops: plain({
    stage: 'check',
    key: 4,
    // Its type has a size of its own.
    value: 'free',
    entries: 1,
    flags: F.BPF_F_LINK | F.BPF_F_VTYPE_BTF_OBJ_FD,
    needsTypes: 'kernel',
  }),
  cpumap: plain({ stage: 'alloc', key: 4, value: [4, 8], entries: 'some', flags: NUMA }),
  devmap: plain({ ...socket, stage: 'check', key: 4 }),
  devmap_hash: plain({ ...socket, stage: 'check', key: 4 }),
  xskmap: plain({ ...socket, key: 4, value: 4 }),
  sockmap: plain({ ...socket, key: 4 }),
  sockhash: plain({ ...socket, key: 'any' }),
  arena: plain({
    stage: 'alloc',
    key: 0,
    value: 0,
    entries: 'some',
    flags: F.BPF_F_MMAPABLE | F.BPF_F_SEGV_ON_FAULT | F.BPF_F_NO_USER_CONV,
    must: F.BPF_F_MMAPABLE,
    extra: extra => extra % PAGE === 0,
  }),
  insn_array: plain({ stage: 'check', key: 4, value: 16, entries: 'some', flags: 0 }),
  rhash: plain({
    stage: 'check',
    key: 'any',
    value: 'any',
    entries: 'some',
    flags: NO_PREALLOC | NUMA | ACCESS,
    must: NO_PREALLOC,
  }),
}

/** Types of which BPF_F_ZERO_SEED asks CAP_SYS_ADMIN of the host. */
export const SEEDED_MAPS = wordList('map types that ask about BPF_F_ZERO_SEED', [
  'hash',
  'percpu_hash',
  'lru_hash',
  'lru_percpu_hash',
  'hash_of_maps',
])
