/** The types of maps: who may make them, and which sizes and flags the kernel takes. */
import { bpf_map_flags as F } from '../uapi/bpf.ts'
import { NET_ADMIN_MAPS } from '../uapi/bpf-needs.ts'
import {
  BY_PROGRAM,
  entriesFit,
  isClosed,
  MAP_SHAPES,
  type MapShape,
  SHAPE_PAGE_BYTES,
  type SizeRule,
  sizeFits,
} from '../uapi/map-shapes.ts'
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

/** What a map of a type has to look like, by `MAP_SHAPES` and what stands here. */
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
/** Without which maps of the hash family are not asked about ZERO_SEED. */
export const ZERO_SEED = F.BPF_F_ZERO_SEED

type Word = keyof typeof MAP_SHAPES

interface More {
  readonly sample?: Partial<MapSizes>
  readonly extra?: (extra: number) => boolean
  readonly more?: (sizes: MapSizes, kernel: KernelFacts) => ErrnoName | undefined
  readonly needsInner?: true
  readonly needsTypes?: 'own' | 'kernel'
}

/** A size that fits. */
function first(rule: SizeRule): number {
  if (rule === 'any' || rule === 'free') return 4
  if (typeof rule === 'number') return rule
  return 'from' in rule ? Math.max(8, rule.from) : rule[0]!
}

function plain(stage: MapType['stage'], word: Word, type: More = {}): MapType {
  const shape: MapShape = MAP_SHAPES[word]
  const { key, value, entries, flags, must = 0 } = shape
  const { needsInner, needsTypes } = type
  return {
    stage,
    flags,
    sample: {
      keySize: first(key),
      valueSize: first(value),
      maxEntries: entries === 'some' ? 1 : entries === 'ring' ? SHAPE_PAGE_BYTES : entries,
      flags: must,
      extra: 0,
      ...type.sample,
    },
    ...(needsInner === undefined ? {} : { needsInner }),
    ...(needsTypes === undefined ? {} : { needsTypes }),
    refuses: (sizes, kernel) => {
      const fits =
        sizeFits(sizes.keySize, key) &&
        sizeFits(sizes.valueSize, value) &&
        entriesFit(sizes.maxEntries, entries) &&
        (sizes.flags & ~flags) === 0 &&
        (sizes.flags & must) === must &&
        ((flags & BY_PROGRAM) === 0 || !isClosed(sizes.flags)) &&
        (type.extra === undefined || type.extra(sizes.extra))
      return fits ? type.more?.(sizes, kernel) : 'EINVAL'
    },
  }
}

/** Flags that the kernel knows of any type of the hash family. */
const HASH_FLAGS = MAP_SHAPES.hash.flags | MAP_SHAPES.lru_hash.flags

/** Flags come before sizes there: an LRU without its elements is ENOTSUPP, whatever its sizes. */
function lru(word: Word): MapType {
  const base = plain('check', word, {
    more: ({ flags }) => ((flags & NUMA) !== 0 && (flags & NO_COMMON_LRU) !== 0 ? 'EINVAL' : undefined),
  })
  return {
    ...base,
    refuses: (sizes, kernel) =>
      (sizes.flags & ~HASH_FLAGS) === 0 && !isClosed(sizes.flags) && (sizes.flags & NO_PREALLOC) !== 0
        ? 'ENOTSUPP'
        : base.refuses(sizes, kernel),
  }
}

/** Overwriting is newer than rings are. */
const ringMore: More = {
  more: ({ flags }, kernel) =>
    (flags & F.BPF_F_RB_OVERWRITE) === 0 || kernel.ringsOverwrite ? undefined : 'EINVAL',
}

/** By the kernel's mount-option word. A type that is missing here is judged by its capability alone. */
export const MAP_TYPES: Readonly<Record<string, MapType>> = {
  hash: plain('check', 'hash'),
  percpu_hash: plain('check', 'percpu_hash'),
  lru_hash: lru('lru_hash'),
  lru_percpu_hash: lru('lru_percpu_hash'),
  hash_of_maps: plain('check', 'hash_of_maps', { needsInner: true }),
  array: plain('check', 'array'),
  percpu_array: plain('check', 'percpu_array'),
  prog_array: plain('check', 'prog_array'),
  perf_event_array: plain('check', 'perf_event_array'),
  cgroup_array: plain('check', 'cgroup_array'),
  array_of_maps: plain('check', 'array_of_maps', { needsInner: true }),
  reuseport_sockarray: plain('check', 'reuseport_sockarray'),
  queue: plain('check', 'queue'),
  stack: plain('check', 'stack'),
  sk_storage: plain('check', 'sk_storage', { needsTypes: 'own' }),
  inode_storage: plain('check', 'inode_storage', { needsTypes: 'own' }),
  task_storage: plain('check', 'task_storage', { needsTypes: 'own' }),
  cgrp_storage: plain('check', 'cgrp_storage', { needsTypes: 'own' }),
  cgroup_storage: plain('alloc', 'cgroup_storage'),
  percpu_cgroup_storage: plain('alloc', 'percpu_cgroup_storage'),
  ringbuf: plain('alloc', 'ringbuf', ringMore),
  user_ringbuf: plain('alloc', 'user_ringbuf'),
  stack_trace: plain('alloc', 'stack_trace', {
    more: ({ valueSize, flags }) =>
      (flags & F.BPF_F_STACK_BUILD_ID) !== 0 && valueSize % 32 !== 0 ? 'EINVAL' : undefined,
  }),
  lpm_trie: plain('alloc', 'lpm_trie'),
  bloom_filter: plain('alloc', 'bloom_filter', { extra: extra => extra <= 15 }),
  struct_ops: plain('check', 'struct_ops', { needsTypes: 'kernel' }),
  cpumap: plain('alloc', 'cpumap'),
  devmap: plain('check', 'devmap'),
  devmap_hash: plain('check', 'devmap_hash'),
  xskmap: plain('alloc', 'xskmap'),
  sockmap: plain('alloc', 'sockmap'),
  sockhash: plain('alloc', 'sockhash'),
  arena: plain('alloc', 'arena', { extra: extra => extra % SHAPE_PAGE_BYTES === 0 }),
  insn_array: plain('check', 'insn_array'),
  rhash: plain('check', 'rhash'),
}

/** Types of which BPF_F_ZERO_SEED asks CAP_SYS_ADMIN of the host. */
export const SEEDED_MAPS = wordList('map types that ask about BPF_F_ZERO_SEED', [
  'hash',
  'percpu_hash',
  'lru_hash',
  'lru_percpu_hash',
  'hash_of_maps',
])
