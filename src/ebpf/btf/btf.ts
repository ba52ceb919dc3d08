/**
 * BTF reader: the kernel's type information, from bytes to types. Pure.
 *
 * Opening scans the type section once and keeps one offset per type; types and strings are decoded
 * when asked for, since /sys/kernel/btf/vmlinux has some 130,000 of them and callers want a few.
 * Anything malformed is a FormatError, at the latest when it is asked for; memory is bounded by the
 * input. Layout: include/uapi/linux/btf.h and Documentation/bpf/btf.rst. Start with `Btf.parse`, or
 * with `findEnums` where start-up time counts.
 */
import { FormatError } from '../../errors.ts'
import { BtfNames, BtfStrings } from './names.ts'

// biome-ignore format: a table
/** BTF_KIND_*: the number is in bits 24 and up of a type's info word. */
export const BTF_KIND = {
  int: 1, ptr: 2, array: 3, struct: 4, union: 5, enum: 6, fwd: 7,
  typedef: 8, volatile: 9, const: 10, restrict: 11, func: 12, func_proto: 13, var: 14,
  datasec: 15, float: 16, decl_tag: 17, type_tag: 18, enum64: 19,
} as const

export type BtfKind = keyof typeof BTF_KIND

/** A field of a struct or union. `bitSize` is 0 unless it is a bit field. */
export interface BtfMember {
  readonly name: string
  readonly type: number
  readonly bitOff: number
  readonly bitSize: number
}

interface Head<K extends BtfKind> {
  readonly id: number
  readonly kind: K
  /** Empty for anonymous types. */
  readonly name: string
}

export interface BtfInt extends Head<'int'> {
  readonly size: number
  readonly signed: boolean
  readonly char: boolean
  readonly bool: boolean
  readonly bitOff: number
  readonly bits: number
}
/** Types that only point to, or qualify, another one. Type 0 is void. */
export interface BtfRef
  extends Head<
    'ptr' | 'typedef' | 'volatile' | 'const' | 'restrict' | 'type_tag' | 'func' | 'var' | 'decl_tag'
  > {
  readonly type: number
  /** `func` and `var`: 0 static, 1 global, 2 extern. */
  readonly linkage?: number
  /** `decl_tag`: the member or parameter that is tagged, or -1 for the type itself. */
  readonly component?: number
}
export type BtfArray = Head<'array'> & {
  readonly type: number
  readonly index: number
  readonly count: number
}
export type BtfComposite = Head<'struct' | 'union'> & {
  readonly size: number
  readonly members: readonly BtfMember[]
}
interface Enum<K extends BtfKind, V> extends Head<K> {
  readonly size: number
  readonly signed: boolean
  readonly values: readonly { readonly name: string; readonly value: V }[]
}
export type BtfEnum = Enum<'enum', number>
export type BtfEnum64 = Enum<'enum64', bigint>
export type BtfFwd = Head<'fwd'> & { readonly union: boolean }
/** `type` is the result's. A last parameter without name and with type 0 means "...". */
export interface BtfFuncProto extends Head<'func_proto'> {
  readonly type: number
  readonly params: readonly { readonly name: string; readonly type: number }[]
}
export interface BtfDatasec extends Head<'datasec'> {
  readonly size: number
  readonly vars: readonly { readonly type: number; readonly off: number; readonly size: number }[]
}
export type BtfFloat = Head<'float'> & { readonly size: number }
// biome-ignore format: one line says it
export type BtfType = BtfInt | BtfRef | BtfArray | BtfComposite | BtfEnum | BtfEnum64 | BtfFwd | BtfFuncProto | BtfDatasec | BtfFloat

const MAGIC = 0xeb9f
const MIN_HEADER_BYTES = 24
const HEAD_WORDS = 3
/**
 * As the kernel's MAX_RESOLVE_DEPTH: longer chains of modifiers and arrays do not occur, cycles do.
 */
const MAX_DEPTH = 32
/** Parts of a type (members, values, parameters) from which on decoding it twice would count. */
const LARGE = 16

const KIND_NAMES = ['void', ...Object.keys(BTF_KIND)] as BtfKind[]
// 32-bit words after a type's head: a fixed part, and one part per unit of vlen. FUNC keeps its
// linkage in vlen, so its per-unit part is 0.
//                   void int ptr arr str uni enu fwd tdf vol con res fun pro var sec flo dec tag e64
const FIXED_WORDS = [0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]
const UNIT_WORDS = [0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3]

// Bits 16-23 and 29-30 of info are reserved and zero. Read as part of the number beside them, a set
// bit makes a type that cannot exist, and is refused with no check of its own.
// BTF_INT_*, in the word after the head of an int.
const INT_SIGNED = 1 << 24
const INT_CHAR = 1 << 25
const INT_BOOL = 1 << 26

const KIND_MASK = 0x7f
const VLEN_MASK = 0xffffff
const kindOf = (info: number) => (info >>> 24) & KIND_MASK
const vlenOf = (info: number) => info & VLEN_MASK

interface Sections {
  readonly words: Uint32Array
  readonly strings: Buffer
  /** Byte offset of the type section in the input, for messages. */
  readonly typesOff: number
}

function bad(message: string, off?: number): FormatError {
  return new FormatError('BTF', message, off === undefined ? {} : { off })
}

/**
 * Checks the header and cuts out the two sections. `split`: continues another blob, whose strings
 * it may use alone.
 */
function sections(bytes: Uint8Array, split = false): Sections {
  if (bytes.length < MIN_HEADER_BYTES) {
    throw bad(`${bytes.length} bytes are too few for a header of ${MIN_HEADER_BYTES}`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const magic = view.getUint16(0, true)
  if (magic === 0x9feb) throw bad('written in big-endian byte order, which is not supported', 0)
  if (magic !== MAGIC) throw bad(`magic is 0x${magic.toString(16)}, not 0x${MAGIC.toString(16)}`, 0)
  if (view.getUint8(2) !== 1) throw bad(`version ${view.getUint8(2)} is not known, only 1`, 2)

  const headerBytes = view.getUint32(4, true)
  const typesOff = headerBytes + view.getUint32(8, true)
  const typesBytes = view.getUint32(12, true)
  const stringsOff = headerBytes + view.getUint32(16, true)
  const stringsBytes = view.getUint32(20, true)
  if (headerBytes < MIN_HEADER_BYTES || headerBytes > bytes.length) {
    throw bad(`header length ${headerBytes} is impossible`, 4)
  }
  if (typesOff + typesBytes > bytes.length) throw bad('type section runs past the end', 8)
  if (stringsOff + stringsBytes > bytes.length) throw bad('string section runs past the end', 16)
  if (typesBytes % 4 !== 0) throw bad(`type section of ${typesBytes} bytes is not whole words`, 12)

  const strings = Buffer.from(bytes.buffer, bytes.byteOffset + stringsOff, stringsBytes)
  const ended = strings.length === 0 ? split : strings[strings.length - 1] === 0
  if (!ended || (!split && strings[0] !== 0)) {
    throw bad('string section does not start and end with a zero byte', stringsOff)
  }
  const start = bytes.byteOffset + typesOff
  const words =
    start % 4 === 0
      ? new Uint32Array(bytes.buffer, start, typesBytes / 4)
      : new Uint32Array(copyOf(bytes, typesOff, typesBytes))
  return { words, strings, typesOff }
}

function isModifier(kind: number): boolean {
  return (
    kind === BTF_KIND.typedef ||
    kind === BTF_KIND.const ||
    kind === BTF_KIND.volatile ||
    kind === BTF_KIND.restrict ||
    kind === BTF_KIND.type_tag
  )
}

/** Bytes at the start of a buffer of their own. A Buffer's slice() would share its memory. */
function copyOf(bytes: Uint8Array, off: number, length: number): ArrayBuffer {
  return Uint8Array.prototype.slice.call(bytes, off, off + length).buffer as ArrayBuffer
}

/**
 * First word of every type in order of ids, or of one kind only; from word `from` on. The one loop over all types, kept
 * free of calls: in a fresh process most of its time is the interpreter's and the compiler's.
 */
function index({ words, typesOff }: Sections, only = 0, from = 0): Uint32Array {
  const starts = new Uint32Array(Math.floor((words.length - from) / HEAD_WORDS))
  const end = words.length
  let count = 0
  let at = from
  while (at < end) {
    const info = words[at + 1]!
    const kind = (info >>> 24) & KIND_MASK
    const next = at + HEAD_WORDS + FIXED_WORDS[kind]! + UNIT_WORDS[kind]! * (info & VLEN_MASK)
    // Not a number where the kind is not known or the head is cut short.
    if (!(kind > 0 && next <= end)) throw badType(words, at, typesOff)
    if (only === 0 || kind === only) starts[count++] = at
    at = next
  }
  return starts.subarray(0, count)
}

/** `starts`, with those of the types behind word `from`. */
function continued(input: Sections, starts: Uint32Array, from: number): Uint32Array {
  if (input.words.length === from) return starts
  const more = index(input, 0, from)
  const all = new Uint32Array(starts.length + more.length)
  all.set(starts)
  all.set(more, starts.length)
  return all
}

function badType(words: Uint32Array, at: number, typesOff: number): FormatError {
  const kind = kindOf(words[at + 1] ?? 0)
  const known = at + HEAD_WORDS > words.length || (kind > 0 && kind < FIXED_WORDS.length)
  return bad(known ? 'type runs past the end of its section' : `kind ${kind} is not known`, typesOff + at * 4)
}

/**
 * The values of some enums, by name: `findEnums(vmlinux,
 * ['bpf_cmd']).get('bpf_cmd')!.get('BPF_PROG_LOAD')`. One scan, no index, no string decoded but
 * those asked for: a few milliseconds for a vmlinux in a fresh process. An enum that is not there
 * is missing from the result; of two with the same name the first counts. Only enums of 32-bit
 * values (BTF_KIND_ENUM).
 */
export function findEnums(bytes: Uint8Array, names: readonly string[]): Map<string, Map<string, number>> {
  const input = sections(bytes)
  const wanted = names.map(name => ({ name, needle: Buffer.from(`${name}\0`) }))
  const found = new Map<string, Map<string, number>>()
  const strings = new BtfStrings(input.strings)
  // Comparing at the few thousand enums costs less than searching 2 MB of strings for each name.
  for (const at of index(input, BTF_KIND.enum)) {
    for (const { name, needle } of wanted) {
      if (found.has(name) || !startsAt(input.strings, input.words[at]!, needle)) continue
      const values = enumerators(input.words, at, strings)
      found.set(name, new Map(values.map(({ name, value }) => [name, value])))
    }
  }
  return found
}

function startsAt(bytes: Uint8Array, off: number, needle: Uint8Array): boolean {
  for (let i = 0; i < needle.length; i++) if (bytes[off + i] !== needle[i]) return false
  return true
}

function enumerators(words: Uint32Array, at: number, strings: BtfStrings): { name: string; value: number }[] {
  const info = words[at + 1]!
  const signed = info >>> 31 === 1
  return Array.from({ length: vlenOf(info) }, (_, i) => {
    const value = words[at + HEAD_WORDS + 2 * i + 1]!
    return { name: strings.at(words[at + HEAD_WORDS + 2 * i]!), value: signed ? value | 0 : value }
  })
}

/**
 * Functions that are searched for by name; the next one builds their index, which costs as much as
 * a few searches.
 */
const SEARCHES_BEFORE_INDEX = 4

/** For the editor of types alone: the first word of each type of this blob, by `id - firstId`. */
export let placesOf: (types: Btf) => Uint32Array

/**
 * Opens what the editor made of `like`: the same types in the same places, whatever they are now,
 * and perhaps more behind them.
 */
export let parseLike: (bytes: Uint8Array, like: Btf) => Btf

/**
 * All types of one BTF blob, decoded on demand. Ids count from 1; 0 is void and no type.
 *
 * A kernel module's BTF is split: it continues the kernel's. Its ids and string offsets begin where
 * those of its base end, and all look-ups reach through to the base.
 */
export class Btf {
  readonly #words: Uint32Array
  readonly #strings: BtfStrings
  /** First word of type `id` at index `id - firstId`. */
  readonly #starts: Uint32Array
  readonly #base: Btf | undefined
  /**
   * Functions outnumber all other named types of a kernel four to one, so they are indexed by
   * themselves.
   */
  #typeNames: BtfNames | undefined
  #functionNames: BtfNames | undefined
  #datasecs: ReadonlyMap<string, readonly number[]> | undefined
  /** Types of many parts, decoded once: whatever refers to them, time is linear in the blob. */
  readonly #large = new Map<number, BtfType>()
  #searches = 0
  /** Lowest id that is not the base's: 1 where there is no base. */
  readonly firstId: number

  static {
    placesOf = types => types.#starts
    parseLike = (bytes, like) => new Btf(bytes, undefined, like)
  }

  private constructor(bytes: Uint8Array, base?: Btf, like?: Btf) {
    const input = sections(bytes, base !== undefined)
    this.#words = input.words
    this.#strings = new BtfStrings(input.strings, base === undefined ? undefined : base.#strings)
    this.#starts = like === undefined ? index(input) : continued(input, like.#starts, like.#words.length)
    this.#base = base
    this.firstId = base === undefined ? 1 : base.count + 1
  }

  /**
   * Opens a raw BTF blob, such as /sys/kernel/btf/vmlinux or an ELF object's .BTF. `base` is what a
   * split blob continues: vmlinux for /sys/kernel/btf/MODULE. Keeps `bytes`.
   */
  static parse(bytes: Uint8Array, base?: Btf): Btf {
    return new Btf(bytes, base)
  }

  /** Number of types with those of the base; their ids are 1 to `count`. */
  get count(): number {
    return this.firstId - 1 + this.#starts.length
  }

  /**
   * Ids of all types with this name, optionally of one kind only; ascending, so the base's come
   * first.
   */
  find(name: string, kind?: BtfKind): number[] {
    if (name === '') return []
    if (kind === 'datasec') return [...(this.#datasecsByName().get(name) ?? [])]
    const ids = this.#base?.find(name, kind) ?? []
    const own: number[] = []
    if (kind !== 'func')
      for (const place of this.#types().exactly(name))
        if (kind === undefined || this.#kindAt(place) === BTF_KIND[kind]) own.push(this.firstId + place)
    if (kind === undefined || kind === 'func')
      for (const place of this.#functions(name)) own.push(this.firstId + place)
    return [...ids, ...own.sort((a, b) => a - b)]
  }

  /**
   * Ids of the types of this blob, without its base, that are called `name` once the flavour is cut
   * off: `task_struct` finds `task_struct` and `task_struct___old`. Ascending; functions are not
   * among them.
   */
  findFlavours(name: string): number[] {
    if (name === '') return []
    return this.#types()
      .flavours(name)
      .map(place => this.firstId + place)
  }

  /** Few, so that an object's types need no index of all names for them. */
  #datasecsByName(): ReadonlyMap<string, readonly number[]> {
    if (this.#datasecs === undefined) {
      const found = new Map<string, number[]>()
      for (const id of this.ofKind('datasec')) {
        const name = this.name(id)
        const known = found.get(name)
        if (known === undefined) found.set(name, [id])
        else known.push(id)
      }
      this.#datasecs = found
    }
    return this.#datasecs
  }

  #types(): BtfNames {
    this.#typeNames ??= this.#indexOf(false)
    return this.#typeNames
  }

  /** One loop without calls, as `index`. */
  #indexOf(functions: boolean): BtfNames {
    const words = this.#words
    const starts = this.#starts
    const places = new Uint32Array(starts.length)
    let count = 0
    for (let place = 0; place < starts.length; place++) {
      const at = starts[place]!
      if (words[at] === 0) continue
      if ((((words[at + 1]! >>> 24) & KIND_MASK) === BTF_KIND.func) === functions) places[count++] = place
    }
    return new BtfNames(words, starts, this.#strings, places.subarray(0, count))
  }

  /** Places of the functions of this name. */
  #functions(name: string): number[] {
    if (this.#functionNames !== undefined || this.#searches++ >= SEARCHES_BEFORE_INDEX) {
      this.#functionNames ??= this.#indexOf(true)
      return this.#functionNames.exactly(name)
    }
    const places: number[] = []
    const offs = this.#strings.offsetsOf(name)
    if (offs.size === 0) return places
    for (let place = 0; place < this.#starts.length; place++)
      if (offs.has(this.#words[this.#starts[place]!]!) && this.#kindAt(place) === BTF_KIND.func)
        places.push(place)
    return places
  }

  #kindAt(place: number): number {
    return kindOf(this.#words[this.#starts[place]! + 1]!)
  }

  /** Ids of all types of one kind, ascending. */
  *ofKind(kind: BtfKind): Generator<number> {
    if (this.#base !== undefined) yield* this.#base.ofKind(kind)
    for (let i = 0; i < this.#starts.length; i++)
      if (this.#kindAt(i) === BTF_KIND[kind]) yield this.firstId + i
  }

  /** The blob that holds a type, this one or a base. */
  #holder(id: number): Btf {
    return this.#base !== undefined && id < this.firstId ? this.#base.#holder(id) : this
  }

  #start(id: number): number {
    const at = this.#starts[id - this.firstId]
    if (at === undefined) throw bad(`type id ${id} does not exist, there are ${this.count}`)
    return at
  }

  kind(id: number): BtfKind {
    const holder = this.#holder(id)
    return KIND_NAMES[kindOf(holder.#words[holder.#start(id) + 1]!)]!
  }

  /** Name of a type, empty if anonymous. */
  name(id: number): string {
    const holder = this.#holder(id)
    return holder.#strings.at(holder.#words[holder.#start(id)]!)
  }

  /** One type in full. */
  type(id: number): BtfType {
    const holder = this.#holder(id)
    if (holder !== this) return holder.type(id)
    const at = this.#start(id)
    const info = this.#words[at + 1]!
    if (vlenOf(info) < LARGE || UNIT_WORDS[kindOf(info)] === 0) return this.#decode(id, at)
    let type = this.#large.get(id)
    if (type === undefined) {
      type = this.#decode(id, at)
      this.#large.set(id, type)
    }
    return type
  }

  #decode(id: number, at: number): BtfType {
    const words = this.#words
    const strings = this.#strings
    const info = words[at + 1]!
    const flag = info >>> 31 === 1
    // Size of the type or id of another type, by kind.
    const sizeOrType = words[at + 2]!
    const body = at + HEAD_WORDS
    const kind = KIND_NAMES[kindOf(info)]!
    const name = strings.at(words[at]!)
    const units = <T>(stride: number, make: (at: number) => T): T[] => {
      const all: T[] = []
      for (let unit = body, end = body + vlenOf(info) * stride; unit < end; unit += stride)
        all.push(make(unit))
      return all
    }

    // Without spreading, which takes longer than all the rest.
    switch (kind) {
      case 'int': {
        const enc = words[body]!
        const [bitOff, bits] = [(enc >>> 16) & 0xff, enc & 0xff]
        const [signed, char, bool] = [
          (enc & INT_SIGNED) !== 0,
          (enc & INT_CHAR) !== 0,
          (enc & INT_BOOL) !== 0,
        ]
        return { id, name, kind, size: sizeOrType, signed, char, bool, bitOff, bits }
      }
      case 'array':
        return { id, name, kind, type: words[body]!, index: words[body + 1]!, count: words[body + 2]! }
      case 'struct':
      case 'union': {
        const member = (m: number): BtfMember => {
          const off = words[m + 2]!
          const [name, type] = [strings.at(words[m]!), words[m + 1]!]
          // With the flag, the upper byte is the width of a bit field.
          return flag
            ? { name, type, bitOff: off & 0xffffff, bitSize: off >>> 24 }
            : { name, type, bitOff: off, bitSize: 0 }
        }
        return { id, name, kind, size: sizeOrType, members: units(3, member) }
      }
      case 'enum':
        return { id, name, kind, size: sizeOrType, signed: flag, values: enumerators(words, at, strings) }
      case 'enum64': {
        const enumerator = (v: number) => {
          const value = (BigInt(words[v + 2]!) << 32n) | BigInt(words[v + 1]!)
          return { name: strings.at(words[v]!), value: flag ? BigInt.asIntN(64, value) : value }
        }
        return { id, name, kind, size: sizeOrType, signed: flag, values: units(3, enumerator) }
      }
      case 'func_proto': {
        const param = (p: number) => ({ name: strings.at(words[p]!), type: words[p + 1]! })
        return { id, name, kind, type: sizeOrType, params: units(2, param) }
      }
      case 'datasec': {
        const variable = (v: number) => ({ type: words[v]!, off: words[v + 1]!, size: words[v + 2]! })
        return { id, name, kind, size: sizeOrType, vars: units(3, variable) }
      }
      case 'fwd':
        return { id, name, kind, union: flag }
      case 'float':
        return { id, name, kind, size: sizeOrType }
      case 'func':
        return { id, name, kind, type: sizeOrType, linkage: vlenOf(info) }
      case 'var':
        return { id, name, kind, type: sizeOrType, linkage: words[body]! }
      case 'decl_tag':
        return { id, name, kind, type: sizeOrType, component: words[body]! | 0 }
      default:
        return { id, name, kind, type: sizeOrType }
    }
  }

  /** The type behind typedefs, qualifiers and type tags; undefined for void. */
  resolve(id: number): BtfType | undefined {
    const found = this.behind(id)
    return found === 0 ? undefined : this.type(found)
  }

  /** Its id, without decoding anything; 0 for void. */
  behind(id: number): number {
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      if (id === 0) return 0
      const holder = this.#holder(id)
      const at = holder.#start(id)
      if (!isModifier(kindOf(holder.#words[at + 1]!))) return id
      id = holder.#words[at + 2]!
    }
    throw bad(`type id ${id} is behind more than ${MAX_DEPTH} qualifiers`)
  }

  /**
   * Bytes a value of this type takes, as C's sizeof. Pointers are 8 bytes: BPF is a 64-bit machine.
   */
  sizeof(id: number): number {
    let count = 1
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      const type = this.resolve(id)
      if (type === undefined) break
      if (type.kind === 'ptr') return count * 8
      if (type.kind === 'array') count *= type.count
      else if ('size' in type) return count * type.size
      else if (type.kind !== 'var') break
      id = type.type
    }
    throw bad(`type id ${id} has no size`)
  }
}
