/**
 * A BTF blob as its sections, and where in them each type begins. Pure. Memory is bounded by the
 * input: one number for each type. Layout: include/uapi/linux/btf.h.
 */
import { FormatError } from '../../errors.ts'
import type { BtfStrings } from './names.ts'
import { BTF_KIND, type BtfKind } from './type.ts'

const MAGIC = 0xeb9f
const MIN_HEADER_BYTES = 24
export const HEAD_WORDS = 3

export const KIND_NAMES = ['void', ...Object.keys(BTF_KIND)] as BtfKind[]
// 32-bit words after a type's head: a fixed part, and one part per unit of vlen. FUNC keeps its
// linkage in vlen, so its per-unit part is 0.
//                   void int ptr arr str uni enu fwd tdf vol con res fun pro var sec flo dec tag e64
const FIXED_WORDS = [0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]
export const UNIT_WORDS = [0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3]

// Bits 16-23 and 29-30 of info are reserved and zero. Read as part of the number beside them, a set
// bit makes a type that cannot exist, and is refused with no check of its own.
export const KIND_MASK = 0x7f
const VLEN_MASK = 0xffffff
export const kindOf = (info: number) => (info >>> 24) & KIND_MASK
export const vlenOf = (info: number) => info & VLEN_MASK

export interface Sections {
  readonly words: Uint32Array
  readonly strings: Buffer
  /** Byte offset of the type section in the input, for messages. */
  readonly typesOff: number
}

export function bad(message: string, off?: number): FormatError {
  return new FormatError('BTF', message, off === undefined ? {} : { off })
}

/**
 * Checks the header and cuts out the two sections. `split`: continues another blob, whose strings
 * it may use alone.
 */
export function sections(bytes: Uint8Array, split = false): Sections {
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

/** Bytes at the start of a buffer of their own. A Buffer's slice() would share its memory. */
function copyOf(bytes: Uint8Array, off: number, length: number): ArrayBuffer {
  return Uint8Array.prototype.slice.call(bytes, off, off + length).buffer as ArrayBuffer
}

/**
 * First word of every type in order of ids, or of one kind only; from word `from` on. The one loop over all types, kept
 * free of calls: in a fresh process most of its time is the interpreter's and the compiler's.
 */
export function index({ words, typesOff }: Sections, only = 0, from = 0): Uint32Array {
  const starts = new Uint32Array(Math.floor((words.length - from) / HEAD_WORDS))
  const end = words.length
  // What is exported is looked up each time that it is named.
  const [mask, head, units] = [KIND_MASK, HEAD_WORDS, UNIT_WORDS]
  let count = 0
  let at = from
  while (at < end) {
    const info = words[at + 1]!
    const kind = (info >>> 24) & mask
    const next = at + head + FIXED_WORDS[kind]! + units[kind]! * (info & VLEN_MASK)
    // Not a number where the kind is not known or the head is cut short.
    if (!(kind > 0 && next <= end)) throw badType(words, at, typesOff)
    if (only === 0 || kind === only) starts[count++] = at
    at = next
  }
  return starts.subarray(0, count)
}

/** `starts`, with those of the types behind word `from`. */
export function continued(input: Sections, starts: Uint32Array, from: number): Uint32Array {
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

/** What an enum has, from its first word on. */
export function enumerators(
  words: Uint32Array,
  at: number,
  strings: BtfStrings,
): { name: string; value: number }[] {
  const info = words[at + 1]!
  const signed = info >>> 31 === 1
  return Array.from({ length: vlenOf(info) }, (_, i) => {
    const value = words[at + HEAD_WORDS + 2 * i + 1]!
    return { name: strings.at(words[at + HEAD_WORDS + 2 * i]!), value: signed ? value | 0 : value }
  })
}
