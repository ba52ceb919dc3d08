/**
 * Values in memory as JavaScript values, by their type in BTF: for maps, ring buffers and global
 * variables. Pure.
 *
 * | C                                         | JavaScript                                         |
 * |---|---|
 * | integers and enums up to 32 bits          | number                                             |
 * | of 64 and 128 bits, and pointers          | bigint                                             |
 * | bool                                      | boolean                                            |
 * | float, double                             | number                                             |
 * | arrays of one-byte integers               | Uint8Array, a copy                                 |
 * | other arrays                              | array                                              |
 * | struct, union                             | object; members of anonymous ones stand beside the others |
 *
 * `writeValue` is the mirror image. It also takes a bigint for a number and the other way round,
 * the name of a value for an enum, and a string for an array of bytes. Members that an object does not have stay as they are: so one
 * member of a union can be written. Byte order is little-endian.
 *
 * With `chars: 'text'`, arrays of plain char are strings: what is before the first zero byte, as
 * UTF-8. What is no UTF-8 becomes U+FFFD, so bytes of any kind want `chars: 'bytes'`, the default.
 */
import { FormatError } from '../../errors.ts'
import type { Btf, BtfComposite, BtfEnum, BtfEnum64, BtfType } from './btf.ts'

export type TypedValue =
  | number
  | bigint
  | boolean
  | string
  | Uint8Array
  | readonly TypedValue[]
  | { readonly [member: string]: TypedValue }

/** What arrays of plain char are read as. */
export type Chars = 'bytes' | 'text'

/** How one type is read and written. Places are counted in bits from the start of the view. */
export interface Codec {
  readonly sizeBytes: number
  /** Single values in it; those of unions count for each member. */
  readonly count: number
  read(view: DataView, bit: number): TypedValue
  write(view: DataView, bit: number, value: TypedValue, path: string): void
  /** Of struct and union. */
  readonly fields?: readonly Field[]
  /** Of arrays, but those that are read in one piece. */
  readonly elements?: { readonly codec: Codec; readonly count: number }
  /** Of arrays that are read as bytes. */
  readonly isBytes?: boolean
  /** Where these are not all bits of its bytes. */
  readonly widthBits?: number
  /** Of what may be a bit field. */
  readonly scalar?: Scalar
}

export interface Field {
  readonly name: string
  readonly bitOff: number
  readonly codec: Codec
}

export interface Scalar {
  readonly sizeBytes: number
  readonly signed: boolean
  readonly bool: boolean
  /** Of an enum: its values by name. */
  readonly names?: () => ReadonlyMap<string, bigint>
}

const MAX_DEPTH = 64
const INT_BYTES: readonly number[] = [1, 2, 4, 8, 16]
/**
 * Unions within unions can make many values of few bytes: more than this for each byte do not come
 * from a compiler.
 */
const MAX_COUNT_PER_BYTE = 64
const MIN_COUNT_LIMIT = 65536

/**
 * Members of all types of one BTF, for each of them. Those of anonymous members stand in each struct
 * that has them, and so on: more than these do not come from a compiler.
 */
const MAX_FIELDS_PER_TYPE = 16
const MIN_FIELDS_LIMIT = 65536

/** What is known of one BTF. */
interface Known {
  readonly codecs: Map<number, Codec>
  fields: number
}

const codecs: Readonly<Record<Chars, WeakMap<Btf, Known>>> = {
  bytes: new WeakMap(),
  text: new WeakMap(),
}

/**
 * The value of type `typeId` at byte `off`. RangeError: it runs past the end. TypeError: a type
 * without values, such as void.
 */
export function readValue(
  btf: Btf,
  typeId: number,
  bytes: Uint8Array,
  off = 0,
  chars: Chars = 'bytes',
): TypedValue {
  const codec = codecFor(btf, typeId, bytes, off, chars)
  return codec.read(viewOf(bytes), off * 8)
}

/**
 * Sets the value of type `typeId` at byte `off`. RangeError: a number or length does not fit; the
 * message names the member. TypeError: another kind of value, or no such member. What was written
 * before the failure stays written.
 */
export function writeValue(
  btf: Btf,
  typeId: number,
  bytes: Uint8Array,
  off: number,
  value: TypedValue,
): void {
  const codec = codecFor(btf, typeId, bytes, off)
  codec.write(viewOf(bytes), off * 8, value, '')
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/**
 * How values of a type are read and written, kept for its BTF. Errors are those of `readValue`, for
 * a place of as many bytes as the type has.
 */
export function codecOf(btf: Btf, typeId: number, chars: Chars = 'bytes'): Codec {
  const codec = compiled(btf, typeId, chars)
  requireFew(codec, typeId, codec.sizeBytes)
  return codec
}

function compiled(btf: Btf, typeId: number, chars: Chars): Codec {
  let known = codecs[chars].get(btf)
  if (known === undefined) {
    known = { codecs: new Map(), fields: 0 }
    codecs[chars].set(btf, known)
  }
  return new Compiler(btf, known, chars).compile(typeId)
}

function requireFew({ count }: Codec, typeId: number, bytes: number): void {
  if (count > Math.max(MIN_COUNT_LIMIT, bytes * MAX_COUNT_PER_BYTE))
    throw new FormatError('BTF', `type id ${typeId} has too many members`)
}

function codecFor(btf: Btf, typeId: number, bytes: Uint8Array, off: number, chars: Chars = 'bytes'): Codec {
  const codec = compiled(btf, typeId, chars)
  if (off < 0 || off + codec.sizeBytes > bytes.length)
    throw new RangeError(`a value of ${codec.sizeBytes} bytes at ${off} is not within ${bytes.length} bytes`)
  requireFew(codec, typeId, bytes.length)
  return codec
}

/** How `count` values are read and written that lie one behind the other. */
export function arrayCodec(element: Codec, count: number): Codec {
  return array(element, element.sizeBytes === 0 ? 0 : count)
}

class Compiler {
  readonly #btf: Btf
  readonly #known: Known
  readonly #chars: Chars
  /** Ids on the way to the one in hand. */
  readonly #open = new Set<number>()

  constructor(btf: Btf, known: Known, chars: Chars) {
    this.#btf = btf
    this.#known = known
    this.#chars = chars
  }

  compile(id: number): Codec {
    const { codecs } = this.#known
    const known = codecs.get(id)
    if (known !== undefined) return known
    // However many typedefs lead to it, a type is looked at once.
    const behind = this.#btf.behind(id)
    if (behind !== id && behind !== 0) {
      const codec = this.compile(behind)
      codecs.set(id, codec)
      return codec
    }
    if (this.#open.has(id)) throw new FormatError('BTF', `type id ${id} contains itself`)
    if (this.#open.size > MAX_DEPTH)
      throw new FormatError('BTF', `type id ${id} is more than ${MAX_DEPTH} types deep`)
    this.#open.add(id)
    const codec = this.#make(id)
    this.#open.delete(id)
    codecs.set(id, codec)
    return codec
  }

  #make(id: number): Codec {
    const type = this.#btf.resolve(id)
    switch (type?.kind) {
      case 'int':
        return type.bits === type.size * 8 && type.bitOff === 0
          ? scalar({ sizeBytes: type.size, signed: type.signed, bool: type.bool }, type.name)
          : narrow({ sizeBytes: type.size, signed: type.signed, bool: type.bool }, type.bits, type.bitOff)
      case 'enum':
      case 'enum64':
        return scalar(
          { sizeBytes: type.size, signed: type.signed, bool: false, names: () => valuesOf(type) },
          type.name,
        )
      case 'ptr':
        return scalar({ sizeBytes: 8, signed: false, bool: false }, 'pointer')
      case 'float':
        return float(type.size, type.name)
      case 'array':
        return this.#array(type.type, type.count)
      case 'struct':
      case 'union':
        return this.#composite(type)
      case 'var':
        return this.compile(type.type)
      default:
        throw new TypeError(`type id ${id} (${describe(type)}) has no values`)
    }
  }

  #array(elementId: number, count: number): Codec {
    const element = this.compile(elementId)
    const { scalar: of, sizeBytes } = element
    if (of?.sizeBytes === 1 && !of.bool)
      return this.#chars === 'text' && isChar(this.#btf, elementId) ? textArray(count) : byteArray(count)
    // Elements of no size are as good as none; otherwise there could be four thousand million of
    // them.
    return sizeBytes === 0 ? array(element, 0) : array(element, count)
  }

  #composite({ kind, name, size, members }: BtfComposite): Codec {
    const fields: Field[] = []
    for (const member of members) {
      const whole = this.compile(member.type)
      const codec = member.bitSize === 0 ? whole : bitField(whole, member.bitSize, member.name)
      const widthBits = codec.widthBits ?? codec.sizeBytes * 8
      if (member.bitOff + widthBits > size * 8)
        throw new FormatError('BTF', `member "${member.name}" lies outside ${kind} "${name}"`)
      const inner = member.name === '' ? (codec.fields ?? []) : undefined
      this.#known.fields += inner?.length ?? 1
      if (this.#known.fields > Math.max(MIN_FIELDS_LIMIT, this.#btf.count * MAX_FIELDS_PER_TYPE))
        throw new FormatError('BTF', `${kind} "${name}" has too many members within others`)
      if (inner === undefined) fields.push({ name: member.name, bitOff: member.bitOff, codec })
      // Others without a name are padding.
      else for (const field of inner) fields.push(below(field, member.bitOff))
    }
    return composite(fields, size, name === '' ? kind : `${kind} ${name}`)
  }
}

/** Plain `char`: others of its size are numbers, and have other names. */
export function isChar(btf: Btf, typeId: number): boolean {
  const type = btf.resolve(typeId)
  return type?.kind === 'int' && type.size === 1 && type.name === 'char'
}

function below(field: Field, bitOff: number): Field {
  return { ...field, bitOff: field.bitOff + bitOff }
}

function valuesOf({ values }: BtfEnum | BtfEnum64): ReadonlyMap<string, bigint> {
  return new Map(values.map(({ name, value }) => [name, BigInt(value)]))
}

function describe(type: BtfType | undefined): string {
  return type === undefined ? 'void' : `${type.kind} "${type.name}"`
}

const at = (path: string): string => (path === '' ? 'the value' : path)

function wrongType(path: string, wanted: string, value: unknown): TypeError {
  const got = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value
  return new TypeError(`${at(path)} takes ${wanted}, not ${got}`)
}

const SHOWN_NAMES = 8

/** The number that a name of an enum stands for; anything else stays what it is. */
function numberFor(value: TypedValue, names: Scalar['names'], path: string): TypedValue {
  if (typeof value !== 'string' || names === undefined) return value
  const all = names()
  const found = all.get(value)
  if (found !== undefined) return found
  const shown = [...all.keys()].slice(0, SHOWN_NAMES).join(', ')
  throw new RangeError(
    `${at(path)} takes a value of its enum (${shown}${all.size > SHOWN_NAMES ? ', ...' : ''}), not "${value}"`,
  )
}

/** Above it, and below its negative, numbers that differ in C are the same in JavaScript. */
const MAX_EXACT = BigInt(Number.MAX_SAFE_INTEGER)

/** As a whole number between the two, in whichever form. */
function integer(value: TypedValue, min: bigint, max: bigint, path: string): bigint {
  if (typeof value !== 'bigint' && typeof value !== 'number') throw wrongType(path, 'a whole number', value)
  if (typeof value === 'number' && !Number.isInteger(value))
    throw new RangeError(`${at(path)} takes a whole number, not ${value}`)
  // Another number may have been meant, which JavaScript cannot hold.
  if (typeof value === 'number' && !Number.isSafeInteger(value) && max > MAX_EXACT)
    throw new RangeError(`${at(path)} takes a number as large as ${value} as a bigint`)
  const number = BigInt(value)
  if (number < min || number > max) throw new RangeError(`${at(path)} takes ${min} to ${max}, not ${value}`)
  return number
}

function rangeOf(widthBits: number, signed: boolean): [min: bigint, max: bigint] {
  const half = 1n << BigInt(widthBits - 1)
  return signed ? [-half, half - 1n] : [0n, 2n * half - 1n]
}

/** A bit field of any width at any bit, or an integer that lies so. At most 128 bits. */
function bits(of: Scalar, widthBits: number): Codec {
  if (widthBits < 1 || widthBits > of.sizeBytes * 8 || widthBits > 128)
    throw new FormatError('BTF', `a bit field of ${widthBits} bits does not fit ${of.sizeBytes} bytes`)
  const [min, max] = rangeOf(widthBits, of.signed)
  const mask = (1n << BigInt(widthBits)) - 1n
  const wide = of.sizeBytes > 4
  /** Which bytes it touches, and how far up in them it starts. */
  const place = (bit: number) => {
    const first = Math.floor(bit / 8)
    const shift = bit % 8
    return { first, shift: BigInt(shift), count: Math.ceil((shift + widthBits) / 8) }
  }
  const gather = (view: DataView, first: number, count: number): bigint => {
    let all = 0n
    for (let i = count - 1; i >= 0; i--) all = (all << 8n) | BigInt(view.getUint8(first + i))
    return all
  }
  return {
    sizeBytes: of.sizeBytes,
    widthBits,
    count: 1,
    scalar: of,
    read(view, bit) {
      const { first, shift, count } = place(bit)
      const raw = (gather(view, first, count) >> shift) & mask
      if (of.bool) return raw !== 0n
      const value = of.signed ? BigInt.asIntN(widthBits, raw) : raw
      return wide ? value : Number(value)
    },
    write(view, bit, value, path) {
      if (of.bool && typeof value !== 'boolean') throw wrongType(path, 'a boolean', value)
      const number =
        typeof value === 'boolean' && of.bool
          ? BigInt(value)
          : integer(numberFor(value, of.names, path), min, max, path)
      const { first, shift, count } = place(bit)
      let all = (gather(view, first, count) & ~(mask << shift)) | ((number & mask) << shift)
      for (let i = 0; i < count; i++, all >>= 8n) view.setUint8(first + i, Number(all & 0xffn))
    },
  }
}

function bitField(whole: Codec, widthBits: number, name: string): Codec {
  if (whole.scalar === undefined) throw new FormatError('BTF', `bit field "${name}" is no integer`)
  return bits(whole.scalar, widthBits)
}

/** An integer narrower than its bytes: what compilers made of bit fields before BTF had them. */
function narrow(of: Scalar, widthBits: number, bitOff: number): Codec {
  if (bitOff + widthBits > of.sizeBytes * 8)
    throw new FormatError(
      'BTF',
      `an integer of ${widthBits} bits at ${bitOff} is not within ${of.sizeBytes} bytes`,
    )
  const codec = bits(of, widthBits)
  return {
    ...codec,
    widthBits: bitOff + widthBits,
    read: (view, bit) => codec.read(view, bit + bitOff),
    write: (view, bit, value, path) => codec.write(view, bit + bitOff, value, path),
  }
}

/** A whole integer, quickly where it starts at a byte, as all but those in odd structs do. */
function scalar(of: Scalar, name: string): Codec {
  const { sizeBytes, signed, bool } = of
  if (!INT_BYTES.includes(sizeBytes))
    throw new TypeError(`integer "${name}" of ${sizeBytes} bytes is not supported`)
  const slow = bits(of, sizeBytes * 8)
  if (bool || sizeBytes > 8) return slow
  const get = (view: DataView, at: number): number | bigint => {
    switch (sizeBytes) {
      case 1:
        return signed ? view.getInt8(at) : view.getUint8(at)
      case 2:
        return signed ? view.getInt16(at, true) : view.getUint16(at, true)
      case 4:
        return signed ? view.getInt32(at, true) : view.getUint32(at, true)
      default:
        return signed ? view.getBigInt64(at, true) : view.getBigUint64(at, true)
    }
  }
  return { ...slow, read: (view, bit) => (bit % 8 === 0 ? get(view, bit / 8) : slow.read(view, bit)) }
}

function float(sizeBytes: number, name: string): Codec {
  if (sizeBytes !== 4 && sizeBytes !== 8)
    throw new TypeError(`floating-point type "${name}" of ${sizeBytes} bytes is not supported`)
  return {
    sizeBytes,
    count: 1,
    read: (view, bit) => (sizeBytes === 4 ? view.getFloat32(bit / 8, true) : view.getFloat64(bit / 8, true)),
    write(view, bit, value, path) {
      if (typeof value !== 'number') throw wrongType(path, 'a number', value)
      // It loses digits, as in C; but it must not become infinite.
      if (sizeBytes === 4 && Number.isFinite(value) && !Number.isFinite(Math.fround(value)))
        throw new RangeError(`${at(path)} takes a 32-bit float, not ${value}`)
      if (sizeBytes === 4) view.setFloat32(bit / 8, value, true)
      else view.setFloat64(bit / 8, value, true)
    },
  }
}

function bytesAt(view: DataView, bit: number, count: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + bit / 8, count)
}

function byteArray(count: number): Codec {
  return {
    sizeBytes: count,
    count: 1,
    isBytes: true,
    read: (view, bit) => bytesAt(view, bit, count).slice(),
    write(view, bit, value, path) {
      if (typeof value !== 'string' && !(value instanceof Uint8Array))
        throw wrongType(path, `${count} bytes or a string`, value)
      const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value
      // Strings are filled up with zeros.
      if (bytes.length > count || (bytes.length < count && typeof value !== 'string'))
        throw new RangeError(`${at(path)} takes ${count} bytes, not ${bytes.length}`)
      const place = bytesAt(view, bit, count)
      place.fill(0).set(bytes)
    },
  }
}

function textArray(count: number): Codec {
  const { isBytes: _, ...bytes } = byteArray(count)
  return {
    ...bytes,
    read(view, bit) {
      const all = bytesAt(view, bit, count)
      const end = all.indexOf(0)
      // A copy: memory that is shared with programs is no text to decode in place.
      return new TextDecoder('utf-8', { ignoreBOM: true }).decode(all.slice(0, end === -1 ? count : end))
    },
  }
}

function array(element: Codec, count: number): Codec {
  const stride = element.sizeBytes * 8
  return {
    sizeBytes: element.sizeBytes * count,
    count: element.count * count,
    elements: { codec: element, count },
    read: (view, bit) => Array.from({ length: count }, (_, i) => element.read(view, bit + i * stride)),
    write(view, bit, value, path) {
      if (!Array.isArray(value)) throw wrongType(path, `an array of ${count}`, value)
      if (value.length !== count)
        throw new RangeError(`${at(path)} takes ${count} elements, not ${value.length}`)
      for (const [i, one] of value.entries()) element.write(view, bit + i * stride, one, `${path}[${i}]`)
    },
  }
}

function composite(fields: readonly Field[], sizeBytes: number, name: string): Codec {
  const names = new Set(fields.map(field => field.name))
  return {
    sizeBytes,
    count: fields.reduce((sum, { codec }) => sum + codec.count, 1),
    fields,
    // fromEntries, unlike assignment, makes a plain member even of __proto__.
    read: (view, bit) =>
      Object.fromEntries(fields.map(field => [field.name, field.codec.read(view, bit + field.bitOff)])),
    write(view, bit, value, path) {
      if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array)
        throw wrongType(path, 'an object', value)
      for (const key of Object.keys(value))
        if (!names.has(key)) throw new TypeError(`${at(path)} (${name}) has no member "${key}"`)
      const members = value as { readonly [member: string]: TypedValue }
      for (const field of fields) {
        if (!Object.hasOwn(members, field.name)) continue
        const below = path === '' ? field.name : `${path}.${field.name}`
        field.codec.write(view, bit + field.bitOff, members[field.name]!, below)
      }
    },
  }
}
