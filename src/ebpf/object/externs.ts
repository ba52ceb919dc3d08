/**
 * What an object wants from the kernel by name: configuration values, symbols and functions. Pure.
 *
 * `extern` variables in .kconfig become fields of one read-only map; variables and functions in
 * .ksyms become addresses or BTF ids. Here they are found, and the object's BTF is corrected so
 * that a kernel takes it: as in libbpf (src/libbpf.c, bpf_object__collect_externs), for offsets
 * have to be the same.
 */
import { FormatError } from '../../errors.ts'
import type { BtfArray, BtfDatasec, BtfRef, BtfType } from '../btf/btf.ts'
import type { BtfEditor } from '../btf/editor.ts'
import { type Elf, type ElfSymbol, SHN, STB, STT } from '../elf/elf.ts'

/** What a configuration value is stored as. */
export type KconfigShape = 'bool' | 'char' | 'int' | 'tristate' | 'char_array'

export interface KconfigField {
  /** Byte offset into the map `.kconfig`. */
  readonly off: number
  readonly sizeBytes: number
  readonly shape: KconfigShape
  readonly signed: boolean
}

export interface ExternSpec {
  readonly name: string
  /** May be missing: it then reads as zero. */
  readonly weak: boolean
  /** `ksym`: a variable; `kfunc`: a function. */
  readonly kind: 'kconfig' | 'ksym' | 'kfunc'
  /** Number of its symbol. */
  readonly symbol: number
  /**
   * Type in the object's BTF, behind typedefs and qualifiers; of a function its prototype. 0: void,
   * so that only the address is wanted.
   */
  readonly typeId: number
  /** For `kconfig`. */
  readonly field?: KconfigField
}

export interface Externs {
  readonly all: readonly ExternSpec[]
  /** Bytes of the map `.kconfig`; 0: there is none. */
  readonly kconfigBytes: number
}

const KCONFIG = '.kconfig'
const KSYMS = '.ksyms'
const LINKAGE_GLOBAL = 1
const LINKAGE_EXTERN = 2
/** Of each variable that stands for a symbol in .ksyms. */
const INT_BYTES = 4

function bad(message: string): FormatError {
  return new FormatError('BPF object', message)
}

/** As libbpf's sym_is_extern: a global or weak name without type that is defined nowhere. */
export function isExtern(symbol: ElfSymbol): boolean {
  return (
    symbol.section === SHN.UNDEF &&
    (symbol.bind === STB.GLOBAL || symbol.bind === STB.WEAK) &&
    symbol.type === STT.NOTYPE &&
    symbol.name !== ''
  )
}

/** Finds all externs and corrects the BTF of their sections. */
export function collectExterns(elf: Elf, btf: BtfEditor | undefined): Externs {
  const symbols = [...elf.symbols.entries()].filter(([, symbol]) => isExtern(symbol))
  if (symbols.length === 0) return { all: [], kconfigBytes: 0 }
  if (btf === undefined) throw bad(`extern "${symbols[0]![1].name}" has no BTF to say what it is`)
  const declared = declarations(btf)
  const found = symbols.map(([symbol, { name, bind }]) => {
    const declaration = declared.get(name)
    if (declaration === undefined)
      throw new FormatError('BPF object', `extern "${name}" is in no section that the kernel fills in`, {
        hint: 'Link the object with the one that defines it; what the kernel has belongs in .ksyms or .kconfig',
      })
    return { symbol, name, weak: bind === STB.WEAK, ...declaration }
  })

  // In libbpf's order, which the numbers of modules and of missing functions follow.
  const ksyms = found
    .filter(({ section }) => section === KSYMS)
    .map(one => ksym(btf, one))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  const { fields, sizeBytes } = placeFields(btf, found)
  const kconfig = found
    .filter(({ section }) => section === KCONFIG)
    .map(({ symbol, name, weak, type }) => {
      const typeId = btf.original.behind(type.type)
      return { name, weak, kind: 'kconfig' as const, symbol, typeId, field: fields.get(name)! }
    })
  correctKsyms(btf)
  correctKconfig(btf, fields, sizeBytes)
  return { all: [...kconfig, ...ksyms], kconfigBytes: sizeBytes }
}

interface Declaration {
  readonly type: BtfRef
  readonly section: string
}

/** Every extern variable and function that a data section of the BTF lists, by name. */
function declarations(btf: BtfEditor): Map<string, Declaration> {
  const all = new Map<string, Declaration>()
  for (const id of btf.original.ofKind('datasec')) {
    const section = btf.original.type(id) as BtfDatasec
    if (section.name !== KCONFIG && section.name !== KSYMS) continue
    for (const { type: member } of section.vars) {
      const type = btf.original.type(member)
      if (type.kind !== 'var' && type.kind !== 'func')
        throw bad(`section "${section.name}" lists a ${type.kind}`)
      if (type.linkage === LINKAGE_EXTERN) all.set(type.name, { type, section: section.name })
    }
  }
  return all
}

type Found = { symbol: number; name: string; weak: boolean } & Declaration

function ksym(btf: BtfEditor, { symbol, name, weak, type }: Found): ExternSpec {
  const kind = type.kind === 'func' ? 'kfunc' : 'ksym'
  return { name, weak, kind, symbol, typeId: btf.original.behind(type.type) }
}

/**
 * Offsets in the map, in libbpf's order (cmp_externs): widest alignment first, then smallest, then
 * by name.
 */
function placeFields(
  btf: BtfEditor,
  found: readonly Found[],
): { fields: Map<string, KconfigField>; sizeBytes: number } {
  const fields = new Map<string, KconfigField>()
  const wanted = found
    .filter(({ section }) => section === KCONFIG)
    .map(({ name, type }) => {
      if (type.kind === 'func') throw bad(`extern function "${name}" cannot be in ${KCONFIG}`)
      const of = btf.original.resolve(type.type)
      const { shape, signed } = shapeOf(btf, name, of)
      const sizeBytes = btf.original.sizeof(type.type)
      const alignBytes = shape === 'char_array' ? 1 : sizeBytes
      return { name, shape, signed, sizeBytes, alignBytes }
    })
    .sort((a, b) => b.alignBytes - a.alignBytes || a.sizeBytes - b.sizeBytes || (a.name < b.name ? -1 : 1))
  let end = 0
  for (const { name, alignBytes, ...field } of wanted) {
    const off = Math.ceil(end / alignBytes) * alignBytes
    fields.set(name, { ...field, off })
    end = off + field.sizeBytes
  }
  return { fields, sizeBytes: end }
}

function shapeOf(
  btf: BtfEditor,
  name: string,
  type: BtfType | undefined,
): { shape: KconfigShape; signed: boolean } {
  if (type?.kind === 'int') {
    if (type.bool && type.size === 1) return { shape: 'bool', signed: false }
    if (!type.bool && type.size === 1) return { shape: 'char', signed: type.signed }
    if (!type.bool && [2, 4, 8].includes(type.size)) return { shape: 'int', signed: type.signed }
  }
  if (
    (type?.kind === 'enum' || type?.kind === 'enum64') &&
    type.size === 4 &&
    type.name === 'libbpf_tristate'
  )
    return { shape: 'tristate', signed: false }
  if (type?.kind === 'array' && type.count > 0) {
    const element = btf.original.resolve((type as BtfArray).type)
    if (element?.kind === 'int' && element.size === 1 && !element.bool)
      return { shape: 'char_array', signed: element.signed }
  }
  throw bad(`configuration value "${name}" has a type that no value can be stored as`)
}

/** Stands for externs in sections of the BTF: as many ints as there are symbols. */
function correctKsyms(btf: BtfEditor): void {
  const id = btf.original.find(KSYMS, 'datasec')[0]
  if (id === undefined) return
  const { vars } = btf.original.type(id) as BtfDatasec
  if (vars.length === 0) return
  const int = intId(btf)
  let dummy: { id: number; nameOff: number } | undefined
  for (const [i, { type: member }] of vars.entries()) {
    const type = btf.original.type(member) as BtfRef
    if (type.kind === 'func') {
      dummy ??= dummyVariable(btf, int)
      nameParameters(btf, type.type, dummy.nameOff)
      btf.setUnits(member, LINKAGE_GLOBAL)
      btf.setWord(id, 3 + i * 3, dummy.id)
    } else {
      btf.setWord(member, 3, LINKAGE_GLOBAL)
      btf.setWord(member, 2, int)
    }
    btf.setWord(id, 4 + i * 3, i * INT_BYTES)
    btf.setWord(id, 5 + i * 3, INT_BYTES)
  }
  btf.setWord(id, 2, vars.length * INT_BYTES)
}

function intId(btf: BtfEditor): number {
  for (const id of btf.original.ofKind('int')) {
    const type = btf.original.type(id)
    if (type.kind === 'int' && type.size === INT_BYTES && type.bits === 32) return id
  }
  return btf.addType('int', 'int', INT_BYTES, [(1 << 24) | 32])
}

/** Takes a function's place: a data section may list variables only. */
function dummyVariable(btf: BtfEditor, int: number): { id: number; nameOff: number } {
  const id = btf.addType('var', 'dummy_ksym', int, [LINKAGE_GLOBAL])
  // The kernel wants a name for each parameter of a function that is not extern; this one serves.
  return { id, nameOff: btf.addString('dummy_ksym') }
}

function nameParameters(btf: BtfEditor, proto: number, nameOff: number): void {
  const type = btf.original.type(proto)
  if (type.kind !== 'func_proto') throw bad('an extern function has no prototype')
  for (const [i, { name, type: of }] of type.params.entries())
    if (of !== 0 && name === '') btf.setWord(proto, 3 + i * 2, nameOff)
}

function correctKconfig(btf: BtfEditor, fields: ReadonlyMap<string, KconfigField>, sizeBytes: number): void {
  const id = btf.original.find(KCONFIG, 'datasec')[0]
  if (id === undefined) return
  const { vars } = btf.original.type(id) as BtfDatasec
  const placed = vars.map(({ type: member, size }) => {
    btf.setWord(member, 3, LINKAGE_GLOBAL)
    return { type: member, off: fields.get(btf.original.name(member))?.off ?? 0, size }
  })
  placed.sort((a, b) => a.off - b.off)
  for (const [i, { type, off, size }] of placed.entries()) {
    for (const [n, word] of [type, off, size].entries()) btf.setWord(id, 3 + i * 3 + n, word)
  }
  btf.setWord(id, 2, sizeBytes)
}
