/**
 * Static linking: several object files made one, as `bpftool gen object` does. Pure.
 *
 *   const { bytes } = linkObjects([{ name: 'a.o', bytes: a }, { name: 'b.o', bytes: b }])
 *   await loadObject(parseObject(bytes, { name: 'both' }))
 *
 * Sections of one name become one. Of a symbol there may be one strong definition; it wins over weak
 * ones, and externs are resolved to it. What objects say of one symbol has to agree in BTF. Types
 * that several objects have are kept once. Rules: libbpf, src/linker.c.
 */
import { ConflictError, FormatError, InputError, NotSupportedError } from '../../errors.ts'
import { CLASS, OP, SLOT_BYTES } from '../asm/insn.ts'
import { BTF_KIND, Btf } from '../btf/btf.ts'
import {
  type Elf,
  type ElfSection,
  type ElfSymbol,
  EM_BPF,
  ET_REL,
  parseElf,
  SHF,
  SHN,
  SHT,
  STB,
  STT,
  STV,
} from '../elf/elf.ts'
import { type ExtInfo, type ExtRecords, parseExtInfo } from '../object/ext-info.ts'
import { Declarations } from './declarations.ts'
import {
  plainSection,
  type WrittenRelocation,
  type WrittenSection,
  type WrittenSymbol,
  writeElf,
} from './elf-writer.ts'
import { EXT_KINDS, EXT_TEXTS, EXT_TYPE, type ExtKind, extSection, type Records } from './ext-records.ts'
import {
  kindOf,
  placesIn,
  type RawBtf,
  type RawType,
  readRawTypes,
  TextTable,
  vlenOf,
  writeRawTypes,
} from './raw-types.ts'
import { withoutDoubles } from './same-types.ts'

export interface LinkInput {
  /** What it is called in messages. */
  readonly name: string
  readonly bytes: Uint8Array
}

export interface LinkedObject {
  readonly bytes: Uint8Array
  /**
   * Externs that no object defines, and that the kernel is not asked for: the object cannot be
   * loaded before it is linked with one that does.
   */
  readonly unresolved: readonly string[]
}

const SHT_LLVM_ADDRSIG = 0x6fff4c03
const R_BPF_64_64 = 1
const R_BPF_64_ABS64 = 2
const R_BPF_64_ABS32 = 3
const R_BPF_64_32 = 10
const RELOCATIONS: readonly number[] = [R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_ABS32, R_BPF_64_32]
const CALL = CLASS.JMP | OP.CALL
const LINKAGE_STATIC = 0
const LINKAGE_GLOBAL = 1
/** A page; nothing in an object wants more. What lies between sections is made of it. */
const MAX_ALIGN_BYTES = 4096
const MAX_BYTES = 2 ** 31 - 1
/** The same in all objects, and kept once. */
const SAME_IN_ALL: readonly string[] = ['license', 'version']
/** Externs of the linker's; those in other sections are the loader's and the kernel's. */
const EXTERN_SECTION = '.extern'
/** Sections of externs that the loader and the kernel provide. */
const PROVIDED: readonly string[] = ['.ksyms', '.kconfig']
const MAPS = '.maps'
const JUMP_TABLES = '.jumptables'

interface Variable {
  type: number
  off: number
  size: number
}

/** A section of the result. */
class OutSection {
  readonly name: string
  /** Undefined: it is in BTF alone, such as `.kconfig`. */
  elf: { readonly type: number; readonly flags: number; readonly entryBytes: number } | undefined
  alignBytes = 0
  sizeBytes = 0
  readonly parts: Part[] = []
  readonly relocations: { off: number; symbol: OutSymbol; type: number }[] = []
  symbol: OutSymbol | undefined
  isDescribed = false
  readonly variables = new Set<Variable>()
  readonly ext = new Map<ExtKind, Records>()

  constructor(name: string) {
    this.name = name
  }
}

interface OutSymbol {
  readonly name: string
  bind: number
  type: number
  visibility: number
  section: OutSection | undefined
  /** Where there is no section: one of `SHN`. */
  special: number
  value: number
  sizeBytes: number
}

/** A symbol that objects share by its name. */
interface Shared {
  readonly symbol: OutSymbol
  /** Where it is, or what BTF lists it in. */
  section: OutSection | undefined
  isExtern: boolean
  isWeak: boolean
  /** Which object defined it, for messages. */
  from: string
  /** In the result; 0: not yet there. */
  typeId: number
  /** The object that is added has a better idea of its type. */
  isRedefined: boolean
  variable: Variable | undefined
  /** The section that lists it. */
  listedIn: OutSection | undefined
}

/** An object while it is added. */
interface Source {
  readonly name: string
  readonly elf: Elf
  /** Its sections by name; of several with one name, the first. */
  readonly sections: ReadonlyMap<string, ElfSection>
  readonly btf: RawBtf | undefined
  readonly types: Btf | undefined
  readonly ext: ExtInfo | undefined
  /** Where each section went, by its number, and those of BTF alone by name. */
  readonly placed: Map<number, Place>
  readonly shells: Map<string, OutSection>
  readonly symbols: (OutSymbol | undefined)[]
  /** Global variables and functions of its BTF, by the numbers of their names. */
  readonly declared: ReadonlyMap<number, Declared>
  /** Ids in the result, by its own ids. */
  newIds: Uint32Array
}

interface Part {
  readonly off: number
  readonly data: Uint8Array
}

/** Where a section of an object went. */
interface Place {
  readonly section: OutSection
  readonly off: number
  /** Undefined: it has no bytes in the file. */
  readonly part: Part | undefined
}

interface Declared {
  readonly id: number
  /** The data section that lists it. */
  readonly section: string | undefined
  /** Several are called so, which is wrong once somebody asks for it. */
  readonly isTwice: boolean
}

/**
 * Links the objects, in their order. ConflictError: they do not go together. FormatError: one of
 * them is malformed. NotSupportedError: it is for machines of the other byte order.
 */
export function linkObjects(inputs: readonly LinkInput[]): LinkedObject {
  if (inputs.length === 0) throw new InputError('There is no object to be linked')
  const linker = new StaticLinker()
  for (const input of inputs) linker.add(input)
  return linker.finish()
}

class StaticLinker {
  readonly #texts = new TextTable()
  readonly #sections = new Map<string, OutSection>()
  readonly #symbols: OutSymbol[] = []
  readonly #shared = new Map<string, Shared>()
  readonly #types: RawType[] = [{ info: 0, words: [0, 0] }]
  /** What they and the object that is added say; undefined: nothing was asked yet. */
  #agreement: Declarations | undefined
  /** The types, to be looked at; undefined: they have changed since. */
  #typesRead: Btf | undefined

  add({ name, bytes }: LinkInput): void {
    try {
      const source = this.#open(name, bytes)
      this.#placeSections(source)
      this.#addSymbols(source)
      this.#addRelocations(source)
      this.#addTypes(source)
      this.#addExt(source)
    } catch (error) {
      if (error instanceof FormatError && !error.message.includes(name))
        throw new FormatError(name, error.message, {
          cause: error,
          context: { object: name },
          hint: error.hint,
        })
      throw error
    }
  }

  #open(name: string, bytes: Uint8Array): Source {
    const elf = parseElf(bytes)
    if (elf.type !== ET_REL || elf.machine !== EM_BPF)
      throw new FormatError('BPF object', `${name} is no relocatable object for BPF`)
    if (!elf.littleEndian)
      throw new NotSupportedError(`${name} is for machines of the other byte order`, {
        context: { object: name },
        hint: 'Compile it for bpfel',
        reason: 'big-endian',
      })
    const sections = new Map<string, ElfSection>()
    for (const section of elf.sections) if (!sections.has(section.name)) sections.set(section.name, section)
    const data = (section: string): Uint8Array | undefined => {
      const found = sections.get(section)?.data
      return found === undefined || found.length === 0 ? undefined : found
    }
    const raw = data('.BTF')
    const ext = data('.BTF.ext')
    if (ext !== undefined && raw === undefined)
      throw new FormatError('BPF object', `${name} has .BTF.ext, but no .BTF`)
    const btf = raw && readRawTypes(raw, this.#texts)
    const source: Source = {
      ...{
        name,
        elf,
        sections,
        placed: new Map(),
        shells: new Map(),
        symbols: [],
        newIds: new Uint32Array(),
      },
      btf,
      declared: this.#declarations(btf?.types ?? []),
      types: raw && Btf.parse(raw),
      ext: ext && parseExtInfo(ext),
    }
    this.#correctDatasecs(source)
    return source
  }

  /** Compilers leave sizes and offsets of global variables at zero: symbols have them. */
  #correctDatasecs({ name, elf, sections, btf }: Source): void {
    const symbols = new Map(
      elf.symbols.filter(({ type }) => type === STT.OBJECT).map(one => [`${one.section} ${one.name}`, one]),
    )
    for (const datasec of btf?.types ?? []) {
      if (kindOf(datasec) !== BTF_KIND.datasec) continue
      const section = sections.get(this.#texts.name(datasec.words[0]!))
      if (section === undefined) continue
      datasec.words[1] = section.sizeBytes
      for (let i = 0; i < vlenOf(datasec); i++) {
        const variable = btf!.types[datasec.words[2 + i * 3]!]!
        if (kindOf(variable) !== BTF_KIND.var || variable.words[2] !== LINKAGE_GLOBAL) continue
        const called = this.#texts.name(variable.words[0]!)
        const symbol = symbols.get(`${section.index} ${called}`)
        if (symbol === undefined)
          throw new FormatError(
            'BPF object',
            `${name} has no symbol for variable "${called}" in "${section.name}"`,
          )
        datasec.words[3 + i * 3] = symbol.value
      }
    }
  }

  #section(name: string): OutSection {
    let section = this.#sections.get(name)
    if (section === undefined) {
      section = new OutSection(name)
      this.#sections.set(name, section)
    }
    return section
  }

  #placeSections(source: Source): void {
    for (const section of source.elf.sections.slice(1)) {
      if (isIgnored(section)) continue
      if (section.name === '') throw new FormatError('BPF object', `section ${section.index} has no name`)
      if (section.type !== SHT.PROGBITS && section.type !== SHT.NOBITS) {
        if (section.type === SHT.SYMTAB || section.type === SHT.REL) continue
        throw new FormatError(
          'BPF object',
          `section "${section.name}" is of type ${section.type}, which is not known`,
        )
      }
      if ((section.flags & SHF.EXECINSTR) !== 0 && section.sizeBytes % SLOT_BYTES !== 0)
        throw new FormatError('BPF object', `section "${section.name}" is not whole instructions`)
      this.#place(source, section)
    }
    // Sections of BTF alone: what the loader and the kernel provide.
    for (const datasec of source.btf?.types ?? []) {
      if (kindOf(datasec) !== BTF_KIND.datasec) continue
      const name = this.#texts.name(datasec.words[0]!)
      if (name !== EXTERN_SECTION && !source.sections.has(name)) source.shells.set(name, this.#section(name))
    }
  }

  #place(
    source: Source,
    { index, name, type, flags, entryBytes, alignBytes, sizeBytes, data }: ElfSection,
  ): void {
    const out = this.#section(name)
    if (out.elf === undefined) out.elf = { type, flags, entryBytes }
    else if (out.elf.type !== type || out.elf.flags !== flags || out.elf.entryBytes !== entryBytes)
      throw new ConflictError(
        `Section "${name}" of ${source.name} is of another kind than in the objects before it`,
        {
          context: { section: name, object: source.name },
        },
      )
    if (SAME_IN_ALL.includes(name) && out.parts.length > 0) {
      const [first] = out.parts
      if (first!.data.length === data.length && first!.data.every((byte, i) => byte === data[i])) return
      throw new ConflictError(`The "${name}" of ${source.name} differs from that of the objects before it`, {
        context: { section: name, object: source.name },
        hint: 'Give all objects the same',
      })
    }
    const align = Math.max(1, alignBytes)
    if (align > MAX_ALIGN_BYTES || (align & (align - 1)) !== 0)
      throw new FormatError('BPF object', `section "${name}" is aligned to ${alignBytes} bytes`)
    out.alignBytes = Math.max(out.alignBytes, align)
    const off = Math.ceil(out.sizeBytes / out.alignBytes) * out.alignBytes
    if (off + sizeBytes > MAX_BYTES) throw new FormatError('BPF object', `section "${name}" becomes too big`)
    // A copy: instructions are changed.
    const part = type === SHT.NOBITS ? undefined : { off, data: Uint8Array.from(data) }
    if (part !== undefined) out.parts.push(part)
    out.sizeBytes = off + sizeBytes
    source.placed.set(index, { section: out, off, part })
  }

  #addSymbols(source: Source): void {
    for (const [index, symbol] of source.elf.symbols.entries())
      if (index > 0) source.symbols[index] = this.#addSymbol(source, symbol)
  }

  /** Undefined: nothing of it is in the result. */
  #addSymbol(source: Source, symbol: ElfSymbol): OutSymbol | undefined {
    const { name, section, type, bind } = symbol
    if (![STB.LOCAL, STB.GLOBAL, STB.WEAK].includes(bind as 0))
      throw new FormatError('BPF object', `symbol "${name}" has binding ${bind}, which is not known`)
    if (symbol.visibility !== 0 && symbol.visibility !== STV.HIDDEN)
      throw new FormatError(
        'BPF object',
        `symbol "${name}" has visibility ${symbol.visibility}, which is not supported`,
      )
    const isExtern = section === SHN.UNDEF
    if (isExtern && source.btf === undefined)
      throw new FormatError('BPF object', `extern "${name}" of ${source.name} has no BTF to say what it is`)
    const place = source.placed.get(section)
    // Of a section that is left out, or was there already.
    if (!isExtern && section < SHN.LORESERVE && place === undefined) return undefined
    if (type === STT.SECTION && place?.section.symbol !== undefined) return place.section.symbol
    const isShared = bind !== STB.LOCAL && place?.section.name !== JUMP_TABLES
    if (!isShared) return this.#newSymbol(symbol, place)
    const declared = this.#declaration(source, name)
    const of = isExtern ? this.#declaredIn(source, declared.section) : place?.section
    const known = this.#shared.get(name)
    if (known !== undefined) {
      this.#merge(source, known, symbol, declared.id, place)
      return known.symbol
    }
    const made = this.#newSymbol(symbol, place)
    this.#shared.set(name, {
      ...{ symbol: made, section: of, isExtern, isWeak: bind === STB.WEAK, from: source.name },
      ...{ typeId: 0, isRedefined: false, variable: undefined, listedIn: undefined },
    })
    return made
  }

  #newSymbol(symbol: ElfSymbol, place: { section: OutSection; off: number } | undefined): OutSymbol {
    const { name, bind, type, visibility, sizeBytes } = symbol
    const isSection = type === STT.SECTION && place !== undefined
    const made: OutSymbol = {
      ...{ name, bind, type, visibility, sizeBytes, section: place?.section, special: symbol.section },
      value: isSection ? 0 : (place?.off ?? 0) + symbol.value,
    }
    if (isSection) place.section.symbol = made
    this.#symbols.push(made)
    return made
  }

  /** The variable or function of that name in the object's BTF. */
  #declaration({ name: object, declared }: Source, name: string): Declared {
    const found = declared.get(this.#texts.numberOfName(name))
    if (found === undefined)
      throw new FormatError('BPF object', `global symbol "${name}" of ${object} is not described in BTF`, {
        hint: 'Compile it with -g',
      })
    if (found.isTwice) throw new FormatError('BPF object', `"${name}" of ${object} is described twice`)
    return found
  }

  #declarations(types: readonly RawType[]): Map<number, Declared> {
    const all = new Map<number, Declared>()
    for (const [id, type] of types.entries())
      if (isNonStatic(type)) all.set(type.words[0]!, { id, section: undefined, isTwice: false })
    for (const datasec of types) {
      if (kindOf(datasec) !== BTF_KIND.datasec) continue
      const section = this.#texts.name(datasec.words[0]!)
      for (let i = 0; i < vlenOf(datasec); i++) {
        const id = datasec.words[2 + i * 3]!
        const type = types[id]!
        if (!isNonStatic(type)) continue
        const last = all.get(type.words[0]!)!
        all.set(type.words[0]!, { id, section, isTwice: last.id !== id })
      }
    }
    return all
  }

  /** Where BTF lists an extern; undefined: it is for the linker to find. */
  #declaredIn(source: Source, section: string | undefined): OutSection | undefined {
    if (section === undefined || section === EXTERN_SECTION) return undefined
    const index = source.sections.get(section)?.index
    const found = index === undefined ? source.shells.get(section) : source.placed.get(index)?.section
    if (found !== undefined) return found
    throw new FormatError('BPF object', `section "${section}" of ${source.name} is described and not there`)
  }

  /** A further declaration or definition of what is known: the strong one wins. */
  #merge(
    source: Source,
    known: Shared,
    { name, section, type, bind, visibility, value, sizeBytes }: ElfSymbol,
    typeId: number,
    place: { readonly section: OutSection; readonly off: number } | undefined,
  ): void {
    const isExtern = section === SHN.UNDEF
    if (!isExtern && !known.isExtern && !known.isWeak && bind !== STB.WEAK)
      throw new ConflictError(`"${name}" is defined by ${known.from} and by ${source.name}`, {
        context: { symbol: name, object: source.name },
        hint: 'Make one of them static, __weak, or extern',
      })
    this.#requireAgreement(source, known, name, typeId)
    const { symbol } = known
    if (bind === STB.GLOBAL) {
      symbol.bind = STB.GLOBAL
      known.isWeak = false
    }
    // The strictest of all counts.
    symbol.visibility = Math.max(symbol.visibility, visibility)
    if (isExtern || (!known.isExtern && bind === STB.WEAK)) return
    symbol.type = type
    symbol.section = place?.section
    symbol.special = section
    symbol.value = (place?.off ?? 0) + value
    symbol.sizeBytes = sizeBytes
    known.section = place?.section
    known.isExtern = false
    known.from = source.name
    known.isRedefined = true
    this.#completeType(source, known.typeId, typeId)
  }

  #requireAgreement(source: Source, known: Shared, name: string, typeId: number): void {
    // Both in one object: there is nothing to compare with yet.
    if (known.typeId === 0) return
    this.#agreement ??= new Declarations(this.#linkedTypes(), source.types!)
    const difference =
      known.section?.name === MAPS
        ? this.#agreement.mapDifference(known.typeId, typeId, name)
        : this.#agreement.difference(known.typeId, typeId)
    if (difference === undefined) return
    throw new ConflictError(`"${name}" of ${source.name} is not what it is in ${known.from}: ${difference}`, {
      context: { symbol: name, object: source.name, before: known.from },
      hint: 'Declare it alike in both, best in a header',
    })
  }

  #linkedTypes(): Btf {
    this.#typesRead ??= Btf.parse(writeRawTypes(this.#types, this.#texts).bytes)
    return this.#typesRead
  }

  /** An extern that is resolved is global, and its parameters have the names of the definition's. */
  #completeType({ btf }: Source, linkedId: number, ownId: number): void {
    const linked = this.#types[linkedId]
    const own = btf!.types[ownId]!
    if (linked === undefined || linkedId === 0) return
    // What is changed here, no comparison looks at: the types need not be read again.
    if (kindOf(linked) === BTF_KIND.var) {
      linked.words[2] = LINKAGE_GLOBAL
      return
    }
    linked.info = (BTF_KIND.func << 24) | LINKAGE_GLOBAL
    const [theirs, ours] = [this.#types[linked.words[1]!]!, btf!.types[own.words[1]!]!]
    for (let i = 0; i < vlenOf(theirs); i++)
      if (ours.words[2 + i * 2] !== 0) theirs.words[2 + i * 2] = ours.words[2 + i * 2]!
  }

  #addRelocations(source: Source): void {
    for (const [index, relocations] of source.elf.relocations) {
      const target = source.placed.get(index)
      if (target === undefined) continue
      const { section, off, part } = target
      const isCode = (section.elf!.flags & SHF.EXECINSTR) !== 0
      for (const relocation of relocations) {
        const symbol = source.symbols[relocation.symbol]
        const { type } = relocation
        const at = relocation.off
        if (symbol === undefined || !RELOCATIONS.includes(type) || part === undefined)
          throw new FormatError(
            'BPF object',
            `section "${section.name}" of ${source.name} has a relocation of nothing`,
          )
        if (isCode && at % SLOT_BYTES !== 0)
          throw new FormatError(
            'BPF object',
            `section "${section.name}" has a relocation within an instruction`,
          )
        section.relocations.push({ off: off + at, symbol, type })
        const of = source.elf.symbols[relocation.symbol]!
        const moved = of.type === STT.SECTION ? source.placed.get(of.section) : undefined
        if (moved !== undefined) move(part.data, at, type, isCode, moved, section.name)
      }
    }
  }

  #addTypes(source: Source): void {
    if (source.btf === undefined) return
    this.#typesRead = undefined
    this.#agreement = undefined
    const own = source.btf.types
    const newId = new Uint32Array(own.length)
    const first = this.#types.length
    const redefined: { shared: Shared; type: number }[] = []
    for (let id = 1; id < own.length; id++) {
      const type = own[id]!
      if (kindOf(type) === BTF_KIND.datasec) continue
      const shared = isNonStatic(type) ? this.#shared.get(this.#texts.name(type.words[0]!)) : undefined
      // Of a section that was there already: licence and version.
      if (isNonStatic(type) && shared === undefined) continue
      if (shared !== undefined && shared.typeId !== 0) {
        newId[id] = shared.typeId
        if (shared.isRedefined) redefined.push({ shared, type: type.words[1]! })
        shared.isRedefined = false
        continue
      }
      newId[id] = this.#types.length
      this.#types.push({ info: type.info, words: type.words.slice() })
      if (shared !== undefined) shared.typeId = newId[id]!
    }
    const renumber = (id: number): number => {
      const found = newId[id]!
      if (found === 0 && id !== 0)
        throw new FormatError('BTF', `type id ${id} of ${source.name} is of a section that is left out`)
      return found
    }
    for (const type of this.#types.slice(first))
      for (const place of placesIn(type).types) type.words[place] = renumber(type.words[place]!)
    for (const { shared, type } of redefined) this.#types[shared.typeId]!.words[1] = renumber(type)
    for (const shared of this.#shared.values()) shared.isRedefined = false
    this.#addVariables(source, newId)
    source.newIds = newId
  }

  #addVariables(source: Source, newId: Uint32Array): void {
    for (const datasec of source.btf!.types) {
      if (kindOf(datasec) !== BTF_KIND.datasec) continue
      const name = this.#texts.name(datasec.words[0]!)
      if (name === EXTERN_SECTION) continue
      const index = source.sections.get(name)?.index
      const place =
        index === undefined ? { section: source.shells.get(name), off: 0 } : source.placed.get(index)
      if (place?.section === undefined) continue
      const { section, off } = place
      section.isDescribed = true
      for (let i = 0; i < vlenOf(datasec); i++) {
        const [type, at, size] = datasec.words.slice(2 + i * 3, 5 + i * 3) as [number, number, number]
        this.#addVariable(section, { type: newId[type]!, off: off + at, size }, source)
      }
    }
  }

  #addVariable(section: OutSection, variable: Variable, source: Source): void {
    const type = this.#types[variable.type]!
    const name = this.#texts.name(type.words[0]!)
    const shared = isNonStatic(type) ? this.#shared.get(name) : undefined
    if (shared === undefined) {
      section.variables.add(variable)
      return
    }
    const { symbol, variable: known } = shared
    if (shared.section !== section) {
      // A weak definition in another section: the one that counts is elsewhere.
      if (!shared.isExtern && shared.section !== undefined && symbol.section === shared.section) return
      throw new ConflictError(
        `"${name}" is in section "${section.name}" in ${source.name}, and elsewhere before`,
        {
          context: { symbol: name, section: section.name, object: source.name },
        },
      )
    }
    if (known === undefined) {
      shared.variable = variable
      shared.listedIn = section
      section.variables.add(variable)
      return
    }
    if (shared.listedIn !== section) {
      shared.listedIn?.variables.delete(known)
      shared.listedIn = section
      section.variables.add(known)
    }
    if (kindOf(type) !== BTF_KIND.var) return
    known.size = this.#linkedTypes().sizeof(type.words[1]!)
    if (symbol.section !== undefined) known.off = symbol.value
  }

  #addExt({ ext, sections, btf, placed, newIds }: Source): void {
    if (ext === undefined) return
    for (const kind of EXT_KINDS)
      for (const group of ext[kind]) {
        const name = this.#texts.name(btf!.text(group.sectionNameOff))
        const index = sections.get(name)?.index
        const place = index === undefined ? undefined : placed.get(index)
        if (place === undefined)
          throw new FormatError('BTF.ext', `section "${name}" is described and not there`)
        this.#addRecords(place, kind, group, btf!, newIds)
      }
  }

  #addRecords(
    { section, off }: { readonly section: OutSection; readonly off: number },
    kind: ExtKind,
    { wordsEach, words }: ExtRecords,
    btf: RawBtf,
    newIds: Uint32Array,
  ): void {
    const known = section.ext.get(kind) ?? { wordsEach, words: [] }
    if (known.wordsEach !== wordsEach)
      throw new ConflictError(`Section "${section.name}": ${kind} are described in records of two sizes`, {
        context: { section: section.name },
        hint: 'Compile all objects with the same compiler',
      })
    section.ext.set(kind, known)
    const typeAt = EXT_TYPE[kind]
    for (let at = 0; at < words.length; at += wordsEach) {
      const record = [...words.subarray(at, at + wordsEach)]
      record[0] = record[0]! + off
      if (typeAt !== undefined) {
        const id = newIds[record[typeAt]!]
        if (id === undefined) throw new FormatError('BTF.ext', `type id ${record[typeAt]} does not exist`)
        record[typeAt] = id
      }
      for (const place of EXT_TEXTS[kind]) record[place] = btf.text(record[place]!)
      for (const word of record) known.words.push(word)
    }
  }

  finish(): LinkedObject {
    const sections = [...this.#sections.values()]
    const made = new Map<OutSection, WrittenSection & { readonly relocations: WrittenRelocation[] }>()
    for (const section of sections)
      if (section.elf !== undefined) made.set(section, { ...written(section), relocations: [] })
    const symbols = new Map<OutSymbol, WrittenSymbol>()
    for (const symbol of this.#symbols) {
      const { section, special, ...rest } = symbol
      symbols.set(symbol, { ...rest, section: (section && made.get(section)) ?? special })
    }
    for (const [section, { relocations }] of made)
      for (const { symbol, ...rest } of section.relocations)
        relocations.push({ ...rest, symbol: symbols.get(symbol)! })
    const described = this.#types.length > 1 ? this.#writeTypes(sections) : []
    return {
      bytes: writeElf([...made.values(), ...described], [...symbols.values()]),
      unresolved: [...this.#shared]
        .filter(([, { isExtern, section }]) => isExtern && !PROVIDED.includes(section?.name ?? ''))
        .map(([name]) => name),
    }
  }

  /** Sections .BTF and .BTF.ext. */
  #writeTypes(sections: readonly OutSection[]): WrittenSection[] {
    const all = this.#types.slice()
    for (const { name, sizeBytes, isDescribed, variables } of sections)
      if (isDescribed)
        all.push({
          info: ((BTF_KIND.datasec << 24) | variables.size) >>> 0,
          words: [
            this.#texts.numberOfName(name),
            sizeBytes,
            ...[...variables].flatMap(({ type, off, size }) => [type, off, size]),
          ],
        })
    const { types, newId } = withoutDoubles(all)
    const texts = new Set<number>()
    const groups = EXT_KINDS.map(kind =>
      sections.flatMap(section => {
        const records = section.ext.get(kind)
        if (records === undefined) return []
        const name = this.#texts.numberOfName(section.name)
        texts.add(name)
        const words = records.words.slice()
        const typeAt = EXT_TYPE[kind]
        for (let at = 0; at < words.length; at += records.wordsEach) {
          if (typeAt !== undefined) words[at + typeAt] = newId[words[at + typeAt]!]!
          for (const place of EXT_TEXTS[kind]) texts.add(words[at + place]!)
        }
        return [{ kind, name, wordsEach: records.wordsEach, words }]
      }),
    )
    const { bytes, offOf } = writeRawTypes(types, this.#texts, texts)
    const ext = groups.some(one => one.length > 0) ? [extSection(groups, offOf)] : []
    return [plainSection('.BTF', bytes), ...ext]
  }
}

function isIgnored({ name, type, sizeBytes }: ElfSection): boolean {
  if (type === SHT.STRTAB || type === SHT_LLVM_ADDRSIG) return true
  if (name === '.text' && type === SHT.PROGBITS && sizeBytes === 0) return true
  const of = name.startsWith('.rel') ? name.slice('.rel'.length) : name
  return of.startsWith('.debug_') || of === '.BTF' || of === '.BTF.ext'
}

function isNonStatic(type: RawType): boolean {
  const kind = kindOf(type)
  if (kind === BTF_KIND.var) return type.words[2] !== LINKAGE_STATIC
  return kind === BTF_KIND.func && vlenOf(type) !== LINKAGE_STATIC
}

/** What refers to the beginning of a section says in itself how far behind it is meant. */
function move(
  data: Uint8Array,
  at: number,
  type: number,
  isCode: boolean,
  to: { readonly section: OutSection; readonly off: number },
  name: string,
): void {
  const view = new DataView(data.buffer, data.byteOffset, data.length)
  if (isCode) {
    const isCall = data[at] === CALL
    view.setInt32(at + 4, view.getInt32(at + 4, true) + (isCall ? to.off / SLOT_BYTES : to.off), true)
  } else if (
    type === R_BPF_64_ABS64 &&
    (to.section.elf!.flags & SHF.EXECINSTR) !== 0 &&
    at + 8 <= data.length
  )
    view.setBigUint64(at, BigInt.asUintN(64, view.getBigUint64(at, true) + BigInt(to.off)), true)
  else
    throw new NotSupportedError(
      `Section "${name}" points into section "${to.section.name}" without naming what it points to`,
      {
        context: { section: name },
        hint: 'Make what it points to global, so that it has a name',
      },
    )
}

function written({ name, elf, alignBytes, sizeBytes, parts }: OutSection) {
  const data = new Uint8Array(elf!.type === SHT.NOBITS ? 0 : sizeBytes)
  for (const part of parts) data.set(part.data, part.off)
  return { ...elf!, name, alignBytes, sizeBytes, data }
}
