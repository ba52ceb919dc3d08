/** Stage three of loading an object, first half: its maps, made in the kernel and filled. */
import { ConflictError, NotFoundError, SyscallError } from '../../errors.ts'
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
const PAGE_BYTES = 4096

/** Makes all maps that are wanted, by name. What was made is owned by `owned`. */
export function makeMaps(making: MapMaking, owned: Owned): Map<string, BpfMap> {
  const { spec, choices } = making
  for (const name of Object.keys(choices))
    if (!spec.maps.some(map => map.name === name)) throw noSuchMap(spec, name)
  const maps = new Map<string, BpfMap>()
  for (const map of spec.maps) {
    const choice = choices[map.name] ?? {}
    if (choice.use !== undefined) maps.set(map.name, choice.use)
    else if (choice.create ?? map.autocreate) maps.set(map.name, owned.add(makeMap(map, choice, making)))
  }
  for (const { name, values } of spec.maps) {
    const outer = maps.get(name)
    // A map that was there before keeps what it holds.
    if (outer === undefined || choices[name]?.use !== undefined) continue
    for (const value of values) {
      if (!('map' in value)) continue
      const inner = maps.get(value.map)
      if (inner !== undefined) outer.updateFd(value.index, inner)
    }
  }
  return maps
}

function noSuchMap(spec: ObjectSpec, name: string): NotFoundError {
  return new NotFoundError(`The object has no map "${name}"`, {
    context: { map: name },
    hint: `It has: ${spec.maps.map(map => map.name).join(', ') || 'none'}`,
  })
}

function makeMap(map: ObjectMap, choice: MapChoice, making: MapMaking): BpfMap {
  const pin = map.pinByName ? `${making.pinRoot ?? DEFAULT_BPFFS}/${map.name}` : undefined
  const pinned = pin === undefined ? undefined : openPinned(pin, map)
  if (pinned !== undefined) return pinned
  const made = create(map, choice, making)
  try {
    fill(made, map, choice, making)
    if (pin !== undefined) made.pin(pin)
    return made
  } catch (error) {
    made.close()
    throw error
  }
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
  const same =
    found.type === map.type &&
    found.keyBytes === map.keyBytes &&
    found.valueBytes === map.valueBytes &&
    found.maxEntries === entriesOf(map, {})
  if (same) return found
  const { type, keyBytes, valueBytes, maxEntries } = found
  found.close()
  throw new ConflictError(`The map pinned at ${path} is not the one that the object declares`, {
    context: { path, type, keyBytes, valueBytes, maxEntries },
    hint: 'Remove the pin, or pin the maps of this object elsewhere',
  })
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
    if (btf === undefined || (error as SyscallError).errnoName === 'EPERM') throw error
    try {
      return BpfMap.create(plain)
    } catch {
      throw error
    }
  }
}

function specOf(map: MapDefinition, choice: MapChoice, { btf, token }: MapMaking): MapSpec {
  const typed =
    btf !== undefined && (map.keyTypeId !== 0 || map.valueTypeId !== 0) && !WITHOUT_BTF.includes(map.type)
  return {
    type: map.type,
    keyBytes: map.keyBytes,
    valueBytes: map.valueBytes,
    maxEntries: entriesOf(map, choice),
    flags: map.flags,
    extra: map.extra,
    name: map.name,
    token,
    ...(map.numaNode === undefined ? {} : { numaNode: map.numaNode }),
    ...(typed ? { btf: { object: btf, keyTypeId: map.keyTypeId, valueTypeId: map.valueTypeId } } : {}),
  }
}

const NAME_CHARS = 15
const MIN_SUFFIX_CHARS = 7

/**
 * As libbpf names them, so that tools find them: as much of the object's name as fits before
 * `.rodata`.
 */
function dataName(object: string, section: string): string {
  const room = NAME_CHARS - Math.min(NAME_CHARS, Math.max(MIN_SUFFIX_CHARS, section.length))
  return object.slice(0, room) + section
}

function fill(made: BpfMap, map: ObjectMap, choice: MapChoice, { kconfig }: MapMaking): void {
  if (map.kind === 'declared' || map.kind === 'struct_ops') return
  const contents = choice.contents ?? (map.kind === 'kconfig' ? kconfig : map.contents)
  if (contents !== undefined) made.update(0, contents)
  if ((map.flags & bpf_map_flags.BPF_F_RDONLY_PROG) !== 0) made.freeze()
}
