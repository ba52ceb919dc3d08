/**
 * BTF reader: the kernel's type information, from bytes to types. Pure.
 *
 * Opening scans the type section once and keeps one offset per type; types and strings are decoded
 * when asked for, since /sys/kernel/btf/vmlinux has some 130,000 of them and callers want a few.
 * Anything malformed is a FormatError, at the latest when it is asked for; memory is bounded by the
 * input. Layout: include/uapi/linux/btf.h and Documentation/bpf/btf.rst. Start with `Btf.parse`, or
 * with `findEnums` of enums.ts where start-up time counts.
 */
import {
  bad,
  continued,
  enumerators,
  HEAD_WORDS,
  index,
  KIND_MASK,
  KIND_NAMES,
  kindOf,
  sections,
  UNIT_WORDS,
  vlenOf,
} from './blob.ts'
import { BtfNames, BtfStrings } from './names.ts'
import { BTF_KIND, type BtfKind, type BtfMember, type BtfType } from './type.ts'

export type * from './type.ts'

/**
 * As the kernel's MAX_RESOLVE_DEPTH: longer chains of modifiers and arrays do not occur, cycles do.
 */
const MAX_DEPTH = 32
/** Parts of a type (members, values, parameters) from which on decoding it twice would count. */
const LARGE = 16

// BTF_INT_*, in the word after the head of an int.
const INT_SIGNED = 1 << 24
const INT_CHAR = 1 << 25
const INT_BOOL = 1 << 26

function isModifier(kind: number): boolean {
  return (
    kind === BTF_KIND.typedef ||
    kind === BTF_KIND.const ||
    kind === BTF_KIND.volatile ||
    kind === BTF_KIND.restrict ||
    kind === BTF_KIND.type_tag
  )
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
    const [mask, func] = [KIND_MASK, BTF_KIND.func]
    const places = new Uint32Array(starts.length)
    let count = 0
    for (let place = 0; place < starts.length; place++) {
      const at = starts[place]!
      if (words[at] === 0) continue
      if ((((words[at + 1]! >>> 24) & mask) === func) === functions) places[count++] = place
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
