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
import { ConflictError, FormatError, InputError } from '../../errors.ts'
import { type WrittenRelocation, type WrittenSection, type WrittenSymbol, writeElf } from './elf-writer.ts'
import { addExt } from './ext-records.ts'
import { LinkedTypes } from './linked-types.ts'
import type { OutSection, OutSymbol } from './out-section.ts'
import { TextTable } from './raw-types.ts'
import { addRelocations } from './relocations.ts'
import { Sections } from './sections.ts'
import { type LinkInput, openSource, type Source } from './source.ts'
import { Symbols } from './symbols.ts'
import { addVariables } from './variables.ts'

export type { LinkInput }

export interface LinkedObject {
  readonly bytes: Uint8Array
  /**
   * Externs that no object defines, and that the kernel is not asked for: the object cannot be
   * loaded before it is linked with one that does.
   */
  readonly unresolved: readonly string[]
}

/** Sections of externs that the loader and the kernel provide. */
const PROVIDED: readonly string[] = ['.ksyms', '.kconfig']

/**
 * Links the objects, in their order. ConflictError: they do not go together. FormatError: one of
 * them is malformed. NotSupportedError: they have more sections than a file can number.
 */
export function linkObjects(inputs: readonly LinkInput[]): LinkedObject {
  if (inputs.length === 0) throw new InputError('There is no object to be linked')
  const linker = new StaticLinker()
  for (const input of inputs) linker.add(input)
  return linker.finish()
}

class StaticLinker {
  readonly #texts = new TextTable()
  readonly #sections = new Sections(this.#texts)
  readonly #types = new LinkedTypes(this.#texts)
  readonly #symbols = new Symbols(this.#texts, this.#types)
  #first: { readonly name: string; readonly littleEndian: boolean } | undefined

  add(input: LinkInput): void {
    const { name } = input
    try {
      const source = openSource(input, this.#texts)
      this.#requireOrder(source)
      this.#sections.add(source)
      this.#symbols.add(source)
      addRelocations(source)
      if (source.btf !== undefined) {
        const { shared } = this.#symbols
        this.#types.add(source, shared)
        addVariables(source, { texts: this.#texts, types: this.#types, shared })
      }
      addExt(source, this.#texts)
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

  /** All are for machines of one byte order. */
  #requireOrder({ name, elf: { littleEndian } }: Source): void {
    this.#first ??= { name, littleEndian }
    if (littleEndian === this.#first.littleEndian) return
    throw new ConflictError(`${name} is for machines of another byte order than ${this.#first.name}`, {
      context: { object: name, before: this.#first.name },
      hint: 'Compile both for bpfel, or both for bpfeb',
    })
  }

  finish(): LinkedObject {
    const { littleEndian } = this.#first!
    const sections = this.#sections.all
    const made = new Map<OutSection, WrittenSection & { readonly relocations: WrittenRelocation[] }>()
    for (const section of sections)
      if (section.elf !== undefined) made.set(section, { ...section.written(littleEndian), relocations: [] })
    const symbols = new Map<OutSymbol, WrittenSymbol>()
    for (const symbol of this.#symbols.all) {
      const { section, special, ...rest } = symbol
      symbols.set(symbol, { ...rest, section: (section && made.get(section)) ?? special })
    }
    for (const [section, { relocations }] of made)
      for (const { symbol, ...rest } of section.relocations)
        relocations.push({ ...rest, symbol: symbols.get(symbol)! })
    const described = this.#types.all.length > 1 ? this.#types.write(sections, littleEndian) : []
    return {
      bytes: writeElf([...made.values(), ...described], [...symbols.values()], littleEndian),
      unresolved: [...this.#symbols.shared]
        .filter(([, { isExtern, section }]) => isExtern && !PROVIDED.includes(section?.name ?? ''))
        .map(([name]) => name),
    }
  }
}
