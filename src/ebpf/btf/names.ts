/**
 * The names in BTF: its strings, and an index of types by name. Pure; used by btf.ts only.
 *
 * A vmlinux has some 130,000 types and 3 MB of strings, and reading an object's CO-RE relocations
 * asks it for hundreds of names. The index is one pass over the names, with hashes instead of
 * JavaScript strings.
 */
import { FormatError } from '../../errors.ts'

/** Twice the longest symbol of the kernel (KSYM_NAME_LEN). */
export const MAX_NAME_BYTES = 1024
const UNDERSCORE = 0x5f
const FLAVOUR_UNDERSCORES = 3
/** FNV-1a, 32 bits. */
const HASH_SEED = 0x811c9dc5
const HASH_PRIME = 0x01000193

/** The string section of one blob, and by `base` those that it continues. */
export class BtfStrings {
  readonly #bytes: Buffer
  readonly #base: BtfStrings | undefined
  /** Offset of the first own string. */
  readonly #off: number

  constructor(bytes: Buffer, base?: BtfStrings) {
    this.#bytes = bytes
    this.#base = base
    this.#off = base === undefined ? 0 : base.#off + base.#bytes.length
  }

  at(off: number): string {
    // What has no name, by far the most.
    if (off === 0) return ''
    if (off < this.#off && this.#base !== undefined) return this.#base.at(off)
    const at = off - this.#off
    if (at >= this.#bytes.length)
      throw new FormatError('BTF', `string offset ${off} lies outside the string section`)
    const end = this.#bytes.indexOf(0, at)
    // Bounds the memory of a type whose many members all name one endless string.
    if (end - at > MAX_NAME_BYTES)
      throw new FormatError('BTF', `string at offset ${off} is longer than ${MAX_NAME_BYTES} bytes`)
    return this.#bytes.toString('utf8', at, end)
  }

  /** Of the name at an offset without its flavour. Offsets outside count as empty. */
  hash(off: number): number {
    if (off < this.#off && this.#base !== undefined) return this.#base.hash(off)
    return hashOf(this.#bytes, off - this.#off)
  }

  /** Every offset that reads as `name`. Strings may share their tails. */
  offsetsOf(name: string): Set<number> {
    const found = this.#base?.offsetsOf(name) ?? new Set<number>()
    const needle = Buffer.from(`${name}\0`)
    for (let at = this.#bytes.indexOf(needle); at !== -1; at = this.#bytes.indexOf(needle, at + 1))
      found.add(this.#off + at)
    return found
  }
}

/**
 * A name without its flavour: what follows the last `___` between other characters. `task_struct`
 * of `task_struct___v5`. As libbpf's bpf_core_essential_name_len.
 */
export function essentialName(name: string): string {
  for (let at = name.length - FLAVOUR_UNDERSCORES - 1; at > 0; at--)
    if (name.startsWith('___', at) && name[at - 1] !== '_' && name[at + FLAVOUR_UNDERSCORES] !== '_')
      return name.slice(0, at)
  return name
}

/** Types by name and by name without flavour, as places in the order of ids. */
export class BtfNames {
  readonly #name: (index: number) => string
  readonly #places: Uint32Array
  /** First index of `places` by hash, plus one; then `#next` leads on, upwards. */
  readonly #first: Uint32Array
  readonly #next: Uint32Array
  readonly #hashes: Uint32Array

  /**
   * `places` are those of the types to find; `words[starts[place]]` is the offset of a type's name.
   */
  constructor(words: Uint32Array, starts: Uint32Array, strings: BtfStrings, places: Uint32Array) {
    const count = places.length
    let buckets = 1
    while (buckets < count) buckets *= 2
    this.#name = index => strings.at(words[starts[places[index]!]!]!)
    this.#places = places
    this.#first = new Uint32Array(buckets)
    this.#next = new Uint32Array(count)
    this.#hashes = new Uint32Array(count)
    const [first, next, hashes] = [this.#first, this.#next, this.#hashes]
    // Backwards, so that each chain leads upwards.
    for (let index = count - 1; index >= 0; index--) {
      const hash = strings.hash(words[starts[places[index]!]!]!)
      hashes[index] = hash
      const bucket = hash & (buckets - 1)
      next[index] = first[bucket]!
      first[bucket] = index + 1
    }
  }

  exactly(name: string): number[] {
    return this.#withHash(essentialName(name), other => other === name)
  }

  flavours(name: string): number[] {
    return this.#withHash(name, other => essentialName(other) === name)
  }

  #withHash(essential: string, wanted: (name: string) => boolean): number[] {
    const hash = hashOf(Buffer.from(`${essential}\0`), 0, true)
    const found: number[] = []
    for (let at = this.#first[hash & (this.#first.length - 1)]!; at !== 0; at = this.#next[at - 1]!)
      if (this.#hashes[at - 1] === hash && wanted(this.#name(at - 1))) found.push(this.#places[at - 1]!)
    return found
  }
}

/**
 * Of a name without its flavour, or of the `whole` name. One loop without calls: it sees some 3 MB
 * in a process that has just begun.
 */
function hashOf(bytes: Uint8Array, start: number, whole = false): number {
  // Longer names are an error when they are read.
  const end = Math.min(bytes.length, start + MAX_NAME_BYTES + 1)
  let hash = HASH_SEED
  let essential = 0
  let found = false
  let beforeRun = 0
  let run = 0
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!
    if (byte === 0) break
    if (byte === UNDERSCORE) {
      if (run++ === 0) beforeRun = hash
    } else if (run > 0) {
      if (run === FLAVOUR_UNDERSCORES && at - run > start) {
        essential = beforeRun
        found = true
      }
      run = 0
    }
    hash = Math.imul(hash ^ byte, HASH_PRIME)
  }
  return (found && !whole ? essential : hash) >>> 0
}
