/**
 * Writes a raw BTF blob, type by type, for BPF_BTF_LOAD. The counterpart of btf.ts; pure.
 *
 *   const btf = new BtfBuilder()
 *   const int = btf.int('int', 4, { signed: true })
 *   btf.struct('pair', 8, [{ name: 'a', type: int, bitOff: 0 }, { name: 'b', type: int, bitOff: 32 }])
 *   const blob = btf.build()
 *
 * Each method returns the new type's id; ids may be used before the type exists. What makes sense
 * is the kernel's to judge.
 */
import { FormatError } from '../../errors.ts'
import type { BtfKind } from './btf.ts'
import { BTF_KIND } from './type.ts'

const HEADER_BYTES = 24
const MAGIC = 0xeb9f
const MAX_VLEN = 0xffff

export type NamedType = { readonly name: string; readonly type: number }
export type MemberSpec = NamedType & { readonly bitOff: number; readonly bitSize?: number }

export class BtfBuilder {
  readonly #words: number[] = []
  readonly #strings: Buffer[] = [Buffer.from('\0')]
  readonly #offs = new Map<string, number>([['', 0]])
  #stringsBytes = 1
  #count = 0

  #string(text: string): number {
    const known = this.#offs.get(text)
    if (known !== undefined) return known
    const bytes = Buffer.from(`${text}\0`)
    if (bytes.indexOf(0) !== bytes.length - 1) throw new FormatError('BTF', 'a name holds a zero byte')
    const off = this.#stringsBytes
    this.#strings.push(bytes)
    this.#stringsBytes += bytes.length
    this.#offs.set(text, off)
    return off
  }

  /** `rest` is what follows the head; `vlen` also holds the linkage of a func. */
  #add(kind: BtfKind, name: string, sizeOrType: number, rest: number[] = [], vlen = 0, flag = false): number {
    if (vlen > MAX_VLEN)
      throw new FormatError('BTF', `${kind} "${name}" has ${vlen} parts, at most ${MAX_VLEN}`)
    const info = ((flag ? 1 : 0) << 31) | (BTF_KIND[kind] << 24) | vlen
    this.#words.push(this.#string(name), info, sizeOrType)
    for (const word of rest) this.#words.push(word)
    return ++this.#count
  }

  int(name: string, size: number, how: { signed?: boolean; char?: boolean; bool?: boolean } = {}): number {
    const enc = (how.signed ? 1 << 24 : 0) | (how.char ? 1 << 25 : 0) | (how.bool ? 1 << 26 : 0)
    return this.#add('int', name, size, [enc | (size * 8)])
  }
  float(name: string, size: number): number {
    return this.#add('float', name, size)
  }
  ptr(type: number): number {
    return this.#add('ptr', '', type)
  }
  const(type: number): number {
    return this.#add('const', '', type)
  }
  volatile(type: number): number {
    return this.#add('volatile', '', type)
  }
  restrict(type: number): number {
    return this.#add('restrict', '', type)
  }
  typedef(name: string, type: number): number {
    return this.#add('typedef', name, type)
  }
  typeTag(tag: string, type: number): number {
    return this.#add('type_tag', tag, type)
  }
  /** Tags a type, or with `component` one of its members or parameters. */
  declTag(tag: string, type: number, component = -1): number {
    return this.#add('decl_tag', tag, type, [component])
  }
  /** `index` is the type of the index, an int. */
  array(type: number, index: number, count: number): number {
    return this.#add('array', '', 0, [type, index, count])
  }
  struct(name: string, size: number, members: readonly MemberSpec[]): number {
    return this.#composite('struct', name, size, members)
  }
  union(name: string, size: number, members: readonly MemberSpec[]): number {
    return this.#composite('union', name, size, members)
  }
  #composite(kind: 'struct' | 'union', name: string, size: number, members: readonly MemberSpec[]): number {
    const bits = members.some(member => (member.bitSize ?? 0) > 0)
    const rest = members.flatMap(({ name, type, bitOff, bitSize = 0 }) => [
      this.#string(name),
      type,
      bits ? (bitSize << 24) | bitOff : bitOff,
    ])
    return this.#add(kind, name, size, rest, members.length, bits)
  }
  fwd(name: string, kind: 'struct' | 'union'): number {
    return this.#add('fwd', name, 0, [], 0, kind === 'union')
  }
  enum(name: string, values: Readonly<Record<string, number>>, size = 4): number {
    const entries = Object.entries(values)
    const signed = entries.some(([, value]) => value < 0)
    const rest = entries.flatMap(([name, value]) => [this.#string(name), value])
    return this.#add('enum', name, size, rest, entries.length, signed)
  }
  enum64(name: string, values: Readonly<Record<string, bigint>>): number {
    const entries = Object.entries(values)
    const signed = entries.some(([, value]) => value < 0n)
    const half = (value: bigint) => Number(BigInt.asUintN(32, value))
    const rest = entries.flatMap(([name, value]) => [this.#string(name), half(value), half(value >> 32n)])
    return this.#add('enum64', name, 8, rest, entries.length, signed)
  }
  funcProto(result: number, params: readonly NamedType[]): number {
    const rest = params.flatMap(({ name, type }) => [this.#string(name), type])
    return this.#add('func_proto', '', result, rest, params.length)
  }
  func(name: string, proto: number, linkage: 'static' | 'global' | 'extern' = 'global'): number {
    return this.#add('func', name, proto, [], ['static', 'global', 'extern'].indexOf(linkage))
  }
  var(name: string, type: number, linkage: 'static' | 'global' | 'extern' = 'global'): number {
    return this.#add('var', name, type, [['static', 'global', 'extern'].indexOf(linkage)])
  }
  datasec(
    name: string,
    size: number,
    vars: readonly { readonly type: number; readonly off: number; readonly size: number }[],
  ): number {
    const rest = vars.flatMap(({ type, off, size }) => [type, off, size])
    return this.#add('datasec', name, size, rest, vars.length)
  }

  /** The blob: header, types, strings. */
  build(): Uint8Array {
    const typesBytes = this.#words.length * 4
    const blob = Buffer.alloc(HEADER_BYTES + typesBytes + this.#stringsBytes)
    blob.writeUInt16LE(MAGIC, 0)
    blob.writeUInt8(1, 2)
    const header = [HEADER_BYTES, 0, typesBytes, typesBytes, this.#stringsBytes]
    for (const [i, word] of [...header, ...this.#words].entries()) blob.writeUInt32LE(word >>> 0, 4 + i * 4)
    Buffer.concat(this.#strings).copy(blob, HEADER_BYTES + typesBytes)
    return new Uint8Array(blob.buffer, blob.byteOffset, blob.length)
  }
}
