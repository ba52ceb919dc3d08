/**
 * Makes an object's BTF simpler, for kernels that do not know every kind of type. Pure.
 *
 * Each kind that is lacking is replaced by one of as many words that all kernels know, so ids and
 * string offsets stay as they are. Only what is lost in the kernel's messages differs. Rules:
 * libbpf, bpf_object__sanitize_btf.
 */
import type { BtfDatasec, BtfType } from './btf.ts'
import { BtfEditor } from './editor.ts'

/** Kinds of types that kernels learnt after BTF itself, in the order in which they did. */
export const BTF_FEATURES = [
  'btf_func',
  'btf_datasec',
  'btf_func_global',
  'btf_float',
  'btf_decl_tag',
  'btf_type_tag',
  'btf_enum64',
  'btf_qmark_datasec',
] as const

export type BtfFeature = (typeof BTF_FEATURES)[number]

// Words of a type, as BtfEditor counts them.
const NAME = 0
const SIZE_OR_TYPE = 2
const BODY = 3
/**
 * Encoding of an int of one byte: of anything bigger a smaller variable would seem to be cut off.
 */
const BYTE_INT = 8

/** The blob without what the kernel lacks. FormatError: as `Btf.parse`. */
export function sanitizeBtf(bytes: Uint8Array, lacking: ReadonlySet<BtfFeature>): Uint8Array {
  const btf = new BtfEditor(bytes)
  const simplifier = new Simplifier(btf, lacking)
  for (let id = 1; id <= btf.original.count; id++) simplifier.simplify(btf.original.type(id))
  return btf.build()
}

class Simplifier {
  readonly #btf: BtfEditor
  readonly #lacking: ReadonlySet<BtfFeature>
  #placeholder: number | undefined
  #parameter: number | undefined

  constructor(btf: BtfEditor, lacking: ReadonlySet<BtfFeature>) {
    this.#btf = btf
    this.#lacking = lacking
  }

  simplify(type: BtfType): void {
    const lacks = (feature: BtfFeature): boolean => this.#lacking.has(feature)
    const btf = this.#btf
    const { id } = type
    switch (type.kind) {
      case 'var':
        if (lacks('btf_datasec')) this.#toByte(id)
        break
      case 'decl_tag':
        if (lacks('btf_decl_tag')) this.#toByte(id)
        break
      case 'datasec':
        if (lacks('btf_datasec')) this.#toStruct(type)
        else if (lacks('btf_qmark_datasec') && type.name.startsWith('?'))
          btf.setWord(id, NAME, btf.addString(`_${type.name.slice(1)}`))
        break
      case 'func_proto':
        if (lacks('btf_func')) this.#toEnum(id, type.params)
        break
      case 'func':
        if (lacks('btf_func')) btf.setKind(id, 'typedef')
        // Linkage is in the place of a number of units, which a typedef has none of.
        if (lacks('btf_func') || lacks('btf_func_global')) btf.setUnits(id, 0)
        break
      case 'float':
        // Equally big and empty. "float" is no name for a struct.
        if (lacks('btf_float')) this.#rename(id, 'struct')
        break
      case 'type_tag':
        if (lacks('btf_type_tag')) this.#rename(id, 'const')
        break
      case 'enum':
        // Signedness came with enums of 64 bits.
        if (lacks('btf_enum64')) btf.setKind(id, 'enum')
        break
      case 'enum64':
        if (lacks('btf_enum64')) this.#toUnion(id, type.values.length)
        break
      default:
    }
  }

  #rename(id: number, kind: 'struct' | 'const'): void {
    this.#btf.setWord(id, NAME, 0)
    this.#btf.setKind(id, kind)
  }

  #toByte(id: number): void {
    this.#btf.setKind(id, 'int')
    this.#btf.setWord(id, SIZE_OR_TYPE, 1)
    this.#btf.setWord(id, BODY, BYTE_INT)
  }

  /** (type, byte offset, size) of each variable becomes (name, type, bit offset) of a member. */
  #toStruct({ id, name, vars }: BtfDatasec): void {
    const btf = this.#btf
    btf.setWord(id, NAME, btf.addString(name.replace(/[^A-Za-z0-9_]/g, '_')))
    btf.setKind(id, 'struct')
    for (const [i, { type, off }] of vars.entries()) {
      btf.setWord(id, BODY + 3 * i, btf.word(type, NAME))
      btf.setWord(id, BODY + 3 * i + 1, type)
      btf.setWord(id, BODY + 3 * i + 2, off * 8)
    }
  }

  /** Parameters, a name and a type each, become enumerators, which must have a name. */
  #toEnum(id: number, params: readonly { readonly name: string }[]): void {
    const btf = this.#btf
    btf.setKind(id, 'enum')
    btf.setWord(id, SIZE_OR_TYPE, 4)
    for (const [i, { name }] of params.entries()) {
      if (name !== '') continue
      this.#parameter ??= btf.addString('param')
      btf.setWord(id, BODY + 2 * i, this.#parameter)
    }
  }

  /** (name, low half, high half) of each value becomes (name, type, bit offset) of a member. */
  #toUnion(id: number, count: number): void {
    const btf = this.#btf
    this.#placeholder ??= btf.addType('int', 'enum64_placeholder', 1, [BYTE_INT])
    btf.setKind(id, 'union')
    for (let i = 0; i < count; i++) {
      btf.setWord(id, BODY + 3 * i + 1, this.#placeholder)
      btf.setWord(id, BODY + 3 * i + 2, 0)
    }
  }
}
