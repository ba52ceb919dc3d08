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
import type { KernelFacts, MapLimits } from './kernel.ts'

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

/** One test of sizes and flags, and with what it fails. Undefined: it holds. */
export interface SizeTest {
  /** What the type takes at all, or how much the kernel can hold. */
  readonly kind: 'shape' | 'limit'
  readonly refuses: (sizes: MapSizes, kernel: KernelFacts) => ErrnoName | undefined
}

/** What a map of a type has to look like, by `MAP_SHAPES` and what stands here. Tests are in the kernel's order. */
export interface MapType {
  /** What is asked before the token is looked at. */
  readonly check: readonly SizeTest[]
  /** What is asked behind the capabilities. */
  readonly alloc: readonly SizeTest[]
  /** Sizes that this kernel takes: what is proposed where a caller names none. */
  readonly sample: MapSizes
  /** Flags that the type knows. */
  readonly flags: number
  /** It must name another map to copy its shape from. */
  readonly needsInner?: true
  /** It must name types of its own BTF, or of the kernel's. */
  readonly needsTypes?: 'own' | 'kernel'
}

const { BPF_F_NO_PREALLOC: NO_PREALLOC, BPF_F_NO_COMMON_LRU: NO_COMMON_LRU, BPF_F_NUMA_NODE: NUMA } = F
/** Without which maps of the hash family are not asked about ZERO_SEED. */
export const ZERO_SEED = F.BPF_F_ZERO_SEED

type Word = keyof typeof MAP_SHAPES
type Refuses = SizeTest['refuses']

/** A size that fits. */
function first(rule: SizeRule): number {
  if (rule === 'any' || rule === 'free') return 4
  if (typeof rule === 'number') return rule
  return 'from' in rule ? Math.max(8, rule.from) : rule[0]!
}

function mapType(word: Word, tests: Partial<Omit<MapType, 'sample' | 'flags'>>): MapType {
  const { key, value, entries, flags, must = 0 }: MapShape = MAP_SHAPES[word]
  return {
    check: [],
    alloc: [],
    flags,
    sample: {
      keySize: first(key),
      valueSize: first(value),
      maxEntries: entries === 'some' ? 1 : entries === 'ring' ? SHAPE_PAGE_BYTES : entries,
      flags: must,
      extra: 0,
    },
    ...tests,
  }
}

/** What fits into the type's shape, and what `more` says of it. */
function shape(word: Word, more?: Refuses): SizeTest {
  const { key, value, entries, flags, must = 0 }: MapShape = MAP_SHAPES[word]
  return {
    kind: 'shape',
    refuses: (sizes, kernel) => {
      const fits =
        sizeFits(sizes.keySize, key) &&
        sizeFits(sizes.valueSize, value) &&
        entriesFit(sizes.maxEntries, entries) &&
        (sizes.flags & ~flags) === 0 &&
        (sizes.flags & must) === must &&
        ((flags & BY_PROGRAM) === 0 || !isClosed(sizes.flags))
      return fits ? more?.(sizes, kernel) : 'EINVAL'
    },
  }
}

/** A part of a shape that is asked by itself. */
const part = (fits: (sizes: MapSizes) => boolean): SizeTest => ({
  kind: 'shape',
  refuses: sizes => (fits(sizes) ? undefined : 'EINVAL'),
})

type IsOver = (sizes: MapSizes, limits: MapLimits) => boolean

/** E2BIG where one of them says so. */
const limit = (...over: readonly IsOver[]): SizeTest => ({
  kind: 'limit',
  refuses: (sizes, { limits }) => (over.some(is => is(sizes, limits)) ? 'E2BIG' : undefined),
})

/** Bytes of a struct of the kernel: what stands before a key, beside the key and the value. */
const ELEMENT = { htab_elem: 48, bpf_local_storage_elem: 128 } as const
const MAX_BPF_STACK = 512
const U16_MAX = 0xffff
const U32_MAX = 0xffff_ffff
const INT_MAX = 0x7fff_ffff
/** More entries need more buckets than fit into 32 bits of bytes, 16 for each. */
const MOST_BUCKETS = 2 ** 27
const MOST_ROUNDED = 2 ** 31
const LPM_KEY_BYTES = 256

const element: IsOver = ({ keySize, valueSize }, { objectBytes }) =>
  keySize + valueSize >= objectBytes - ELEMENT.htab_elem
const perCpu: IsOver = ({ valueSize }, { perCpuBytes }) => Math.ceil(valueSize / 8) * 8 > perCpuBytes
const value: IsOver = ({ valueSize }, { objectBytes }) => valueSize > objectBytes
const stored: IsOver = ({ valueSize }, { objectBytes }) =>
  valueSize > Math.min(objectBytes - MAX_BPF_STACK, U16_MAX) - ELEMENT.bpf_local_storage_elem
const signed: IsOver = ({ valueSize }) => valueSize > INT_MAX
const buckets: IsOver = ({ maxEntries }) => maxEntries > MOST_BUCKETS
const rounded: IsOver = ({ maxEntries }) => maxEntries > MOST_ROUNDED

/** Flags that the kernel knows of any type of the hash family. */
const HASH_FLAGS = MAP_SHAPES.hash.flags | MAP_SHAPES.lru_hash.flags

/** Flags come before sizes there: an LRU without its elements is ENOTSUPP, whatever its sizes. */
function lruShape(word: 'lru_hash' | 'lru_percpu_hash'): SizeTest {
  const base = shape(word, ({ flags }) =>
    (flags & NUMA) !== 0 && (flags & NO_COMMON_LRU) !== 0 ? 'EINVAL' : undefined,
  )
  return {
    kind: 'shape',
    refuses: (sizes, kernel) =>
      (sizes.flags & ~HASH_FLAGS) === 0 && !isClosed(sizes.flags) && (sizes.flags & NO_PREALLOC) !== 0
        ? 'ENOTSUPP'
        : base.refuses(sizes, kernel),
  }
}

const hashType = (word: Word, own = shape(word)): MapType =>
  mapType(word, { check: [own, limit(element)], alloc: [limit(buckets)] })
const perCpuHash = (word: Word, own = shape(word)): MapType =>
  mapType(word, { check: [own, limit(element, perCpu)], alloc: [limit(buckets)] })
const checked = (word: Word): MapType => mapType(word, { check: [shape(word)] })
const allocated = (word: Word, more?: Refuses): MapType => mapType(word, { alloc: [shape(word, more)] })
/** A queue has room for one more, by which a full one is told from an empty one. */
const whole: SizeTest = {
  kind: 'limit',
  refuses: ({ valueSize, maxEntries }, { boundsQueues }) =>
    boundsQueues && (maxEntries + 1) * valueSize > U32_MAX ? 'E2BIG' : undefined,
}
const queueType = (word: Word): MapType => mapType(word, { check: [shape(word), limit(value), whole] })
const storageType = (word: Word): MapType =>
  mapType(word, { check: [shape(word), limit(stored)], needsTypes: 'own' })
/** Sizes come first there, flags and entries last. */
const cgroupStorage = (word: Word, ...over: readonly IsOver[]): MapType =>
  mapType(word, {
    alloc: [
      part(({ keySize, valueSize }) => sizeFits(keySize, MAP_SHAPES[word].key) && valueSize !== 0),
      limit(stored, ...over),
      shape(word),
    ],
  })

/** Overwriting is newer than rings are. */
const ringMore: Refuses = ({ flags }, kernel) =>
  (flags & F.BPF_F_RB_OVERWRITE) === 0 || kernel.ringsOverwrite ? undefined : 'EINVAL'

/** So many frames, of 8 bytes, or of 32 with the build ID of their file. */
const stackMore: Refuses = ({ valueSize, flags }, { limits }) => {
  const frame = (flags & F.BPF_F_STACK_BUILD_ID) !== 0 ? 32 : 8
  return valueSize % frame !== 0 || valueSize / frame > limits.stackDepth ? 'EINVAL' : undefined
}

const lpmMore: Refuses = ({ valueSize }, { limits, lpmNodeBytes }) =>
  valueSize > limits.objectBytes - LPM_KEY_BYTES - lpmNodeBytes ? 'EINVAL' : undefined

const FOUR_GIB = 2 ** 32
/** An arena has 4 GiB at most, and crosses no border of 4 GiB in its process. */
const arenaLimit: SizeTest = {
  kind: 'limit',
  refuses: ({ maxEntries, extra }) => {
    const bytes = maxEntries * SHAPE_PAGE_BYTES
    if (bytes > FOUR_GIB) return 'E2BIG'
    const last = extra + bytes - 1
    return Math.floor(extra / FOUR_GIB) === Math.floor(last / FOUR_GIB) ? undefined : 'ERANGE'
  },
}

/** `extra`: for how many elements there is room at first. */
const rhash = mapType('rhash', {
  check: [
    part(({ flags }) => (flags & NO_PREALLOC) !== 0 && (flags & ZERO_SEED) === 0),
    limit(({ keySize }) => keySize > U16_MAX),
    part(({ extra }) => extra < FOUR_GIB),
    limit(({ extra }) => extra > U16_MAX),
    part(({ extra, maxEntries }) => extra <= maxEntries),
    shape('rhash'),
    limit(element),
  ],
  alloc: [limit(rounded)],
})

/** By the kernel's mount-option word. A type that is missing here is judged by its capability alone. */
export const MAP_TYPES: Readonly<Record<string, MapType>> = {
  hash: hashType('hash'),
  percpu_hash: perCpuHash('percpu_hash'),
  lru_hash: hashType('lru_hash', lruShape('lru_hash')),
  lru_percpu_hash: perCpuHash('lru_percpu_hash', lruShape('lru_percpu_hash')),
  hash_of_maps: { ...hashType('hash_of_maps'), needsInner: true },
  array: mapType('array', { check: [shape('array'), limit(signed)] }),
  percpu_array: mapType('percpu_array', { check: [shape('percpu_array'), limit(signed, perCpu)] }),
  prog_array: checked('prog_array'),
  perf_event_array: checked('perf_event_array'),
  cgroup_array: checked('cgroup_array'),
  array_of_maps: { ...checked('array_of_maps'), needsInner: true },
  reuseport_sockarray: checked('reuseport_sockarray'),
  queue: queueType('queue'),
  stack: queueType('stack'),
  sk_storage: storageType('sk_storage'),
  inode_storage: storageType('inode_storage'),
  task_storage: storageType('task_storage'),
  cgrp_storage: storageType('cgrp_storage'),
  cgroup_storage: cgroupStorage('cgroup_storage'),
  percpu_cgroup_storage: cgroupStorage(
    'percpu_cgroup_storage',
    ({ valueSize }, { perCpuBytes }) => valueSize > perCpuBytes,
  ),
  ringbuf: allocated('ringbuf', ringMore),
  user_ringbuf: allocated('user_ringbuf'),
  stack_trace: mapType('stack_trace', { alloc: [shape('stack_trace', stackMore), limit(rounded)] }),
  lpm_trie: allocated('lpm_trie', lpmMore),
  bloom_filter: mapType('bloom_filter', {
    check: [limit(value)],
    alloc: [shape('bloom_filter', ({ extra }) => (extra <= 15 ? undefined : 'EINVAL'))],
  }),
  struct_ops: { ...checked('struct_ops'), needsTypes: 'kernel' },
  cpumap: mapType('cpumap', {
    alloc: [shape('cpumap'), limit(({ maxEntries }, { processors }) => maxEntries > processors)],
  }),
  devmap: checked('devmap'),
  devmap_hash: mapType('devmap_hash', {
    check: [shape('devmap_hash'), part(({ maxEntries }) => maxEntries <= MOST_ROUNDED)],
  }),
  xskmap: allocated('xskmap'),
  sockmap: allocated('sockmap'),
  sockhash: mapType('sockhash', {
    alloc: [
      shape('sockhash'),
      limit(({ keySize }) => keySize > MAX_BPF_STACK),
      part(({ maxEntries }) => maxEntries <= MOST_BUCKETS),
    ],
  }),
  arena: mapType('arena', {
    alloc: [
      shape('arena', ({ extra }) => (extra % SHAPE_PAGE_BYTES === 0 ? undefined : 'EINVAL')),
      arenaLimit,
    ],
  }),
  insn_array: checked('insn_array'),
  rhash,
}

/** Types of which BPF_F_ZERO_SEED asks CAP_SYS_ADMIN of the host. */
export const SEEDED_MAPS = wordList('map types that ask about BPF_F_ZERO_SEED', [
  'hash',
  'percpu_hash',
  'lru_hash',
  'lru_percpu_hash',
  'hash_of_maps',
])
