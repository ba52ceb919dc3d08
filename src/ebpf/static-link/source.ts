/** An object that is linked: opened, and with what is known of it while it is added. Pure. */
import { FormatError } from '../../errors.ts'
import { Btf } from '../btf/btf.ts'
import { swapBtf, swapWords } from '../btf/editor.ts'
import { BTF_KIND } from '../btf/type.ts'
import { type Elf, type ElfSection, EM_BPF, ET_REL, parseElf, STT } from '../elf/elf.ts'
import { type ExtInfo, parseExtInfo } from '../object/ext-info.ts'
import type { OutSection, OutSymbol, Place } from './out-section.ts'
import {
  isNonStatic,
  kindOf,
  LINKAGE,
  type RawBtf,
  type RawType,
  readRawTypes,
  type TextTable,
  vlenOf,
} from './raw-types.ts'

/** Externs of the linker's; those in other sections are the loader's and the kernel's. */
export const EXTERN_SECTION = '.extern'

export interface LinkInput {
  /** What it is called in messages. */
  readonly name: string
  readonly bytes: Uint8Array
}

/** An object while it is added. */
export interface Source {
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

export interface Declared {
  readonly id: number
  /** The data section that lists it. */
  readonly section: string | undefined
  /** Several are called so, which is wrong once somebody asks for it. */
  readonly isTwice: boolean
}

/** FormatError: it is malformed. Types come in little endian, whichever the object's is. */
export function openSource({ name, bytes }: LinkInput, texts: TextTable): Source {
  const elf = parseElf(bytes)
  if (elf.type !== ET_REL || elf.machine !== EM_BPF)
    throw new FormatError('BPF object', `${name} is no relocatable object for BPF`)
  const sections = new Map<string, ElfSection>()
  for (const section of elf.sections) if (!sections.has(section.name)) sections.set(section.name, section)
  const data = (section: string): Uint8Array | undefined => {
    const found = sections.get(section)?.data
    return found === undefined || found.length === 0 ? undefined : found
  }
  const inOrder = (bytes: Uint8Array | undefined, swap: (bytes: Uint8Array) => Uint8Array) =>
    bytes === undefined || elf.littleEndian ? bytes : swap(bytes)
  const raw = inOrder(data('.BTF'), swapBtf)
  const ext = inOrder(data('.BTF.ext'), swapWords)
  if (ext !== undefined && raw === undefined)
    throw new FormatError('BPF object', `${name} has .BTF.ext, but no .BTF`)
  const btf = raw && readRawTypes(raw, texts)
  const source: Source = {
    ...{ name, elf, sections, placed: new Map(), shells: new Map(), symbols: [] },
    newIds: new Uint32Array(),
    btf,
    declared: declarationsOf(btf?.types ?? [], texts),
    types: raw && Btf.parse(raw),
    ext: ext && parseExtInfo(ext),
  }
  correctDatasecs(source, texts)
  return source
}

/** Compilers leave sizes and offsets of global variables at zero: symbols have them. */
function correctDatasecs({ name, elf, sections, btf }: Source, texts: TextTable): void {
  const symbols = new Map(
    elf.symbols.filter(({ type }) => type === STT.OBJECT).map(one => [`${one.section} ${one.name}`, one]),
  )
  for (const datasec of btf?.types ?? []) {
    if (kindOf(datasec) !== BTF_KIND.datasec) continue
    const section = sections.get(texts.name(datasec.words[0]!))
    if (section === undefined) continue
    datasec.words[1] = section.sizeBytes
    for (let i = 0; i < vlenOf(datasec); i++) {
      const variable = btf!.types[datasec.words[2 + i * 3]!]!
      if (kindOf(variable) !== BTF_KIND.var || variable.words[2] !== LINKAGE.global) continue
      const called = texts.name(variable.words[0]!)
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

/** The variable or function of that name in the object's BTF. */
export function declarationOf({ name: object, declared }: Source, name: string, texts: TextTable): Declared {
  const found = declared.get(texts.numberOfName(name))
  if (found === undefined)
    throw new FormatError('BPF object', `global symbol "${name}" of ${object} is not described in BTF`, {
      hint: 'Compile it with -g',
    })
  if (found.isTwice) throw new FormatError('BPF object', `"${name}" of ${object} is described twice`)
  return found
}

function declarationsOf(types: readonly RawType[], texts: TextTable): Map<number, Declared> {
  const all = new Map<number, Declared>()
  for (const [id, type] of types.entries())
    if (isNonStatic(type)) all.set(type.words[0]!, { id, section: undefined, isTwice: false })
  for (const datasec of types) {
    if (kindOf(datasec) !== BTF_KIND.datasec) continue
    const section = texts.name(datasec.words[0]!)
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
