/** Stage three of loading an object, first half: its maps, made in the kernel and filled. */
import { ConflictError, NotFoundError, NotSupportedError, SyscallError } from '../../errors.ts'
import { bpf_map_flags } from '../../uapi/bpf.ts'
import type { BtfObject } from '../btf/object.ts'
import { BpfMap, type MapSpec } from '../map.ts'
import type { MapDefinition } from '../object/map-def.ts'
import type { ObjectMap, ObjectSpec } from '../object/spec.ts'
import type { Owned } from '../owned.ts'
import { possibleCpus } from '../per-cpu.ts'
import { DEFAULT_BPFFS, type Token } from '../token.ts'
import type { MapType } from '../type-names.ts'
import type { StructOpsValue } from './struct-ops-value.ts'

/** What a loader may change about one map. */
export interface MapChoice {
  /** False: not made; programs that use it cannot be loaded. */
  readonly create?: boolean
  /** Taken instead of a new one. Its owner stays who it was. */
  readonly use?: BpfMap
  readonly maxEntries?: number
  /** Global data: what it holds from the start. */
  readonly contents?: Uint8Array
  /**
   * Whether it is shared by a pin under its name, whatever its definition says. Wanted where that
   * says something that only another loader understands.
   */
  readonly pin?: 'by-name' | 'none'
}

export interface MapMaking {
  readonly spec: ObjectSpec
  readonly choices: Readonly<Record<string, MapChoice>>
  /** The object's types in the kernel; undefined: it has none. */
  readonly btf: BtfObject | undefined
  readonly token: Token | null
  /** Where maps that say so are pinned by name. */
  readonly pinRoot: string | undefined
  /** Contents of `.kconfig`. */
  readonly kconfig: Uint8Array | undefined
  readonly structOps: ReadonlyMap<string, StructOpsValue>
  /** The module that a struct_ops map's type is of. */
  readonly structOpsBtf: ReadonlyMap<string, BtfObject>
  readonly warn: (warning: string) => void
}

export interface MadeMaps {
  readonly maps: ReadonlyMap<string, BpfMap>
  /** Those that were there before, and hold what they held. */
  readonly reused: ReadonlySet<string>
}

/** Types for which the kernel takes no types of key and value (libbpf, bpf_object__create_map). */
const WITHOUT_BTF: readonly MapType[] = [
  ...([
    'perf_event_array',
    'cgroup_array',
    'stack_trace',
    'array_of_maps',
    'hash_of_maps',
    'devmap',
  ] as const),
  ...([
    'devmap_hash',
    'cpumap',
    'xskmap',
    'sockmap',
    'sockhash',
    'queue',
    'stack',
    'arena',
    'struct_ops',
  ] as const),
]
const RING_BUFFERS: readonly MapType[] = ['ringbuf', 'user_ringbuf']
const OF_MAPS: readonly MapType[] = ['array_of_maps', 'hash_of_maps']
const PAGE_BYTES = 4096

/** Makes all maps that are wanted, by name. What was made is owned by `owned`. */
export function makeMaps(making: MapMaking, owned: Owned): MadeMaps {
  const { spec, choices } = making
  for (const name of Object.keys(choices))
    if (!spec.maps.some(map => map.name === name)) throw noSuchMap(spec, name)
  const maps = new Map<string, BpfMap>()
  const reused = new Set<string>()
  for (const map of spec.maps) {
    const choice = choices[map.name] ?? {}
    if (choice.use !== undefined) {
      maps.set(map.name, choice.use)
      reused.add(map.name)
    } else if (choice.create ?? map.autocreate) {
      const { made, found } = makeMap(map, choice, making)
      maps.set(map.name, owned.add(made))
      if (found) reused.add(map.name)
    }
  }
  for (const map of spec.maps) {
    const outer = maps.get(map.name)
    // A map that was there before keeps what it holds.
    if (outer === undefined || reused.has(map.name)) continue
    for (const value of map.values) {
      const inner = 'map' in value ? maps.get(value.map) : undefined
      if (inner !== undefined) putInto(outer, map, value.index, inner, 'map' in value ? value.map : '')
    }
  }
  return { maps, reused }
}

/** ConflictError: the inner map is not like the pattern, and how. */
function putInto(outer: BpfMap, map: ObjectMap, index: number, inner: BpfMap, name: string): void {
  try {
    outer.updateFd(index, inner)
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errnoName !== 'EINVAL' || map.inner === undefined)
      throw error
    // The kernel lets entries differ where the pattern says so: BPF_F_INNER_MAP.
    const loose = (map.inner.flags & bpf_map_flags.BPF_F_INNER_MAP) !== 0
    const differences = differencesOf(map.inner, inner, {}).filter(
      ({ what }) => !(loose && what === 'maxEntries'),
    )
    throw new ConflictError(
      `Map "${name}" cannot be put into "${map.name}": it is not like the pattern for the maps in there${told(differences)}`,
      {
        cause: error,
        context: { map: map.name, index, inner: name },
        hint: 'Declare both alike: type, sizes, flags, and special fields such as locks; entries too, without BPF_F_INNER_MAP',
      },
    )
  }
}

interface Difference {
  readonly what: string
  readonly wanted: string | number | bigint
  readonly found: string | number | bigint
}

/** Where a map is not as declared, as libbpf compares them (map_is_reuse_compat). */
function differencesOf(map: MapDefinition, found: BpfMap, choice: MapChoice): Difference[] {
  const { flags, extra } = found.info()
  // The kernel sets it in these by itself.
  const own = map.type === 'devmap' || map.type === 'devmap_hash' ? bpf_map_flags.BPF_F_RDONLY_PROG : 0
  const numa = map.numaNode === undefined ? 0 : bpf_map_flags.BPF_F_NUMA_NODE
  const { keyBytes, valueBytes } = sizesOf(map)
  const all: Difference[] = [
    { what: 'type', wanted: map.type, found: found.type },
    { what: 'keyBytes', wanted: keyBytes, found: found.keyBytes },
    { what: 'valueBytes', wanted: valueBytes, found: found.valueBytes },
    { what: 'maxEntries', wanted: entriesOf(map, choice), found: found.maxEntries },
    { what: 'flags', wanted: map.flags | numa, found: flags & ~(own & ~map.flags) },
    { what: 'extra', wanted: map.extra, found: extra },
  ]
  return all.filter(({ wanted, found }) => wanted !== found)
}

function told(differences: readonly Difference[]): string {
  if (differences.length === 0) return ''
  return `: ${differences.map(({ what, wanted, found }) => `${what} is ${found}, not ${wanted}`).join(', ')}`
}

function noSuchMap(spec: ObjectSpec, name: string): NotFoundError {
  return new NotFoundError(`The object has no map "${name}"`, {
    context: { map: name },
    hint: `It has: ${spec.maps.map(map => map.name).join(', ') || 'none'}`,
  })
}

function makeMap(map: ObjectMap, choice: MapChoice, making: MapMaking): { made: BpfMap; found: boolean } {
  const pin = isPinned(map, choice) ? `${making.pinRoot ?? DEFAULT_BPFFS}/${map.name}` : undefined
  const pinned = pin === undefined ? undefined : openPinned(pin, map, choice)
  if (pinned !== undefined) return { made: pinned, found: true }
  const made = create(map, choice, making)
  try {
    fill(made, map, choice, making)
    if (pin !== undefined) made.pin(pin)
    return { made, found: false }
  } catch (error) {
    made.close()
    throw error
  }
}

/** NotSupportedError: its definition says something that only another loader understands. */
function isPinned({ name, pinByName, foreign }: ObjectMap, { pin }: MapChoice): boolean {
  if (pin !== undefined) return pin === 'by-name'
  if (foreign === undefined) return pinByName
  throw new NotSupportedError(`Map "${name}" ${foreign}, which means something to another loader alone`, {
    context: { map: name },
    hint: 'Say when loading whether it is pinned by its name or not at all',
  })
}

/** The map that is pinned there already; undefined: none is. ConflictError: it is another one. */
function openPinned(path: string, map: ObjectMap, choice: MapChoice): BpfMap | undefined {
  let found: BpfMap
  try {
    found = BpfMap.open(path)
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENOENT') return undefined
    throw error
  }
  const differences = differencesOf(map, found, choice)
  if (differences.length === 0) return found
  const { type, keyBytes, valueBytes, maxEntries } = found
  found.close()
  throw new ConflictError(
    `The map pinned at ${path} is not the one that the object declares${told(differences)}`,
    {
      context: { path, type, keyBytes, valueBytes, maxEntries },
      hint: 'Remove the pin, or pin the maps of this object elsewhere',
    },
  )
}

function entriesOf(map: MapDefinition, choice: MapChoice): number {
  const wanted = choice.maxEntries ?? map.maxEntries
  if (map.type === 'perf_event_array' && wanted === 0) return possibleCpus()
  // The kernel wants whole pages, a power of two of them.
  if (RING_BUFFERS.includes(map.type) && wanted > 0)
    return PAGE_BYTES * 2 ** Math.max(0, Math.ceil(Math.log2(wanted / PAGE_BYTES)))
  return wanted
}

function create(map: ObjectMap, choice: MapChoice, making: MapMaking): BpfMap {
  const structOps = making.structOps.get(map.name)
  const module = making.structOpsBtf.get(map.name)
  // Until it is used as the pattern of its outer map, no longer.
  using inner = map.inner && createFrom(specOf(map.inner, {}, making))
  const spec: MapSpec = {
    ...specOf(map, choice, making),
    name:
      map.kind === 'declared' || map.kind === 'struct_ops' ? map.name : dataName(making.spec.name, map.name),
    ...(inner === undefined ? {} : { innerMap: inner }),
    ...(structOps === undefined
      ? {}
      : {
          vmlinuxValueTypeId: structOps.valueId,
          valueBytes: structOps.valueBytes,
          // No type of ours is meant, but the kernel wants some types.
          ...(making.btf === undefined ? {} : { btf: { object: making.btf, keyTypeId: 0, valueTypeId: 0 } }),
        }),
    ...(module === undefined ? {} : { vmlinuxValueTypeBtf: module }),
  }
  return createFrom(spec)
}

/**
 * Types of key and value are a gift to whoever looks at the map: without them it works as well,
 * mostly.
 */
function createFrom(spec: MapSpec): BpfMap {
  try {
    return BpfMap.create(spec)
  } catch (error) {
    const { btf, ...plain } = spec
    const isNumber = typeof spec.type === 'string' && /^\d+$/.test(spec.type)
    if (isNumber && error instanceof SyscallError && error.errnoName === 'EINVAL')
      throw withHint(error, `Map type ${spec.type} is newer than bpftoken, and this kernel may not have it`)
    if (
      OF_MAPS.includes(spec.type as MapType) &&
      spec.innerMap === undefined &&
      error instanceof SyscallError
    )
      throw error.errnoName === 'EPERM'
        ? error
        : withHint(error, 'Its definition has no pattern for the maps in it: __array(values, ...)')
    if (btf === undefined || (error as SyscallError).errnoName === 'EPERM') throw error
    try {
      return BpfMap.create(plain)
    } catch {
      throw error
    }
  }
}

function withHint({ call, op, errno, errnoName, context }: SyscallError, hint: string): SyscallError {
  const object = context['object']
  return new SyscallError(
    { call, op, errno, errnoName, ...(typeof object === 'string' ? { object } : {}) },
    { context, hint },
  )
}

function specOf(map: MapDefinition, choice: MapChoice, { btf, token, warn }: MapMaking): MapSpec {
  const sizes = sizesOf(map)
  if (sizes.dropped !== undefined) warn(`Map "${map.name}": ${sizes.dropped}`)
  const typed =
    btf !== undefined &&
    (map.keyTypeId !== 0 || map.valueTypeId !== 0) &&
    !WITHOUT_BTF.includes(map.type) &&
    sizes.dropped === undefined
  return {
    type: map.type,
    keyBytes: sizes.keyBytes,
    valueBytes: sizes.valueBytes,
    maxEntries: entriesOf(map, choice),
    flags: map.flags,
    extra: map.extra,
    name: map.name,
    token,
    ...(map.numaNode === undefined ? {} : { numaNode: map.numaNode }),
    ...(typed ? { btf: { object: btf, keyTypeId: map.keyTypeId, valueTypeId: map.valueTypeId } } : {}),
  }
}

/**
 * Sizes as the kernel takes them. Ring buffers have no keys and values, and perf event arrays have
 * descriptors: where authors say the type of their events there, that is for tools, and cilium/ebpf
 * drops it too.
 */
function sizesOf({ type, keyBytes, valueBytes }: MapDefinition): {
  keyBytes: number
  valueBytes: number
  dropped?: string
} {
  const isRing = RING_BUFFERS.includes(type)
  if (!isRing && type !== 'perf_event_array') return { keyBytes, valueBytes }
  const size = isRing ? 0 : 4
  if (keyBytes === size && valueBytes === size) return { keyBytes, valueBytes }
  return {
    ...{ keyBytes: size, valueBytes: size },
    dropped: `a ${type} has no ${isRing ? 'keys and values' : 'keys and values but numbers and descriptors'}: their types were dropped`,
  }
}

const NAME_CHARS = 15
const MIN_SUFFIX_CHARS = 7

/**
 * As libbpf names them, so that tools find them: as much of the object's name as fits before
 * `.rodata`.
 */
function dataName(object: string, section: string): string {
  // One that the author named goes by that name alone.
  if (section.includes('.', 1)) return section.slice(0, NAME_CHARS)
  const room = NAME_CHARS - Math.min(NAME_CHARS, Math.max(MIN_SUFFIX_CHARS, section.length))
  return object.slice(0, room) + section
}

function fill(made: BpfMap, map: ObjectMap, choice: MapChoice, { kconfig }: MapMaking): void {
  if (map.kind === 'declared' || map.kind === 'struct_ops') return
  const contents = choice.contents ?? (map.kind === 'kconfig' ? kconfig : map.contents)
  if (contents !== undefined) made.update(0, contents)
  if ((map.flags & bpf_map_flags.BPF_F_RDONLY_PROG) !== 0) made.freeze()
}
