/** The symbols of the result: of those that objects share by name, the strong definition wins. Pure. */
import { ConflictError, FormatError } from '../../errors.ts'
import { BTF_KIND } from '../btf/type.ts'
import { type ElfSymbol, SHN, STB, STT, STV } from '../elf/elf.ts'
import { Declarations } from './declarations.ts'
import type { LinkedTypes } from './linked-types.ts'
import type { OutSection, OutSymbol, Variable } from './out-section.ts'
import { kindOf, LINKAGE, type TextTable, vlenOf } from './raw-types.ts'
import { declarationOf, EXTERN_SECTION, type Source } from './source.ts'

const MAPS = '.maps'
const JUMP_TABLES = '.jumptables'

/** A symbol that objects share by its name. */
export interface Shared {
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

export class Symbols {
  readonly all: OutSymbol[] = []
  readonly shared = new Map<string, Shared>()
  readonly #texts: TextTable
  readonly #types: LinkedTypes
  /** What there is and the object that is added say; undefined: nothing was asked yet. */
  #agreement: Declarations | undefined

  constructor(texts: TextTable, types: LinkedTypes) {
    this.#texts = texts
    this.#types = types
  }

  add(source: Source): void {
    this.#agreement = undefined
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
    const declared = declarationOf(source, name, this.#texts)
    const of = isExtern ? this.#declaredIn(source, declared.section) : place?.section
    const known = this.shared.get(name)
    if (known !== undefined) {
      this.#merge(source, known, symbol, declared.id, place)
      return known.symbol
    }
    const made = this.#newSymbol(symbol, place)
    this.shared.set(name, {
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
    this.all.push(made)
    return made
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
    this.#agreement ??= new Declarations(this.#types.read(), source.types!)
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

  /** An extern that is resolved is global, and its parameters have the names of the definition's. */
  #completeType({ btf }: Source, linkedId: number, ownId: number): void {
    const linked = this.#types.all[linkedId]
    const own = btf!.types[ownId]!
    if (linked === undefined || linkedId === 0) return
    // What is changed here, no comparison looks at: the types need not be read again.
    if (kindOf(linked) === BTF_KIND.var) {
      linked.words[2] = LINKAGE.global
      return
    }
    linked.info = (BTF_KIND.func << 24) | LINKAGE.global
    const [theirs, ours] = [this.#types.all[linked.words[1]!]!, btf!.types[own.words[1]!]!]
    for (let i = 0; i < vlenOf(theirs); i++)
      if (ours.words[2 + i * 2] !== 0) theirs.words[2 + i * 2] = ours.words[2 + i * 2]!
  }
}
