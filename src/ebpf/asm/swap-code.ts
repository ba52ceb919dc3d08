/** Instructions in the other byte order. Pure. */
import { SLOT_BYTES } from './insn.ts'

/**
 * From either order to the other: registers trade places, as C lays out bit fields the other way
 * round.
 */
export function swapCode(code: Uint8Array): Uint8Array {
  const swapped = new Uint8Array(code)
  const view = new DataView(swapped.buffer)
  for (let at = 0; at + SLOT_BYTES <= swapped.length; at += SLOT_BYTES) {
    const regs = swapped[at + 1]!
    swapped[at + 1] = (regs >> 4) | ((regs & 0xf) << 4)
    view.setInt16(at + 2, view.getInt16(at + 2, false), true)
    view.setInt32(at + 4, view.getInt32(at + 4, false), true)
  }
  return swapped
}
