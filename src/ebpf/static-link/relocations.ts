/** Relocations on their way from an object into the result, and what instructions say of them. Pure. */
import { FormatError, NotSupportedError } from '../../errors.ts'
import { CLASS, OP, SLOT_BYTES } from '../asm/insn.ts'
import { SHF, STT } from '../elf/elf.ts'
import type { OutSection } from './out-section.ts'
import type { Source } from './source.ts'

const R_BPF_64_64 = 1
const R_BPF_64_ABS64 = 2
const R_BPF_64_ABS32 = 3
const R_BPF_64_32 = 10
const RELOCATIONS: readonly number[] = [R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_ABS32, R_BPF_64_32]
const CALL = CLASS.JMP | OP.CALL

/** The symbols of the object are in the result already. */
export function addRelocations(source: Source): void {
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
      if (moved !== undefined) move(part.data, at, type, isCode, moved, section.name, source.elf.littleEndian)
    }
  }
}

/** What refers to the beginning of a section says in itself how far behind it is meant. */
function move(
  data: Uint8Array,
  at: number,
  type: number,
  isCode: boolean,
  to: { readonly section: OutSection; readonly off: number },
  name: string,
  littleEndian: boolean,
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
    view.setBigUint64(
      at,
      BigInt.asUintN(64, view.getBigUint64(at, littleEndian) + BigInt(to.off)),
      littleEndian,
    )
  else
    throw new NotSupportedError(
      `Section "${name}" points into section "${to.section.name}" without naming what it points to`,
      {
        context: { section: name },
        hint: 'Make what it points to global, so that it has a name',
      },
    )
}
