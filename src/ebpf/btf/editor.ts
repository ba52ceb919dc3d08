/**
 * Changes raw BTF in place: words of types, new types and strings at the end. Pure.
 *
 * A compiler's BTF needs corrections before a kernel takes it (sizes of data sections, linkage of
 * externs, kinds the kernel does not know). Ids and string offsets stay as they are, because
 * .BTF.ext refers to both.
 */
import { FormatError } from '../../errors.ts'
import { Btf, type BtfKind, parseLike, placesOf } from './btf.ts'
import { MAX_NAME_BYTES } from './names.ts'
import { BTF_KIND } from './type.ts'

const HEADER_BYTES = 24
const MAGIC = 0xeb9f
const VLEN_MASK = 0xffffff

/**
 * The blob in the other byte order, from either: all but the strings and the first four bytes are
 * 32-bit words.
 */
export function swapBtf(bytes: Uint8Array): Uint8Array {
  const swapped = swapWords(bytes)
  if (bytes.length < HEADER_BYTES) return swapped
  const isLittle = bytes[0] === (MAGIC & 0xff)
  const { buffer, byteOffset, byteLength } = isLittle ? bytes : swapped
  const view = new DataView(buffer, byteOffset, byteLength)
  const stringsOff = view.getUint32(4, true) + view.getUint32(16, true)
  if (stringsOff < bytes.length) swapped.set(bytes.subarray(stringsOff), stringsOff)
  return swapped
}

/**
 * Magic, version and flags, then whole words: also the layout of .BTF.ext. A rest of less than a
 * word stays.
 */
export function swapWords(bytes: Uint8Array): Uint8Array {
  const swapped = new Uint8Array(bytes)
  const view = new DataView(swapped.buffer)
  if (bytes.length < 4) return swapped
  view.setUint16(0, view.getUint16(0, false), true)
  for (let at = 4; at + 4 <= bytes.length; at += 4) view.setUint32(at, view.getUint32(at, false), true)
  return swapped
}

export class BtfEditor {
  /** The types as they were; those added here are not among them. */
  readonly original: Btf
  /** The changed blob, up to its strings; what is added goes behind it. */
  readonly #blob: Uint8Array
  readonly #words: Uint32Array
  readonly #strings: Buffer
  /** First word of type `id` at index `id - 1`; of those that were added, further on. */
  readonly #starts: Uint32Array
  readonly #newStarts: number[] = []
  readonly #newWords: number[] = []
  readonly #newStrings: Buffer[] = []
  #stringsBytes: number

  /** Takes little-endian BTF. FormatError: as `Btf.parse`. */
  constructor(bytes: Uint8Array) {
    this.original = Btf.parse(bytes)
    this.#starts = placesOf(this.original)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const header = view.getUint32(4, true)
    const typesOff = header + view.getUint32(8, true)
    const typesBytes = view.getUint32(12, true)
    const stringsOff = header + view.getUint32(16, true)
    this.#stringsBytes = view.getUint32(20, true)
    this.#strings = Buffer.from(bytes.buffer, bytes.byteOffset + stringsOff, this.#stringsBytes)
    // A copy, at an address that is good for words.
    this.#blob = new Uint8Array(HEADER_BYTES + typesBytes + this.#stringsBytes)
    this.#blob.set(bytes.subarray(typesOff, typesOff + typesBytes), HEADER_BYTES)
    this.#blob.set(this.#strings, HEADER_BYTES + typesBytes)
    this.#words = new Uint32Array(this.#blob.buffer, HEADER_BYTES, typesBytes / 4)
  }

  /** The string at an offset of the string section. */
  string(off: number): string {
    const end = off < this.#strings.length ? this.#strings.indexOf(0, off) : -1
    if (end === -1) throw new FormatError('BTF', `string offset ${off} lies outside the string section`)
    // Many records may name the tails of one endless string.
    if (end - off > MAX_NAME_BYTES)
      throw new FormatError('BTF', `string at offset ${off} is longer than ${MAX_NAME_BYTES} bytes`)
    return this.#strings.toString('utf8', off, end)
  }

  /** Word `n` of a type: 0 name, 1 info, 2 size or type, then what its kind has. */
  word(id: number, n: number): number {
    const at = this.#place(id) + n
    return this.#words[at] ?? this.#newWords[at - this.#words.length]!
  }

  setWord(id: number, n: number, value: number): void {
    const at = this.#place(id) + n
    if (at < this.#words.length) this.#words[at] = value >>> 0
    else this.#newWords[at - this.#words.length] = value >>> 0
  }

  #place(id: number): number {
    const { count } = this.original
    return id <= count ? this.#starts[id - 1]! : this.#newStarts[id - count - 1]!
  }

  /** Makes another kind of a type that has as many words. */
  setKind(id: number, kind: BtfKind, flag = false): void {
    const units = this.word(id, 1) & VLEN_MASK
    this.setWord(id, 1, ((flag ? 1 : 0) << 31) | (BTF_KIND[kind] << 24) | units)
  }

  /** `vlen`, which in a func is its linkage. */
  setUnits(id: number, units: number): void {
    this.setWord(id, 1, (this.word(id, 1) & ~VLEN_MASK) | units)
  }

  /** Adds a string: its offset. */
  addString(text: string): number {
    const off = this.#stringsBytes
    const bytes = Buffer.from(`${text}\0`)
    this.#newStrings.push(bytes)
    this.#stringsBytes += bytes.length
    return off
  }

  /** Adds a type: its id. */
  addType(kind: BtfKind, name: string, sizeOrType: number, rest: readonly number[], units = 0): number {
    const nameOff = name === '' ? 0 : this.addString(name)
    this.#newStarts.push(this.#words.length + this.#newWords.length)
    this.#newWords.push(nameOff, (BTF_KIND[kind] << 24) | units, sizeOrType, ...rest)
    return this.original.count + this.#newStarts.length
  }

  /**
   * The changed blob: header, types, strings, and nothing that newer formats put between them. Ends
   * the editing, since the blob may be this editor's own memory.
   */
  build(): Uint8Array {
    const typesBytes = (this.#words.length + this.#newWords.length) * 4
    const grows = this.#newWords.length > 0 || this.#newStrings.length > 0
    const blob = grows ? new Uint8Array(HEADER_BYTES + typesBytes + this.#stringsBytes) : this.#blob
    const view = new DataView(blob.buffer)
    view.setUint16(0, MAGIC, true)
    view.setUint8(2, 1)
    const header = [HEADER_BYTES, 0, typesBytes, typesBytes, this.#stringsBytes]
    for (const [i, word] of header.entries()) view.setUint32(4 + i * 4, word, true)
    if (!grows) return blob
    let at = HEADER_BYTES + this.#words.length * 4
    blob.set(this.#blob.subarray(HEADER_BYTES, at), HEADER_BYTES)
    for (const part of [
      new Uint8Array(Uint32Array.from(this.#newWords).buffer),
      this.#strings,
      ...this.#newStrings,
    ]) {
      blob.set(part, at)
      at += part.length
    }
    return blob
  }

  /** The same, and as types, which need not be looked for again. */
  buildTypes(): { bytes: Uint8Array; types: Btf } {
    const bytes = this.build()
    return { bytes, types: parseLike(bytes, this.original) }
  }
}
