/**
 * ELF64 reader: bytes to sections, symbols and relocations, in both byte orders. Pure.
 *
 * Only what a relocatable BPF object holds; every length is checked against the file before it is
 * used, and contents are views into it, so time and memory are linear in the input. Anything
 * malformed is a FormatError. Layout: System V ABI, chapter 4; include/uapi/linux/elf.h. Start with
 * `parseElf`.
 */
import { FormatError } from '../../errors.ts'

/** Machine number of BPF. */
export const EM_BPF = 247
/** File type: relocatable. */
export const ET_REL = 1

/** Types of section. */
export const SHT = {
  PROGBITS: 1,
  SYMTAB: 2,
  STRTAB: 3,
  RELA: 4,
  NOBITS: 8,
  REL: 9,
  SYMTAB_SHNDX: 18,
} as const
/** Flags of a section. */
export const SHF = { WRITE: 1, ALLOC: 2, EXECINSTR: 4 } as const
/** Section numbers of symbols that mean no section; from LORESERVE on all are special. */
export const SHN = { UNDEF: 0, LORESERVE: 0xff00, ABS: 0xfff1, COMMON: 0xfff2 } as const
export const STB = { LOCAL: 0, GLOBAL: 1, WEAK: 2 } as const
export const STT = { NOTYPE: 0, OBJECT: 1, FUNC: 2, SECTION: 3, FILE: 4 } as const
/** Visibility of symbols: these two are not seen outside their object. */
export const STV = { INTERNAL: 1, HIDDEN: 2 } as const

export interface ElfSection {
  /** Its number, by which symbols and relocations refer to it. */
  readonly index: number
  readonly name: string
  /** `SHT` */
  readonly type: number
  /** `SHF` */
  readonly flags: number
  /** In memory; for NOBITS there is no such data in the file. */
  readonly sizeBytes: number
  /** Symbol table: the section of its names. Relocations: the symbol table. */
  readonly link: number
  /** Relocations: the section they apply to. */
  readonly info: number
  readonly entryBytes: number
  /** What its place in memory is a multiple of; 0 and 1: anything. */
  readonly alignBytes: number
  /** Empty for NOBITS. A view into the file. */
  readonly data: Uint8Array
}

export interface ElfSymbol {
  /** Empty for sections. */
  readonly name: string
  /** In a relocatable file: byte offset into its section. */
  readonly value: number
  readonly sizeBytes: number
  /** Number of its section, or one of `SHN`. */
  readonly section: number
  /** `STB` */
  readonly bind: number
  /** `STT` */
  readonly type: number
  /** `STV` */
  readonly visibility: number
}

export interface ElfRelocation {
  /** Byte offset into the section that it applies to. */
  readonly off: number
  /** Number of the symbol. */
  readonly symbol: number
  /** `R_BPF_*` */
  readonly type: number
}

export interface Elf {
  readonly littleEndian: boolean
  readonly machine: number
  readonly type: number
  /** By number; the first one is empty. */
  readonly sections: readonly ElfSection[]
  /** By number; the first one is empty. No symbols: none in the file. */
  readonly symbols: readonly ElfSymbol[]
  /**
   * Relocations by the number of the section that they apply to, except those for debug
   * information.
   */
  readonly relocations: ReadonlyMap<number, readonly ElfRelocation[]>
}

const HEADER_BYTES = 64
const SECTION_BYTES = 64
const SYMBOL_BYTES = 24
const REL_BYTES = 16
const RELA_BYTES = 24
/**
 * Bounds the memory of a table whose names all end in one endless string. Symbols of the kernel
 * have up to 512.
 */
const MAX_NAME_BYTES = 1024

/**
 * Sections whose relocations are for debuggers and linkers; .BTF.ext has byte offsets in place of
 * addresses.
 */
const DEBUG_INFORMATION = /^\.(debug_|BTF$|BTF\.ext$|eh_frame$)/

const MAGIC = [0x7f, 0x45, 0x4c, 0x46]

function bad(message: string, off?: number): FormatError {
  return new FormatError('ELF', message, off === undefined ? {} : { off })
}

/** Reads numbers in the byte order of the file. Offsets have been checked by the caller. */
class Reader {
  readonly #view: DataView
  readonly #little: boolean

  constructor(bytes: Uint8Array, little: boolean) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#little = little
  }
  u8(off: number): number {
    return this.#view.getUint8(off)
  }
  u16(off: number): number {
    return this.#view.getUint16(off, this.#little)
  }
  u32(off: number): number {
    return this.#view.getUint32(off, this.#little)
  }
  /** Inexact above 2^53, where it is larger than any length it will be compared with. */
  u64(off: number): number {
    const [low, high] = this.#little ? [off, off + 4] : [off + 4, off]
    return this.u32(high) * 2 ** 32 + this.u32(low)
  }
}

/** Whether the bytes start as an ELF file does. */
export function isElf(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, i) => bytes[i] === byte)
}

/** Opens an ELF64 file. Keeps `bytes`. */
export function parseElf(bytes: Uint8Array): Elf {
  if (bytes.length < HEADER_BYTES)
    throw bad(`${bytes.length} bytes are too few for a header of ${HEADER_BYTES}`)
  if (!isElf(bytes)) throw bad('does not start with 0x7f "ELF"', 0)
  if (bytes[4] !== 2) throw bad('is not of 64 bits', 4)
  const order = bytes[5]
  if (order !== 1 && order !== 2) throw bad(`byte order ${order} is not known`, 5)
  const read = new Reader(bytes, order === 1)
  const sections = readSections(bytes, read)
  const symbols = readSymbols(bytes, read, sections)
  return {
    littleEndian: order === 1,
    type: read.u16(16),
    machine: read.u16(18),
    sections,
    symbols,
    relocations: readRelocations(bytes, read, sections, symbols.length),
  }
}

interface RawSection extends ElfSection {
  /** Where its data are in the file. */
  readonly off: number
}

function readSections(bytes: Uint8Array, read: Reader): RawSection[] {
  const tableOff = read.u64(40)
  const entryBytes = read.u16(58)
  const count = read.u16(60)
  const namesIndex = read.u16(62)
  if (count === 0) throw bad('has no sections', 60)
  if (entryBytes !== SECTION_BYTES) throw bad(`section headers of ${entryBytes} bytes are not known`, 58)
  if (tableOff + count * SECTION_BYTES > bytes.length) throw bad('section headers run past the end', 40)

  // Data that overlap would be copied and parsed once for each section: refused, as no compiler
  // makes them.
  let total = 0
  const nameOffs: number[] = []
  const heads = Array.from({ length: count }, (_, index) => {
    const at = tableOff + index * SECTION_BYTES
    const type = read.u32(at + 4)
    const off = read.u64(at + 24)
    const sizeBytes = read.u64(at + 32)
    // Section 0 has no data: its fields hold what does not fit the header.
    const inFile = index === 0 || type === SHT.NOBITS ? 0 : sizeBytes
    if (inFile > 0 && off + inFile > bytes.length) throw bad(`section ${index} runs past the end`, at + 24)
    total += inFile
    if (total > bytes.length) throw bad(`section ${index} overlaps others`, at + 24)
    nameOffs.push(read.u32(at))
    return {
      index,
      name: '',
      type,
      off,
      sizeBytes: index === 0 ? 0 : sizeBytes,
      flags: read.u64(at + 8),
      link: read.u32(at + 40),
      info: read.u32(at + 44),
      entryBytes: read.u64(at + 56),
      alignBytes: read.u64(at + 48),
      data: inFile === 0 ? bytes.subarray(0, 0) : bytes.subarray(off, off + inFile),
    }
  })
  const namesData = heads[namesIndex]?.data
  if (namesData === undefined) throw bad(`section ${namesIndex}, which should hold names, does not exist`, 62)
  const names = textOf(namesData)
  for (const head of heads)
    if (head.index > 0) head.name = stringAt(names, nameOffs[head.index]!, 'name of section', head.index)
  return heads
}

function stringAt(names: Buffer, off: number, what: string, which: number): string {
  const end = off < names.length ? names.indexOf(0, off) : -1
  if (end === -1) throw bad(`${what} ${which} lies outside its string table`)
  if (end - off > MAX_NAME_BYTES) throw bad(`${what} ${which} is longer than ${MAX_NAME_BYTES} bytes`)
  return names.toString('utf8', off, end)
}

/** The same bytes, read as text without a new object for each string. */
function textOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** How many entries a table has. */
function countOf(section: ElfSection, entryBytes: number): number {
  if (section.entryBytes !== entryBytes || section.data.length % entryBytes !== 0)
    throw bad(`section "${section.name}" is no table of entries of ${entryBytes} bytes`)
  return section.data.length / entryBytes
}

function readSymbols(bytes: Uint8Array, read: Reader, sections: readonly RawSection[]): ElfSymbol[] {
  const tables = sections.filter(({ type }) => type === SHT.SYMTAB)
  const table = tables[0]
  if (table === undefined) return []
  if (tables.length > 1) throw bad('has several symbol tables')
  if (sections.some(({ type }) => type === SHT.SYMTAB_SHNDX)) throw bad('has too many sections')
  const names = textOf(sections[table.link]?.data ?? bytes.subarray(0, 0))
  const count = countOf(table, SYMBOL_BYTES)
  const symbols: ElfSymbol[] = []
  for (let i = 0; i < count; i++) {
    const at = table.off + i * SYMBOL_BYTES
    const info = read.u8(at + 4)
    const section = read.u16(at + 6)
    if (section < SHN.LORESERVE && section >= sections.length)
      throw bad(`symbol ${i} is of section ${section}, which does not exist`, at + 6)
    const nameOff = read.u32(at)
    symbols.push({
      name: nameOff === 0 ? '' : stringAt(names, nameOff, 'name of symbol', i),
      value: read.u64(at + 8),
      sizeBytes: read.u64(at + 16),
      section,
      bind: info >> 4,
      type: info & 0xf,
      visibility: read.u8(at + 5) & 0x3,
    })
  }
  return symbols
}

function readRelocations(
  bytes: Uint8Array,
  read: Reader,
  sections: readonly RawSection[],
  symbolCount: number,
): Map<number, ElfRelocation[]> {
  const all = new Map<number, ElfRelocation[]>()
  for (const table of sections) {
    if (table.type !== SHT.REL && table.type !== SHT.RELA) continue
    const target = sections[table.info]
    if (table.info === 0 || target === undefined)
      throw bad(`relocations "${table.name}" are for section ${table.info}, which does not exist`)
    // The most by far, and nobody reads them here.
    if (DEBUG_INFORMATION.test(target.name)) continue
    // BPF keeps the addend in the place itself: RELA is seen only in sections that nobody loads.
    const entryBytes = table.type === SHT.REL ? REL_BYTES : RELA_BYTES
    const relocations = all.get(table.info) ?? []
    all.set(table.info, relocations)
    const little = bytes[5] === 1
    for (let i = 0, count = countOf(table, entryBytes); i < count; i++) {
      const at = table.off + i * entryBytes
      // r_info: symbol in the upper half, type in the lower.
      const symbol = read.u32(little ? at + 12 : at + 8)
      const type = read.u32(little ? at + 8 : at + 12)
      const off = read.u64(at)
      if (symbol >= symbolCount) throw bad(`relocation of symbol ${symbol}, which does not exist`, at + 8)
      if (off >= target.sizeBytes) throw bad(`relocation outside section "${target.name}"`, at)
      relocations.push({ off, symbol, type })
    }
  }
  return all
}
