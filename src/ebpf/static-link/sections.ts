/** The sections of the result: those of one name in all objects become one. Pure. */
import { ConflictError, FormatError } from '../../errors.ts'
import { SLOT_BYTES } from '../asm/insn.ts'
import { swapCode } from '../asm/swap-code.ts'
import { BTF_KIND } from '../btf/type.ts'
import { type ElfSection, SHF, SHT } from '../elf/elf.ts'
import { OutSection } from './out-section.ts'
import { kindOf, type TextTable } from './raw-types.ts'
import { EXTERN_SECTION, type Source } from './source.ts'

const SHT_LLVM_ADDRSIG = 0x6fff4c03
/** A page; nothing in an object wants more. What lies between sections is made of it. */
const MAX_ALIGN_BYTES = 4096
const MAX_BYTES = 2 ** 31 - 1
/** The same in all objects, and kept once. */
const SAME_IN_ALL: readonly string[] = ['license', 'version']

export class Sections {
  readonly #texts: TextTable
  readonly #all = new Map<string, OutSection>()

  constructor(texts: TextTable) {
    this.#texts = texts
  }

  get all(): readonly OutSection[] {
    return [...this.#all.values()]
  }

  #section(name: string): OutSection {
    let section = this.#all.get(name)
    if (section === undefined) {
      section = new OutSection(name)
      this.#all.set(name, section)
    }
    return section
  }

  /** Puts those of an object behind what is there. */
  add(source: Source): void {
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
    // A copy: instructions are changed, and so are always in one order.
    const isSwapped = !source.elf.littleEndian && (flags & SHF.EXECINSTR) !== 0
    const copy = isSwapped ? swapCode(data) : Uint8Array.from(data)
    const part = type === SHT.NOBITS ? undefined : { off, data: copy }
    if (part !== undefined) out.parts.push(part)
    out.sizeBytes = off + sizeBytes
    source.placed.set(index, { section: out, off, part })
  }
}

function isIgnored({ name, type, sizeBytes }: ElfSection): boolean {
  if (type === SHT.STRTAB || type === SHT_LLVM_ADDRSIG) return true
  if (name === '.text' && type === SHT.PROGBITS && sizeBytes === 0) return true
  const of = name.startsWith('.rel') ? name.slice('.rel'.length) : name
  return of.startsWith('.debug_') || of === '.BTF' || of === '.BTF.ext'
}
