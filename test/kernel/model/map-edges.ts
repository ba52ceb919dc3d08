/**
 * Sizes of maps at the limits of the kernel and around them. Where the kernel would take so much that
 * it needs megabytes, the caller may make no map: it gets as far as the limit, and no further.
 */
import type { KernelFacts } from '../../../src/model/kernel.ts'
import { UNPRIVILEGED_MAPS } from '../../../src/model/map-types.ts'
import { MAP_SHAPES } from '../../../src/uapi/map-shapes.ts'
import type { Lab } from './lab.ts'
import type { Random } from './random.ts'
import type { MapSpec } from './spec.ts'

type Sizes = Pick<MapSpec, 'keySize' | 'valueSize' | 'maxEntries' | 'extra' | 'flags'>

interface Edge extends Sizes {
  /** It fits, and would cost much. */
  readonly large?: true
}

const MAX = 0xffff_ffff
const BUILD_ID = 1 << 5
const MMAPABLE = 1 << 10
const of = <K extends keyof Sizes>(field: K, ...values: number[]): Edge[] =>
  values.map(value => ({ [field]: value }))
const large = (edge: Sizes): Edge => ({ ...edge, large: true })

function hashEdges({ objectBytes }: KernelFacts['limits'], valueSize?: number): Edge[] {
  // struct htab_elem, and the other one of key and value
  const over = objectBytes - 48 - 4
  return [
    { keySize: over, valueSize: 4 },
    large({ keySize: over - 1, valueSize: 4 }),
    ...of('keySize', 2 ** 31, MAX),
    ...of('maxEntries', 2 ** 27 + 1, 2 ** 31 + 1, MAX),
    ...(valueSize !== undefined
      ? []
      : [
          { keySize: 4, valueSize: over },
          { keySize: MAX, valueSize: MAX },
          ...of('valueSize', 1 << 24, MAX),
        ]),
  ]
}

/** By the map's word; a type without any takes few sizes, and these are tried anyhow. */
function edgesOf(word: string, { limits, lpmNodeBytes, boundsQueues }: KernelFacts): Edge[] {
  const { objectBytes, perCpuBytes, processors, stackDepth } = limits
  const perCpu = of('valueSize', perCpuBytes - 3, perCpuBytes, perCpuBytes + 1)
  const stored = of('valueSize', 0xffff - 128, 0xffff - 127, 1 << 24, MAX)
  switch (word) {
    case 'hash':
    case 'lru_hash':
      return [...hashEdges(limits), large({ keySize: 4, valueSize: objectBytes - 48 - 5 })]
    case 'hash_of_maps':
      return hashEdges(limits, 4)
    case 'percpu_hash':
    case 'lru_percpu_hash':
      return [...hashEdges(limits), ...perCpu]
    case 'rhash':
      return [
        { keySize: 4, valueSize: objectBytes - 48 - 4 },
        large({ keySize: 4, valueSize: objectBytes - 48 - 5 }),
        ...of('keySize', 0xffff, 0x1_0000, MAX),
        ...of('maxEntries', 2 ** 31, 2 ** 31 + 1, MAX),
        ...[1, 2, 0xffff, 0x1_0000, 2 ** 32].flatMap(extra => [
          { extra },
          { extra, maxEntries: 0xffff },
          { extra, maxEntries: MAX },
          { extra, keySize: 0x1_0000 },
        ]),
      ]
    case 'array':
      return [...of('valueSize', 2 ** 31, MAX), large({ valueSize: 2 ** 31 - 1 })]
    case 'percpu_array':
      return [...perCpu, ...of('valueSize', 2 ** 31 - 1, 2 ** 31, MAX)]
    case 'queue':
    case 'stack':
      return [
        ...of('valueSize', objectBytes + 1, MAX),
        large({ valueSize: objectBytes }),
        // Products of 2^32 - 1 and 2^32, where one entry more is counted.
        ...[
          { valueSize: 1, maxEntries: MAX },
          { valueSize: 4, maxEntries: 2 ** 30 - 1 },
          { valueSize: objectBytes, maxEntries: MAX },
        ].map(edge => (boundsQueues ? edge : large(edge))),
        large({ valueSize: 1, maxEntries: MAX - 1 }),
        large({ valueSize: 3, maxEntries: MAX / 3 - 1 }),
      ]
    case 'bloom_filter':
      return [
        ...of('valueSize', objectBytes, objectBytes + 1, MAX),
        { valueSize: objectBytes, extra: 16 },
        { valueSize: objectBytes + 1, extra: 16 },
      ]
    case 'sk_storage':
    case 'inode_storage':
    case 'task_storage':
    case 'cgrp_storage':
      return stored
    case 'cgroup_storage':
    case 'percpu_cgroup_storage':
      return [...stored, ...perCpu, { valueSize: MAX, maxEntries: 1 }, { valueSize: MAX, keySize: 9 }]
    case 'stack_trace':
      return [
        ...of('valueSize', stackDepth * 8, stackDepth * 8 + 8, 2 ** 31),
        ...of('maxEntries', 2 ** 31 + 1, MAX),
        { valueSize: stackDepth * 8 + 8, maxEntries: MAX },
        ...of('valueSize', stackDepth * 32, stackDepth * 32 + 32, stackDepth * 32 - 8).map(edge => ({
          ...edge,
          flags: BUILD_ID,
        })),
      ]
    case 'lpm_trie':
      return [
        ...of('valueSize', objectBytes - 256 - lpmNodeBytes + 1, MAX),
        ...of('keySize', 4, 5, 260, 261, MAX),
      ]
    case 'cpumap':
      return of('maxEntries', processors, processors + 1, MAX)
    case 'devmap_hash':
      return [...of('maxEntries', 2 ** 31 + 1, MAX), large({ maxEntries: 2 ** 31 })]
    case 'sockhash':
      return [
        ...of('keySize', 512, 513, MAX),
        ...of('maxEntries', 2 ** 27 + 1, MAX),
        { keySize: 513, maxEntries: MAX },
        { keySize: 513, valueSize: 5 },
      ]
    case 'arena':
      return [
        ...of('maxEntries', 2 ** 20, 2 ** 20 + 1, MAX),
        ...[4096, 2 ** 32 - 4096, 2 ** 32].flatMap(extra =>
          [1, 2, 2 ** 20, MAX].map(maxEntries => ({ extra, maxEntries })),
        ),
        { extra: 1, maxEntries: MAX },
      ].map(edge => ({ ...edge, flags: MMAPABLE }))
    default:
      return of('keySize', 2 ** 31, MAX)
  }
}

/** The case with sizes of its type that are at a limit. What they do not name is as it is proposed. */
export function atEdge(random: Random, lab: Lab, word: string, spec: MapSpec): MapSpec {
  if (!Object.hasOwn(MAP_SHAPES, word)) return spec
  const { large, ...edge } = random.pick(edgesOf(word, lab.kernel))
  const { keySize: _, valueSize: __, maxEntries: ___, ...rest } = spec
  // The first of two faults decides. With a 0 in it no map becomes larger.
  const wrong = random.chance(15) ? { [random.pick(['keySize', 'valueSize', 'maxEntries'])]: 0 } : {}
  const sized = { ...rest, ...edge, ...wrong }
  if (large === undefined) return sized
  if (UNPRIVILEGED_MAPS.words.has(word) && lab.machine.unprivilegedBpfDisabled === 0) return spec
  const { token: ____, ...bare } = sized
  return { ...bare, caps: 0 }
}
