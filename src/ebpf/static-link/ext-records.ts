/**
 * Records of .BTF.ext on their way from objects into the result: which function, source line and
 * CO-RE relocation belongs to which instruction. Pure.
 */
import { ConflictError, FormatError } from '../../errors.ts'
import type { ExtInfo, ExtRecords } from '../object/ext-info.ts'
import type { OutSection } from './out-section.ts'
import type { RawBtf, TextTable } from './raw-types.ts'
import type { Source } from './source.ts'

/** Of one section. Texts are numbers of the table of all texts. */
export interface Records {
  readonly wordsEach: number
  readonly words: number[]
}

export type ExtKind = keyof ExtInfo
export const EXT_KINDS: readonly ExtKind[] = ['functions', 'lines', 'coreRelos']
/** Texts in the records: file and line; path of the access. */
export const EXT_TEXTS = { functions: [], lines: [1, 2], coreRelos: [2] } as const
/** The type that a record is of. */
export const EXT_TYPE = { functions: 1, lines: undefined, coreRelos: 1 } as const

const EXT_HEADER_BYTES = 32
const EXT_MAGIC = 0xeb9f

/** Those of an object whose sections are placed and whose types are added. */
export function addExt({ ext, sections, btf, placed, newIds }: Source, texts: TextTable): void {
  if (ext === undefined) return
  for (const kind of EXT_KINDS)
    for (const group of ext[kind]) {
      const name = texts.name(btf!.text(group.sectionNameOff))
      const index = sections.get(name)?.index
      const place = index === undefined ? undefined : placed.get(index)
      if (place === undefined)
        throw new FormatError('BTF.ext', `section "${name}" is described and not there`)
      addRecords(place, kind, group, btf!, newIds)
    }
}

function addRecords(
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

/** What the section holds, of one list of records by section for each of `EXT_KINDS`. */
export function extRecords(
  groups: readonly (readonly { kind: ExtKind; name: number; wordsEach: number; words: number[] }[])[],
  offOf: ReadonlyMap<number, number>,
): Uint8Array {
  const tables = groups.map(of => {
    const [first] = of
    if (first === undefined) return []
    return [
      first.wordsEach * 4,
      ...of.flatMap(({ kind, name, wordsEach, words }) => {
        if (wordsEach !== first.wordsEach)
          throw new ConflictError(`The objects describe ${kind} in records of two sizes`, {
            hint: 'Compile all objects with the same compiler',
          })
        const moved = words.slice()
        for (let at = 0; at < moved.length; at += wordsEach)
          for (const place of EXT_TEXTS[kind]) moved[at + place] = offOf.get(moved[at + place]!)!
        return [offOf.get(name)!, words.length / wordsEach, ...moved]
      }),
    ]
  })
  const words = tables.flat()
  const data = new Uint8Array(EXT_HEADER_BYTES + words.length * 4)
  const view = new DataView(data.buffer)
  view.setUint16(0, EXT_MAGIC, true)
  view.setUint8(2, 1)
  view.setUint32(4, EXT_HEADER_BYTES, true)
  let off = 0
  for (const [i, { length }] of tables.entries()) {
    view.setUint32(8 + i * 8, off, true)
    view.setUint32(12 + i * 8, length * 4, true)
    off += length * 4
  }
  for (const [i, word] of words.entries()) view.setUint32(EXT_HEADER_BYTES + i * 4, word >>> 0, true)
  return data
}
