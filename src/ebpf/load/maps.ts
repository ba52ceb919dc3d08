/** Stage three of loading an object, first half: its maps, made in the kernel and filled. */
import { ConflictError, InputError, NotFoundError, NotSupportedError, SyscallError } from '../../errors.ts'
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
  /**
   * Taken instead of a new one, if it is like what the object declares: type, sizes, entries,
   * flags, extra. Its owner stays who it was.
   */
  readonly use?: BpfMap
  readonly maxEntries?: number
  /** `MAP_FLAGS`, instead of those of its definition; not for global data. */
  readonly flags?: number
  /** Global data: what it holds from the start. */
  readonly contents?: Uint8Array
  /**
   * Whether it is shared by a pin, under its name or at a path in a bpffs, whatever its definition
   * says. A map that is pinned there already is taken, if it is like what the object declares.
   * Wanted where the definition says something that only another loader understands.
   */
  readonly pin?: 'by-name' | 'none' | { readonly path: string }
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
  /** Contents of global data that the caller set variables in. */
  readonly initial: ReadonlyMap<string, Uint8Array>
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
  for (const declared of spec.maps) {
    const choice = choices[declared.name] ?? {}
    const map = asChosen(declared, choice)
    if (choice.use !== undefined) {
      requireAlike(map, choice.use)
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

/** The map as the caller wants it. InputError: a number that no map can have. */
function asChosen(map: ObjectMap, { maxEntries, flags }: MapChoice): ObjectMap {
  if (maxEntries === undefined && flags === undefined) return map
  const isData = map.kind !== 'declared' && map.kind !== 'struct_ops'
  if (flags !== undefined && isData)
    throw new InputError(`The flags of map "${map.name}" follow from its section`, {
      context: { map: map.name, flags },
      hint: 'Choose flags for maps that the program declares',
    })
  return {
    ...map,
    maxEntries: wordOf(map.name, 'maxEntries', maxEntries) ?? map.maxEntries,
    flags: wordOf(map.name, 'flags', flags) ?? map.flags,
  }
}

const MAX_U32 = 0xffff_ffff

/** Fail closed: the kernel would see another number. */
function wordOf(map: string, what: string, value: number | undefined): number | undefined {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value <= MAX_U32)) return value
  throw new InputError(`Map "${map}": ${what} takes 0 to ${MAX_U32}, not ${value}`, {
    context: { map, [what]: value },
  })
}

/** ConflictError: it is another map than the object declares, and how. */
function requireAlike(map: ObjectMap, use: BpfMap): void {
  // The kernel gives maps of struct_ops the size that its own struct has.
  if (map.kind === 'struct_ops') return
  const differences = differencesOf(map, use)
  if (differences.length === 0) return
  throw new ConflictError(
    `The map that was handed in for "${map.name}" is not the one that the object declares${told(differences)}`,
    {
      context: { map: map.name, id: use.info().id },
      hint: 'Hand in one that is alike, or choose maxEntries and flags as it has them',
    },
  )
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
    const differences = differencesOf(map.inner, inner).filter(
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
function differencesOf(map: MapDefinition, found: BpfMap): Difference[] {
  const { flags, extra } = found.info()
  // The kernel sets it in these by itself.
  const own = map.type === 'devmap' || map.type === 'devmap_hash' ? bpf_map_flags.BPF_F_RDONLY_PROG : 0
  const numa = map.numaNode === undefined ? 0 : bpf_map_flags.BPF_F_NUMA_NODE
  const { keyBytes, valueBytes } = sizesOf(map)
  const all: Difference[] = [
    { what: 'type', wanted: map.type, found: found.type },
    { what: 'keyBytes', wanted: keyBytes, found: found.keyBytes },
    { what: 'valueBytes', wanted: valueBytes, found: found.valueBytes },
    { what: 'maxEntries', wanted: entriesOf(map), found: found.maxEntries },
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
  const pin = pinOf(map, choice, making.pinRoot)
  const pinned = pin === undefined ? undefined : openPinned(pin, map)
  if (pinned !== undefined) {
    if (!making.initial.has(map.name)) return { made: pinned, found: true }
    pinned.close()
    // Fail closed: what is set must reach the programs.
    throw new ConflictError(`The variables of "${map.name}" cannot be set: its map is pinned already`, {
      context: { map: map.name, path: pin },
      hint: 'Leave the values out, or remove the pin',
    })
  }
  const made = create(map, making)
  try {
    fill(made, map, choice, making)
    if (pin !== undefined) made.pin(pin)
    return { made, found: false }
  } catch (error) {
    made.close()
    throw error
  }
}

/**
 * Where it is pinned; undefined: nowhere. NotSupportedError: its definition says something that
 * only another loader understands.
 */
function pinOf(
  { name, pinByName, foreign }: ObjectMap,
  { pin }: MapChoice,
  pinRoot = DEFAULT_BPFFS,
): string | undefined {
  if (typeof pin === 'object') return pin.path
  const byName = `${pinRoot}/${name}`
  if (pin !== undefined) return pin === 'by-name' ? byName : undefined
  if (foreign === undefined) return pinByName ? byName : undefined
  throw new NotSupportedError(`Map "${name}" ${foreign}, which means something to another loader alone`, {
    context: { map: name },
    hint: 'Say when loading whether it is pinned by its name or not at all',
  })
}

/** The map that is pinned there already; undefined: none is. ConflictError: it is another one. */
function openPinned(path: string, map: ObjectMap): BpfMap | undefined {
  let found: BpfMap
  try {
    found = BpfMap.open(path)
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENOENT') return undefined
    throw error
  }
  const differences = differencesOf(map, found)
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

function entriesOf(map: MapDefinition): number {
  const wanted = map.maxEntries
  if (map.type === 'perf_event_array' && wanted === 0) return possibleCpus()
  // The kernel wants whole pages, a power of two of them.
  if (RING_BUFFERS.includes(map.type) && wanted > 0)
    return PAGE_BYTES * 2 ** Math.max(0, Math.ceil(Math.log2(wanted / PAGE_BYTES)))
  return wanted
}

function create(map: ObjectMap, making: MapMaking): BpfMap {
  const structOps = making.structOps.get(map.name)
  const module = making.structOpsBtf.get(map.name)
  // Until it is used as the pattern of its outer map, no longer.
  using inner = map.inner && createFrom(specOf(map.inner, making))
  const spec: MapSpec = {
    ...specOf(map, making),
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

function specOf(map: MapDefinition, { btf, token, warn }: MapMaking): MapSpec {
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
    maxEntries: entriesOf(map),
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

function fill(made: BpfMap, map: ObjectMap, choice: MapChoice, { kconfig, initial }: MapMaking): void {
  if (map.kind === 'declared' || map.kind === 'struct_ops') return
  const contents =
    initial.get(map.name) ?? choice.contents ?? (map.kind === 'kconfig' ? kconfig : map.contents)
  if (contents !== undefined) made.update(0, contents)
  if ((map.flags & bpf_map_flags.BPF_F_RDONLY_PROG) !== 0) made.freeze()
}
