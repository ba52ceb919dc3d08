/** The types of the result: those of all objects, and what is there twice once in the end. Pure. */
import { FormatError } from '../../errors.ts'
import { Btf } from '../btf/btf.ts'
import { swapBtf, swapWords } from '../btf/editor.ts'
import { BTF_KIND } from '../btf/type.ts'
import { plainSection, type WrittenSection } from './elf-writer.ts'
import { EXT_KINDS, EXT_TEXTS, EXT_TYPE, extRecords } from './ext-records.ts'
import type { OutSection } from './out-section.ts'
import { isNonStatic, kindOf, placesIn, type RawType, type TextTable, writeRawTypes } from './raw-types.ts'
import { withoutDoubles } from './same-types.ts'
import type { Source } from './source.ts'
import type { Shared } from './symbols.ts'

export class LinkedTypes {
  readonly all: RawType[] = [{ info: 0, words: [0, 0] }]
  readonly #texts: TextTable
  /** The same, to be looked at; undefined: they have changed since. */
  #read: Btf | undefined

  constructor(texts: TextTable) {
    this.#texts = texts
  }

  /** Those that were added, as types. */
  read(): Btf {
    this.#read ??= Btf.parse(writeRawTypes(this.all, this.#texts).bytes)
    return this.#read
  }

  /** Those of an object with types, whose new ids it has from then on. `shared`: by their names. */
  add(source: Source, byName: ReadonlyMap<string, Shared>): void {
    this.#read = undefined
    const own = source.btf!.types
    const newId = new Uint32Array(own.length)
    const first = this.all.length
    const redefined: { shared: Shared; type: number }[] = []
    for (let id = 1; id < own.length; id++) {
      const type = own[id]!
      if (kindOf(type) === BTF_KIND.datasec) continue
      const shared = isNonStatic(type) ? byName.get(this.#texts.name(type.words[0]!)) : undefined
      // Of a section that was there already: licence and version.
      if (isNonStatic(type) && shared === undefined) continue
      if (shared !== undefined && shared.typeId !== 0) {
        newId[id] = shared.typeId
        if (shared.isRedefined) redefined.push({ shared, type: type.words[1]! })
        shared.isRedefined = false
        continue
      }
      newId[id] = this.all.length
      this.all.push({ info: type.info, words: type.words.slice() })
      if (shared !== undefined) shared.typeId = newId[id]!
    }
    const renumber = (id: number): number => {
      const found = newId[id]!
      if (found === 0 && id !== 0)
        throw new FormatError('BTF', `type id ${id} of ${source.name} is of a section that is left out`)
      return found
    }
    for (const type of this.all.slice(first))
      for (const place of placesIn(type).types) type.words[place] = renumber(type.words[place]!)
    for (const { shared, type } of redefined) this.all[shared.typeId]!.words[1] = renumber(type)
    for (const shared of byName.values()) shared.isRedefined = false
    source.newIds = newId
  }

  /** Sections .BTF and .BTF.ext. */
  write(sections: readonly OutSection[], littleEndian: boolean): WrittenSection[] {
    const all = this.all.slice()
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
    const ext = groups.some(one => one.length > 0) ? [extRecords(groups, offOf)] : []
    return [
      plainSection('.BTF', littleEndian ? bytes : swapBtf(bytes)),
      ...ext.map(data => plainSection('.BTF.ext', littleEndian ? data : swapWords(data))),
    ]
  }
}
