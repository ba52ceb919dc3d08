/**
 * Types of BTF as words, to be moved from one blob into another: with their names in one table for
 * all blobs, and with all that is not a name or the id of a type left as it is. Pure.
 */
import { FormatError } from '../../errors.ts'
import { Btf } from '../btf/btf.ts'
import { BTF_KIND } from '../btf/type.ts'

const HEADER_BYTES = 24
const MAGIC = 0xeb9f
const KIND_SHIFT = 24
const KIND_MASK = 0x7f
const VLEN_MASK = 0xffffff
/** Texts may be tails of others; those of compilers are not, or of few. */
const MAX_SHARING = 16
const MIN_TEXT_LIMIT = 1 << 20

/** Texts by number; number 0 is the empty one. Bytes of no encoding: one character for each. */
export class TextTable {
  readonly #numbers = new Map<string, number>([['', 0]])
  readonly #texts = ['']

  number(text: string): number {
    let number = this.#numbers.get(text)
    if (number === undefined) {
      number = this.#texts.length
      this.#numbers.set(text, number)
      this.#texts.push(text)
    }
    return number
  }

  text(number: number): string {
    return this.#texts[number]!
  }

  /** As symbols and sections are called: UTF-8. */
  name(number: number): string {
    return Buffer.from(this.#texts[number]!, 'latin1').toString('utf8')
  }

  numberOfName(name: string): number {
    return this.number(Buffer.from(name, 'utf8').toString('latin1'))
  }
}

/** One type: `words` are name, size or type, and what its kind has behind these. */
export interface RawType {
  info: number
  readonly words: number[]
}

export const kindOf = ({ info }: RawType): number => (info >>> KIND_SHIFT) & KIND_MASK
export const vlenOf = ({ info }: RawType): number => info & VLEN_MASK

/** Of variables and functions. */
export const LINKAGE = { static: 0, global: 1 } as const

/** Whether it is a variable or function that other objects can know by its name. */
export function isNonStatic(type: RawType): boolean {
  const kind = kindOf(type)
  if (kind === BTF_KIND.var) return type.words[2] !== LINKAGE.static
  return kind === BTF_KIND.func && vlenOf(type) !== LINKAGE.static
}

/** Places of ids of types, and of texts, in the words of a type. */
export function placesIn(type: RawType): { readonly types: number[]; readonly texts: number[] } {
  const units = vlenOf(type)
  const every = (first: number, stride: number): number[] =>
    Array.from({ length: units }, (_, i) => first + i * stride)
  switch (kindOf(type)) {
    case BTF_KIND.ptr:
    case BTF_KIND.typedef:
    case BTF_KIND.volatile:
    case BTF_KIND.const:
    case BTF_KIND.restrict:
    case BTF_KIND.func:
    case BTF_KIND.var:
    case BTF_KIND.decl_tag:
    case BTF_KIND.type_tag:
      return { types: [1], texts: [0] }
    case BTF_KIND.array:
      return { types: [2, 3], texts: [0] }
    case BTF_KIND.struct:
    case BTF_KIND.union:
      return { types: every(3, 3), texts: [0, ...every(2, 3)] }
    case BTF_KIND.enum:
      return { types: [], texts: [0, ...every(2, 2)] }
    case BTF_KIND.enum64:
      return { types: [], texts: [0, ...every(2, 3)] }
    case BTF_KIND.func_proto:
      return { types: [1, ...every(3, 2)], texts: [0, ...every(2, 2)] }
    case BTF_KIND.datasec:
      return { types: every(2, 3), texts: [0] }
    default:
      return { types: [], texts: [0] }
  }
}

/** Types of a blob by id, number 0 being void; texts are numbers of `texts`. */
export interface RawBtf {
  readonly types: RawType[]
  /** A text of the blob, by its offset, as a number of the table. */
  readonly text: (off: number) => number
}

/** FormatError: as `Btf.parse`, and where an id or a text is not there. */
export function readRawTypes(bytes: Uint8Array, texts: TextTable): RawBtf {
  const checked = Btf.parse(bytes)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const headerBytes = view.getUint32(4, true)
  const typesOff = headerBytes + view.getUint32(8, true)
  const typesEnd = typesOff + view.getUint32(12, true)
  const stringsOff = headerBytes + view.getUint32(16, true)
  const strings = Buffer.from(bytes.buffer, bytes.byteOffset + stringsOff, view.getUint32(20, true))
  const known = new Map<number, number>()
  let textBytes = 0
  const text = (off: number): number => {
    let number = known.get(off)
    if (number === undefined) {
      const end = off < strings.length ? strings.indexOf(0, off) : -1
      if (end === -1) throw new FormatError('BTF', `string offset ${off} lies outside the string section`)
      textBytes += end - off
      if (textBytes > Math.max(MIN_TEXT_LIMIT, strings.length * MAX_SHARING))
        throw new FormatError('BTF', 'strings are tails of each other')
      number = texts.number(strings.toString('latin1', off, end))
      known.set(off, number)
    }
    return number
  }
  const types: RawType[] = [{ info: 0, words: [0, 0] }]
  for (let at = typesOff; at < typesEnd; ) {
    const type: RawType = { info: view.getUint32(at + 4, true), words: [] }
    const words = wordsOf(type)
    type.words.push(view.getUint32(at, true))
    for (let i = 1; i < words; i++) type.words.push(view.getUint32(at + 4 + i * 4, true))
    at += 4 + words * 4
    types.push(type)
  }
  for (const type of types.slice(1)) {
    const places = placesIn(type)
    for (const place of places.texts) type.words[place] = text(type.words[place]!)
    for (const place of places.types)
      if (type.words[place]! > checked.count)
        throw new FormatError(
          'BTF',
          `type id ${type.words[place]} does not exist, there are ${checked.count}`,
        )
  }
  return { types, text }
}

function wordsOf(type: RawType): number {
  const units = vlenOf(type)
  switch (kindOf(type)) {
    case BTF_KIND.int:
    case BTF_KIND.var:
    case BTF_KIND.decl_tag:
      return 3
    case BTF_KIND.array:
      return 5
    case BTF_KIND.enum:
    case BTF_KIND.func_proto:
      return 2 + 2 * units
    case BTF_KIND.struct:
    case BTF_KIND.union:
    case BTF_KIND.datasec:
    case BTF_KIND.enum64:
      return 2 + 3 * units
    default:
      return 2
  }
}

/** The blob of these types, and where each text of it is. `more` are further texts to be in it. */
export function writeRawTypes(
  types: readonly RawType[],
  texts: TextTable,
  more: Iterable<number> = [],
): { readonly bytes: Uint8Array; readonly offOf: ReadonlyMap<number, number> } {
  const offOf = new Map<number, number>([[0, 0]])
  const strings = [Buffer.from('\0')]
  let stringsBytes = 1
  const place = (number: number): number => {
    let off = offOf.get(number)
    if (off === undefined) {
      const bytes = Buffer.from(`${texts.text(number)}\0`, 'latin1')
      off = stringsBytes
      offOf.set(number, off)
      strings.push(bytes)
      stringsBytes += bytes.length
    }
    return off
  }
  const words: number[] = []
  for (const type of types.slice(1)) {
    const own = type.words.slice()
    for (const at of placesIn(type).texts) own[at] = place(own[at]!)
    words.push(own[0]!, type.info)
    // Not spread: a type has as many words as no call has arguments.
    for (let i = 1; i < own.length; i++) words.push(own[i]!)
  }
  for (const number of more) place(number)
  const bytes = new Uint8Array(HEADER_BYTES + words.length * 4 + stringsBytes)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, MAGIC, true)
  view.setUint8(2, 1)
  const header = [HEADER_BYTES, 0, words.length * 4, words.length * 4, stringsBytes]
  for (const [i, word] of [...header, ...words].entries()) view.setUint32(4 + i * 4, word >>> 0, true)
  bytes.set(Buffer.concat(strings), HEADER_BYTES + words.length * 4)
  return { bytes, offOf }
}
