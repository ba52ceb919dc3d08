/**
 * Where in a file the code of a function is. Pure.
 *
 * A uprobe is set at a byte of the file, while a symbol's value is an address; the section that the
 * symbol is in says how far apart they are. Names may have a version, as linkers write it:
 * `pthread_create@GLIBC_2.2.5`. Layout: System V ABI, chapter 4; LSB, "Symbol Versioning".
 */
import { ConflictError, FormatError, NotFoundError } from '../../errors.ts'
import { glob } from '../glob.ts'
import type { Executable, ExecutableSection } from './executable.ts'

const SYMBOL_BYTES = 24
const SHT_SYMTAB = 2
const SHT_DYNSYM = 11
const SHT_GNU_VERDEF = 0x6fff_fffd
const SHT_GNU_VERSYM = 0x6fff_ffff
const STT_FUNC = 2
const STB_GLOBAL = 1
/** The version is not the one that is meant by the bare name. */
const VERSYM_HIDDEN = 0x8000
/** Of struct Elf64_Verdef. */
const VERDEF_BYTES = 20
/** A file with more has no end. */
const MAX_VERSIONS = 0x7fff

export interface FunctionSymbol {
  /** Without a version. */
  readonly name: string
  readonly version: string | undefined
  /** Whether the bare name means this one. */
  readonly isDefault: boolean
  readonly global: boolean
  /** Byte of the file. */
  readonly off: bigint
}

/**
 * Byte offset in the file of function `name`, which may end in `@VERSION` or `@@VERSION`. As
 * libbpf: the dynamic table counts first, and what is global before what is not. NotFoundError:
 * neither table has it. ConflictError: several have the name, at different places.
 */
export function symbolOffset(file: Executable, name: string): bigint {
  const [, base = name, version] = /^([^@]+)@@?(.+)$/.exec(name) ?? []
  for (const type of [SHT_DYNSYM, SHT_SYMTAB]) {
    const named = [...functions(file, type, Buffer.from(base))].filter(
      one => version === undefined || one.version === version,
    )
    const found = preferred(
      preferred(named, one => version !== undefined || one.isDefault),
      one => one.global,
    )
    const offs = new Set(found.map(({ off }) => off))
    if (offs.size > 1)
      throw new ConflictError(`${file.path} has ${offs.size} functions "${name}"`, {
        context: { path: file.path, symbol: name },
        hint: 'Name a version of it, or give a byte offset',
      })
    if (found.length > 0) return found[0]!.off
  }
  throw new NotFoundError(`${file.path} has no function "${name}"`, {
    context: { path: file.path, symbol: name },
    hint: 'Name a function of its symbol tables, or give a byte offset',
  })
}

function preferred(
  all: readonly FunctionSymbol[],
  is: (one: FunctionSymbol) => boolean,
): readonly FunctionSymbol[] {
  const some = all.filter(is)
  return some.length > 0 ? some : all
}

/**
 * Byte offsets of the functions whose names fit a pattern with `*`, `?` and `[...]`, each place
 * once, by name. As libbpf: of the dynamic table, or where that has none, of the other.
 * NotFoundError: none fits.
 */
export function matchingSymbols(file: Executable, pattern: string): { name: string; off: bigint }[] {
  const fits = glob(pattern)
  for (const type of [SHT_DYNSYM, SHT_SYMTAB]) {
    const found = new Map<bigint, string>()
    for (const { name, off } of functions(file, type)) if (fits(name)) found.set(off, name)
    if (found.size > 0) return [...found].map(([off, name]) => ({ name, off }))
  }
  throw new NotFoundError(`${file.path} has no function that fits "${pattern}"`, {
    context: { path: file.path, pattern },
    hint: 'Name functions of its symbol tables',
  })
}

/**
 * Functions of one kind of table, all or those of one name, that have code in the file. Of each kind
 * there is one table: as libbpf, the first.
 */
function* functions(file: Executable, type: number, wanted?: Buffer): Generator<FunctionSymbol> {
  const table = file.sections.find(one => one.type === type)
  const strings = table && file.sections[table.link]
  if (table === undefined || strings === undefined) return
  file.requireInside(table.off, table.sizeBytes, 'a symbol table')
  file.requireInside(strings.off, strings.sizeBytes, 'a string table')
  const versions = versionsOf(file, table)
  const count = Math.floor(table.sizeBytes / SYMBOL_BYTES)
  for (let index = 0; index < count; index++) {
    const at = table.off + index * SYMBOL_BYTES
    const [info, of] = [file.bytes[at + 4]!, file.sections[file.u16(at + 6)]]
    if ((info & 0xf) !== STT_FUNC || of === undefined || of.index === 0) continue
    const nameAt = file.u32(at)
    if (wanted !== undefined && !startsWith(file.bytes, strings.off + nameAt, wanted)) continue
    const [, name = '', written] = /^([^@]*)(?:@@?(.*))?$/s.exec(file.text(strings, nameAt)) ?? []
    if (wanted !== undefined && name !== wanted.toString()) continue
    const { version, isDefault } = versions?.(index) ?? { version: written, isDefault: true }
    const off = file.u64(at + 8) - of.address + BigInt(of.off)
    yield { name, version, isDefault, global: info >> 4 === STB_GLOBAL, off }
  }
}

function startsWith(bytes: Buffer, at: number, text: Buffer): boolean {
  return text.equals(bytes.subarray(at, at + text.length))
}

type VersionOf = (symbol: number) => { version: string | undefined; isDefault: boolean }

/** Undefined: symbols of the table have no versions. */
function versionsOf(file: Executable, table: ExecutableSection): VersionOf | undefined {
  const indexes = file.sections.find(({ type, link }) => type === SHT_GNU_VERSYM && link === table.index)
  if (indexes === undefined) return undefined
  file.requireInside(indexes.off, indexes.sizeBytes, 'symbol versions')
  const names = versionNames(file)
  return symbol => {
    if (symbol * 2 + 2 > indexes.sizeBytes) return { version: undefined, isDefault: true }
    const index = file.u16(indexes.off + symbol * 2)
    return { version: names.get(index & ~VERSYM_HIDDEN), isDefault: (index & VERSYM_HIDDEN) === 0 }
  }
}

/**
 * Elf64_Verdef: u16 version, u16 flags, u16 index @4, u16 count, u32 hash, u32 off of the names
 * @12, u32 off of the next one @16. The first of the names, u32 off into the strings @0, is its
 * own.
 */
function versionNames(file: Executable): Map<number, string> {
  const names = new Map<number, string>()
  const definitions = file.sections.find(({ type }) => type === SHT_GNU_VERDEF)
  const strings = definitions && file.sections[definitions.link]
  if (definitions === undefined || strings === undefined) return names
  file.requireInside(definitions.off, definitions.sizeBytes, 'version definitions')
  const end = definitions.off + definitions.sizeBytes
  for (let at = definitions.off; at + VERDEF_BYTES <= end; ) {
    const name = at + file.u32(at + 12)
    if (name + 4 <= end) names.set(file.u16(at + 4), file.text(strings, file.u32(name)))
    const next = file.u32(at + 16)
    if (next === 0) break
    if (next < VERDEF_BYTES) throw new FormatError('ELF', `${file.path} has versions that overlap`)
    at += next
    if (names.size > MAX_VERSIONS) throw new FormatError('ELF', `${file.path} has too many versions`)
  }
  return names
}
