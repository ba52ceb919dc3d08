/** Writes a relocatable BPF object: sections, symbols, relocations. Pure. */
import { NotSupportedError } from '../../errors.ts'
import { EM_BPF, ET_REL, SHN, SHT, STB } from '../elf/elf.ts'

export interface WrittenSection {
  readonly name: string
  /** `SHT` */
  readonly type: number
  /** `SHF` */
  readonly flags: number
  readonly alignBytes: number
  readonly entryBytes: number
  readonly sizeBytes: number
  /** Empty for NOBITS. */
  readonly data: Uint8Array
  readonly relocations: readonly WrittenRelocation[]
}

export interface WrittenSymbol {
  readonly name: string
  readonly bind: number
  readonly type: number
  readonly visibility: number
  /** Where it is; a number: one of `SHN`. */
  readonly section: WrittenSection | number
  readonly value: number
  readonly sizeBytes: number
}

export interface WrittenRelocation {
  readonly off: number
  readonly symbol: WrittenSymbol
  /** `R_BPF_*` */
  readonly type: number
}

/** A section that no program sees, such as .BTF. */
export function plainSection(name: string, data: Uint8Array): WrittenSection {
  return {
    ...{ name, type: SHT.PROGBITS, flags: 0, alignBytes: 8, entryBytes: 0, sizeBytes: data.length, data },
    relocations: [],
  }
}

const HEADER_BYTES = 64
const SECTION_BYTES = 64
const SYMBOL_BYTES = 24
const REL_BYTES = 16

/** Names are characters of one byte each. */
class Strings {
  readonly #offs = new Map<string, number>([['', 0]])
  readonly #all = [Buffer.from('\0')]
  #bytes = 1

  off(text: string): number {
    let off = this.#offs.get(text)
    if (off === undefined) {
      const bytes = Buffer.from(`${text}\0`, 'utf8')
      off = this.#bytes
      this.#offs.set(text, off)
      this.#all.push(bytes)
      this.#bytes += bytes.length
    }
    return off
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#all)
  }
}

interface Head {
  readonly name: string
  readonly type: number
  readonly flags: number
  readonly link: number
  readonly info: number
  readonly align: number
  readonly entry: number
  readonly size: number
  readonly data: Uint8Array
}

/**
 * The file, in little or big endian; sections are in that order already. Local symbols come first in
 * it, as ELF wants them. NotSupportedError: there are more
 * sections than it can number.
 */
export function writeElf(
  sections: readonly WrittenSection[],
  symbols: readonly WrittenSymbol[],
  little = true,
): Uint8Array {
  const strings = new Strings()
  const indexOf = new Map(sections.map((section, i) => [section, i + 1]))
  const ordered = [
    ...symbols.filter(({ bind }) => bind === STB.LOCAL),
    ...symbols.filter(({ bind }) => bind !== STB.LOCAL),
  ]
  const numberOf = new Map(ordered.map((symbol, i) => [symbol, i + 1]))
  const relocated = sections.filter(({ relocations }) => relocations.length > 0)
  const symtab = sections.length + relocated.length + 1
  // Numbers of sections have 16 bits, and the upper ones mean something else.
  if (symtab + 2 > SHN.LORESERVE)
    throw new NotSupportedError(`An object of ${symtab + 1} sections cannot be written`, {
      context: { sections: symtab + 1, most: SHN.LORESERVE - 2 },
    })
  const heads: Head[] = [
    ...sections.map(({ name, type, flags, alignBytes, entryBytes, sizeBytes, data }) => ({
      ...{ name, type, flags, link: 0, info: 0, align: alignBytes, entry: entryBytes, size: sizeBytes, data },
    })),
    ...relocated.map(section => {
      const data = relTable(section.relocations, numberOf, little)
      return {
        ...{
          name: `.rel${section.name}`,
          type: SHT.REL,
          flags: 0,
          link: symtab,
          info: indexOf.get(section)!,
        },
        ...{ align: 8, entry: REL_BYTES, size: data.length, data },
      }
    }),
  ]
  const table = symbolTable(ordered, indexOf, strings, little)
  const locals = ordered.filter(({ bind }) => bind === STB.LOCAL).length
  heads.push({
    ...{ name: '.symtab', type: SHT.SYMTAB, flags: 0, link: symtab + 1, info: locals + 1 },
    ...{ align: 8, entry: SYMBOL_BYTES, size: table.length, data: table },
  })
  const names = [...heads.map(({ name }) => strings.off(name)), strings.off('.strtab')]
  const text = strings.bytes
  heads.push({
    ...{ name: '.strtab', type: SHT.STRTAB, flags: 0, link: 0, info: 0, align: 1, entry: 0 },
    ...{ size: text.length, data: text },
  })
  return layOut(heads, names, little)
}

function layOut(heads: readonly Head[], names: readonly number[], little: boolean): Uint8Array {
  let end = HEADER_BYTES
  const offs = heads.map(({ align, data }) => {
    const off = Math.ceil(end / Math.max(1, align)) * Math.max(1, align)
    end = off + data.length
    return off
  })
  const tableOff = Math.ceil(end / 8) * 8
  const bytes = new Uint8Array(tableOff + (heads.length + 1) * SECTION_BYTES)
  const view = new DataView(bytes.buffer)
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, little ? 1 : 2, 1])
  view.setUint16(16, ET_REL, little)
  view.setUint16(18, EM_BPF, little)
  view.setUint32(20, 1, little)
  view.setBigUint64(40, BigInt(tableOff), little)
  view.setUint16(52, HEADER_BYTES, little)
  view.setUint16(58, SECTION_BYTES, little)
  view.setUint16(60, heads.length + 1, little)
  view.setUint16(62, heads.length, little)
  for (const [i, head] of heads.entries()) {
    bytes.set(head.data, offs[i])
    const at = tableOff + (i + 1) * SECTION_BYTES
    view.setUint32(at, names[i]!, little)
    view.setUint32(at + 4, head.type, little)
    const wide = [head.flags, 0, offs[i]!, head.size]
    for (const [n, value] of wide.entries()) view.setBigUint64(at + 8 + n * 8, BigInt(value), little)
    view.setUint32(at + 40, head.link, little)
    view.setUint32(at + 44, head.info, little)
    view.setBigUint64(at + 48, BigInt(head.align), little)
    view.setBigUint64(at + 56, BigInt(head.entry), little)
  }
  return bytes
}

function relTable(
  relocations: readonly WrittenRelocation[],
  numberOf: ReadonlyMap<WrittenSymbol, number>,
  little: boolean,
): Uint8Array {
  const data = new Uint8Array(relocations.length * REL_BYTES)
  const view = new DataView(data.buffer)
  for (const [i, { off, symbol, type }] of relocations.entries()) {
    view.setBigUint64(i * REL_BYTES, BigInt(off), little)
    // r_info: the symbol is its upper half, which comes last in little endian and else first.
    view.setBigUint64(i * REL_BYTES + 8, (BigInt(numberOf.get(symbol)!) << 32n) | BigInt(type), little)
  }
  return data
}

function symbolTable(
  symbols: readonly WrittenSymbol[],
  indexOf: ReadonlyMap<WrittenSection, number>,
  strings: Strings,
  little: boolean,
): Uint8Array {
  const data = new Uint8Array((symbols.length + 1) * SYMBOL_BYTES)
  const view = new DataView(data.buffer)
  for (const [i, symbol] of symbols.entries()) {
    const at = (i + 1) * SYMBOL_BYTES
    view.setUint32(at, strings.off(symbol.name), little)
    view.setUint8(at + 4, (symbol.bind << 4) | symbol.type)
    view.setUint8(at + 5, symbol.visibility)
    const { section } = symbol
    view.setUint16(
      at + 6,
      typeof section === 'number' ? section : (indexOf.get(section) ?? SHN.UNDEF),
      little,
    )
    view.setBigUint64(at + 8, BigInt(symbol.value), little)
    view.setBigUint64(at + 16, BigInt(symbol.sizeBytes), little)
  }
  return data
}
