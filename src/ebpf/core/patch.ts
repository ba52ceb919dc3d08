/**
 * Writes the number of a CO-RE relocation into its instruction. Pure.
 *
 * An offset stands in a load or store, or is added to a register; other numbers are constants. The
 * number that the compiler wrote is compared first: if it is not what the program's own types say,
 * the relocation is at the wrong place.
 */

import { CLASS, decodeSlot, type Insn, LD_IMM64, OP, SIZE, SLOT_BYTES, SRC_X } from '../asm/insn.ts'
import { coreError } from './types.ts'
import type { CoreAnswer } from './value.ts'

/**
 * A helper that no kernel has: 0xbad2310, "bad relo", as libbpf, so that tags are the same.
 */
export const POISON = 195_896_080

const CALL = CLASS.JMP | OP.CALL
const CLASS_MASK = 0x07
const SIZE_MASK = 0x18
const MAX_OFF = 0x7fffn
const SIZE_BITS: ReadonlyMap<number, number> = new Map([
  [1, SIZE.u8],
  [2, SIZE.u16],
  [4, SIZE.u32],
  [8, SIZE.u64],
])

/**
 * Patches the instruction at `slot`. Throws FormatError where it is none that a relocation can be
 * in.
 */
export function patchInstruction(
  code: Uint8Array,
  slot: number,
  answer: CoreAnswer,
): { poisoned: boolean; reason?: string } {
  const at = slot * SLOT_BYTES
  if (!Number.isInteger(slot) || slot < 0 || at + SLOT_BYTES > code.length)
    throw coreError(`there is no instruction at slot ${slot}`)
  const insn = decodeSlot(code, at)
  const isWide = insn.code === LD_IMM64
  if (isWide && at + 2 * SLOT_BYTES > code.length)
    throw coreError(`the constant at slot ${slot} has no second slot`)
  const { local, target } = answer
  if (target === undefined) return poison(code, at, isWide)

  const view = new DataView(code.buffer, code.byteOffset, code.byteLength)
  const check = (written: number | bigint) => {
    const found = BigInt.asUintN(64, BigInt(written))
    if (local.certain && found !== local.value)
      throw coreError(
        `${answer.what} is ${local.value} where it was compiled, and the instruction has ${found}`,
      )
  }
  switch (insn.code & CLASS_MASK) {
    case CLASS.ALU:
    case CLASS.ALU64:
      if ((insn.code & SRC_X) !== 0) throw coreError('the instruction takes its number from a register')
      check(insn.imm)
      view.setInt32(at + 4, Number(BigInt.asIntN(32, target.value)), true)
      return { poisoned: false }
    case CLASS.LDX:
    case CLASS.ST:
    case CLASS.STX: {
      check(insn.off)
      if (target.value > MAX_OFF)
        throw coreError(`${answer.what} is ${target.value}, and a load or store reaches ${MAX_OFF}`)
      const sizes = `its size is ${target.accessBytes} bytes here, ${local.accessBytes} where it was compiled`
      if (!answer.resizable) return { ...poison(code, at, isWide), reason: sizes }
      if (target.accessBytes !== local.accessBytes) view.setUint8(at, resized(insn, answer, sizes))
      view.setInt16(at + 2, Number(target.value), true)
      return { poisoned: false }
    }
    case CLASS.LD: {
      const high = isWide ? decodeSlot(code, at + SLOT_BYTES) : insn
      const alone = !isWide || insn.src !== 0 || insn.off !== 0
      if (alone || high.code !== 0 || high.dst !== 0 || high.src !== 0 || high.off !== 0)
        throw coreError('the instruction is no plain 64-bit constant')
      check((BigInt(high.imm) << 32n) | BigInt(insn.imm >>> 0))
      view.setInt32(at + 4, Number(BigInt.asIntN(32, target.value)), true)
      view.setInt32(at + SLOT_BYTES + 4, Number(BigInt.asIntN(32, target.value >> 32n)), true)
      return { poisoned: false }
    }
    default:
      throw coreError(`an instruction with opcode 0x${insn.code.toString(16)} has no number to relocate`)
  }
}

/** The opcode of a load or store with the size that the field has in the kernel. */
function resized(insn: Insn, { local, target }: CoreAnswer, sizes: string): number {
  if (SIZE_BITS.get(local.accessBytes) !== (insn.code & SIZE_MASK))
    throw coreError(`the instruction does not take the whole field, and ${sizes}`)
  const bits = SIZE_BITS.get(target!.accessBytes)
  if (bits === undefined) throw coreError(`no instruction takes the field: ${sizes}`)
  return (insn.code & ~SIZE_MASK) | bits
}

/**
 * Both slots of a constant: the verifier would stop at the second one with a reason that misleads.
 */
function poison(code: Uint8Array, at: number, isWide: boolean): { poisoned: true } {
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength)
  for (let slot = at; slot <= (isWide ? at + SLOT_BYTES : at); slot += SLOT_BYTES) {
    code.fill(0, slot, slot + SLOT_BYTES)
    view.setUint8(slot, CALL)
    view.setInt32(slot + 4, POISON, true)
  }
  return { poisoned: true }
}
