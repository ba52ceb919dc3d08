/**
 * Map definitions in an object: BTF-defined ones in `.maps`, and the older structs in `maps`. Pure.
 *
 * A BTF-defined map is a variable whose type says everything: `__uint(max_entries, 8)` is a member
 * that points to an array of 8, `__type(key, u32)` one that points to the key, `__array(values,
 * ...)` an empty array whose initial contents are relocations. Source: libbpf, parse_btf_map_def.
 */
import { FormatError } from '../../errors.ts'
import type { Btf, BtfComposite, BtfDatasec, BtfMember, BtfRef } from '../btf/btf.ts'
import { type Elf, type ElfSection, type ElfSymbol, STB, STT } from '../elf/elf.ts'
import { MAP_TYPES, type MapType } from '../type-names.ts'

/** What a map's slot holds from the start: another map or a program of the same object. */
export type InitialValue =
  | { readonly index: number; readonly map: string }
  | { readonly index: number; readonly program: string }

export interface MapDefinition {
  readonly name: string
  readonly type: MapType
  readonly keyBytes: number
  readonly valueBytes: number
  readonly maxEntries: number
  /** `MAP_FLAGS` */
  readonly flags: number
  readonly extra: bigint
  readonly numaNode: number | undefined
  /** Types in the object's BTF; 0: not said. */
  readonly keyTypeId: number
  readonly valueTypeId: number
  /** LIBBPF_PIN_BY_NAME: shared by a pin under its name. */
  readonly pinByName: boolean
  /**
   * What the definition says to the loader that it was written for, and to nobody else: `is pinned
   * as 16`. Whoever loads the map has to say what it means.
   */
  readonly foreign: string | undefined
  /** The pattern for the maps in a map of maps. */
  readonly inner: MapDefinition | undefined
  readonly values: readonly InitialValue[]
}

/** A definition, and where symbols find it. */
export interface PlacedMap {
  readonly map: MapDefinition
  readonly section: number
  readonly off: number
}

const POINTER_BYTES = 8
const LINKAGE_GLOBAL = 1
const LEGACY_BYTES = 20
/** aya's definition, and that of old iproute2: behind the five numbers an id and the pinning. */
const LEGACY_PINNED_BYTES = 28
/** More than any loader put behind them: gobpf's, with a path, has 284. */
const MAX_LEGACY_BYTES = 4096
const NUMA_NODE = 4

function bad(map: string, message: string): FormatError {
  return new FormatError('BPF object', `map "${map}": ${message}`)
}

/** All maps of the section `.maps`. */
export function btfMaps(elf: Elf, section: ElfSection, btf: Btf): PlacedMap[] {
  const id = btf.find('.maps', 'datasec')[0]
  if (id === undefined) throw new FormatError('BPF object', 'section ".maps" is not described in BTF')
  const { vars } = btf.type(id) as BtfDatasec
  const placed = vars.map(({ type, off, size }) => {
    const variable = btf.type(type) as BtfRef
    if (variable.kind !== 'var' || variable.name === '')
      throw new FormatError('BPF object', `section ".maps" lists a ${variable.kind}, not a variable`)
    if (variable.linkage !== LINKAGE_GLOBAL) throw bad(variable.name, 'must be global, not static or extern')
    if (off + size > section.sizeBytes) throw bad(variable.name, 'lies outside its section')
    const struct = btf.resolve(variable.type)
    if (struct?.kind !== 'struct') throw bad(variable.name, 'is not a struct')
    if (struct.size > size) throw bad(variable.name, `is defined by ${struct.size} bytes and has ${size}`)
    return { map: definition(btf, variable.name, struct, false), struct, off, size }
  })
  const values = initialValues(elf, section, placed)
  for (const [i, { map }] of placed.entries()) map.values = values[i]!
  return placed.map(({ map, off }) => ({ map, section: section.index, off }))
}

/** What the variable of a map's definition says, by its struct. FormatError: it is no definition. */
export function mapDefinition(btf: Btf, name: string, structId: number): MapDefinition {
  const struct = btf.resolve(structId)
  if (struct?.kind !== 'struct') throw bad(name, 'is not a struct')
  return definition(btf, name, struct, false)
}

type Draft = ReturnType<typeof emptyMap>

/** What a definition says when it says nothing. */
export function emptyMap(name: string): { -readonly [K in keyof MapDefinition]: MapDefinition[K] } {
  return {
    name,
    type: 'unspec',
    keyBytes: 0,
    valueBytes: 0,
    maxEntries: 0,
    flags: 0,
    extra: 0n,
    numaNode: undefined,
    keyTypeId: 0,
    valueTypeId: 0,
    pinByName: false,
    foreign: undefined,
    inner: undefined,
    values: [],
  }
}

function definition(btf: Btf, name: string, struct: BtfComposite, isInner: boolean): Draft {
  const draft: Draft = emptyMap(name)
  const sized = (what: 'keyBytes' | 'valueBytes', bytes: number) => {
    if (draft[what] !== 0 && draft[what] !== bytes)
      throw bad(name, `${what} is both ${draft[what]} and ${bytes}`)
    draft[what] = bytes
  }
  const said = new Set<string>()
  for (const [i, member] of struct.members.entries()) {
    if (said.has(member.name)) throw bad(name, `has two members "${member.name}"`)
    said.add(member.name)
    switch (member.name) {
      case 'type':
        // One that a newer kernel has goes by its number.
        draft.type = MAP_TYPES.word(uint(btf, name, member))
        break
      case 'max_entries':
        draft.maxEntries = uint(btf, name, member)
        break
      case 'map_flags':
        draft.flags = uint(btf, name, member)
        break
      case 'numa_node':
        draft.numaNode = uint(btf, name, member)
        break
      case 'map_extra':
        draft.extra = ulong(btf, name, member)
        break
      case 'key_size':
        sized('keyBytes', uint(btf, name, member))
        break
      case 'value_size':
        sized('valueBytes', uint(btf, name, member))
        break
      case 'key':
        draft.keyTypeId = pointee(btf, name, member)
        sized('keyBytes', btf.sizeof(draft.keyTypeId))
        break
      case 'value':
        draft.valueTypeId = pointee(btf, name, member)
        sized('valueBytes', btf.sizeof(draft.valueTypeId))
        break
      case 'pinning': {
        const pinning = uint(btf, name, member)
        if (isInner) throw bad(name, 'is an inner map, which cannot be pinned')
        draft.pinByName = pinning === 1
        draft.foreign = pinning > 1 ? `is pinned as ${pinning}` : undefined
        break
      }
      case 'values':
        if (i !== struct.members.length - 1) throw bad(name, '"values" is not its last member')
        if (isInner) throw bad(name, 'is an inner map with inner maps of its own')
        sized('valueBytes', 4)
        draft.inner = innerOf(btf, draft, member)
        break
      default:
        throw bad(name, `has an unknown member "${member.name}"`)
    }
  }
  if (draft.type === 'unspec') throw bad(name, 'does not say its type')
  return draft
}

/** `__uint`: a pointer to an array of so many. */
function uint(btf: Btf, map: string, member: BtfMember): number {
  const pointer = btf.resolve(member.type)
  const array = pointer?.kind === 'ptr' ? btf.resolve(pointer.type) : undefined
  if (array?.kind !== 'array') throw bad(map, `member "${member.name}" is no __uint`)
  return array.count
}

/** `__ulong`: an enum of one value; or as `__uint`. */
function ulong(btf: Btf, map: string, member: BtfMember): bigint {
  const type = btf.resolve(member.type)
  if (type?.kind === 'ptr') return BigInt(uint(btf, map, member))
  if ((type?.kind === 'enum' || type?.kind === 'enum64') && type.values.length === 1)
    return BigInt.asUintN(64, BigInt(type.values[0]!.value))
  throw bad(map, `member "${member.name}" is no __ulong`)
}

/** `__type`: a pointer to the type. */
function pointee(btf: Btf, map: string, member: BtfMember): number {
  const pointer = btf.resolve(member.type)
  if (pointer?.kind !== 'ptr') throw bad(map, `member "${member.name}" is no __type`)
  return pointer.type
}

/** What `__array(values, ...)` is of: the pattern for inner maps; undefined: programs. */
function innerOf(btf: Btf, outer: Draft, member: BtfMember): MapDefinition | undefined {
  const array = btf.resolve(member.type)
  const pointer = array?.kind === 'array' && array.count === 0 ? btf.resolve(array.type) : undefined
  const type = pointer?.kind === 'ptr' ? btf.resolve(pointer.type) : undefined
  if (outer.type === 'prog_array' && type?.kind === 'func_proto') return undefined
  if ((outer.type === 'array_of_maps' || outer.type === 'hash_of_maps') && type?.kind === 'struct')
    return definition(btf, `${outer.name}.inner`, type, true)
  throw bad(outer.name, `"values" do not fit a map of type ${outer.type}`)
}

interface Located {
  readonly map: Draft
  readonly struct: BtfComposite
  readonly off: number
  readonly size: number
}

/** Relocations in `.maps` are the initial contents of the slots of "values". */
function initialValues(elf: Elf, section: ElfSection, placed: readonly Located[]): InitialValue[][] {
  const values: InitialValue[][] = placed.map(() => [])
  const byStart = placed.map((_, i) => i).sort((a, b) => placed[a]!.off - placed[b]!.off)
  for (const { off, symbol } of elf.relocations.get(section.index) ?? []) {
    const i = lastAtOrBefore(byStart, at => placed[at]!.off, off)
    const owner = i === undefined ? undefined : placed[i]!
    if (owner === undefined || off + POINTER_BYTES > owner.off + owner.size)
      throw new FormatError('BPF object', 'relocation in ".maps" is in no map', { off })
    const last = owner.struct.members.at(-1)
    const index = (off - owner.off - (last?.bitOff ?? 0) / 8) / POINTER_BYTES
    if (last?.name !== 'values' || index < 0 || !Number.isInteger(index))
      throw bad(owner.map.name, 'has a relocation outside its "values"')
    values[i!]!.push(valueFrom(owner.map, index, elf.symbols[symbol]!, section))
  }
  return values
}

function valueFrom(map: MapDefinition, index: number, symbol: ElfSymbol, maps: ElfSection): InitialValue {
  if (map.type === 'prog_array') {
    if (symbol.type !== STT.FUNC) throw bad(map.name, `value ${index} is no program`)
    return { index, program: symbol.name }
  }
  if (symbol.section !== maps.index || symbol.name === '') throw bad(map.name, `value ${index} is no map`)
  return { index, map: symbol.name }
}

/** Of items in ascending order of `start`, the last one that starts at or before `at`. */
export function lastAtOrBefore<T>(
  sorted: readonly T[],
  start: (item: T) => number,
  at: number,
): T | undefined {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (start(sorted[middle]!) <= at) low = middle + 1
    else high = middle
  }
  return sorted[low - 1]
}

/** Whether a section holds maps as libbpf before 1.0 and gobpf (`maps/NAME`) had them. */
export function isLegacyMaps(name: string): boolean {
  return name === 'maps' || name.startsWith('maps/')
}

/** Symbols of such maps, by the numbers of their sections. */
export function legacySymbols(elf: Elf): ReadonlyMap<number, readonly ElfSymbol[]> {
  const found = new Map<number, ElfSymbol[]>()
  for (const symbol of elf.symbols) {
    const { section, type, bind } = symbol
    if (type !== STT.OBJECT && (type !== STT.NOTYPE || bind === STB.LOCAL)) continue
    const known = found.get(section)
    if (known === undefined) found.set(section, [symbol])
    else known.push(symbol)
  }
  return found
}

/**
 * Maps of a section `maps`: for each of its `symbols` a struct bpf_map_def of five numbers. Loaders
 * put more behind them, each of its own: zeros mean nothing, and of aya's the pinning is understood.
 */
export function legacyMaps(
  elf: Elf,
  section: ElfSection,
  symbols: readonly ElfSymbol[] | undefined,
): PlacedMap[] {
  if (symbols === undefined) return []
  const stride = section.data.length / symbols.length
  const view = new DataView(section.data.buffer, section.data.byteOffset, section.data.length)
  return symbols.map(({ name, value: off, sizeBytes }) => {
    const bytes = sizeBytes === 0 ? stride : sizeBytes
    if (name === '') throw new FormatError('BPF object', `section "${section.name}" has a map without name`)
    const fits = off + bytes <= section.data.length && bytes <= MAX_LEGACY_BYTES
    if (!Number.isInteger(bytes) || bytes < LEGACY_BYTES - 4 || !fits)
      throw bad(name, `${bytes} bytes at ${off} are no definition in a section of ${section.data.length}`)
    const word = (n: number) => (n * 4 + 4 <= bytes ? view.getUint32(off + n * 4, elf.littleEndian) : 0)
    const flags = word(4)
    const pinByName =
      bytes === LEGACY_PINNED_BYTES && (flags & NUMA_NODE) === 0 && word(5) === 0 && word(6) === 1
    const end = section.data.subarray(off + LEGACY_BYTES, off + bytes)
    const map: MapDefinition = {
      ...emptyMap(name),
      ...{ type: MAP_TYPES.word(word(0)), keyBytes: word(1), valueBytes: word(2), maxEntries: word(3) },
      ...{ flags, pinByName },
      foreign:
        pinByName || end.every(byte => byte === 0)
          ? undefined
          : `has a definition of ${bytes} bytes with ${wordsIn(end, elf.littleEndian)}`,
    }
    return { map, section: section.index, off }
  })
}

/** The numbers of a definition's end, for people: `0, 2`. */
function wordsIn(end: Uint8Array, littleEndian: boolean): string {
  const shown = 4
  const view = new DataView(end.buffer, end.byteOffset, end.length)
  const words = Array.from({ length: Math.min(shown, end.length >> 2) }, (_, i) =>
    view.getUint32(i * 4, littleEndian),
  )
  return `${words.join(', ')}${end.length > shown * 4 ? ', ...' : ''} at its end`
}
