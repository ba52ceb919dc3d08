/**
 * How long a program can keep the verifier: an upper bound of the instructions that it walks through.
 * Pure.
 *
 * The verifier walks every path, and leaves out what it knows. So the paths of a program without
 * loops and calls of its own are a bound, whatever the kernel. Of others there is none below the
 * million instructions at which the verifier gives up.
 */
import { CLASS, LD_IMM64, OP, PSEUDO, SLOT_BYTES, SRC_X } from './insn.ts'

const OPERATION = 0xf0

/**
 * Infinity: it has a loop, a call of its own functions, a callback, an indirect jump or a jump out
 * of it, though it were in code that is never reached: older kernels look there, too. `code`:
 * instructions of one function, as the kernel takes them.
 */
export function mostSteps(code: Uint8Array): number {
  const count = code.length / SLOT_BYTES
  const view = new DataView(code.buffer, code.byteOffset, code.length)
  // From each instruction to the ends of all paths that go through it.
  const from = new Float64Array(count + 2)
  for (let i = count - 1; i >= 0; i--) {
    const at = i * SLOT_BYTES
    const opcode = code[at]!
    const kind = opcode & 7
    if (opcode === LD_IMM64) {
      if (code[at + 1]! >> 4 === PSEUDO.FUNC) return Number.POSITIVE_INFINITY
      from[i] = 1 + from[i + 2]!
    } else if (kind === CLASS.JMP || kind === CLASS.JMP32) {
      from[i] = 1 + ofJump(view, at, i, from, count)
    } else {
      from[i] = 1 + from[i + 1]! * (isSpeculated(opcode, kind) ? 2 : 1)
    }
    if (from[i] === Number.POSITIVE_INFINITY) return from[i]!
  }
  return from[0]!
}

/** What follows a jump, a call or an exit. */
function ofJump(view: DataView, at: number, i: number, from: Float64Array, count: number): number {
  const opcode = view.getUint8(at)
  const kind = opcode & 7
  switch (opcode & OPERATION) {
    case OP.EXIT:
      return 0
    case OP.CALL: {
      const source = view.getUint8(at + 1) >> 4
      if (source === PSEUDO.CALL) return Number.POSITIVE_INFINITY
      // Of the next element of an iterator, and that there is none, the verifier tries both.
      return from[i + 1]! * (source === PSEUDO.KFUNC_CALL ? 2 : 1)
    }
  }
  const isAlways = (opcode & OPERATION) === OP.JA
  // Where to is in a register.
  if (isAlways && (opcode & SRC_X) !== 0) return Number.POSITIVE_INFINITY
  const distance =
    isAlways && kind === CLASS.JMP32 ? view.getInt32(at + 4, true) : view.getInt16(at + 2, true)
  const target = i + 1 + distance
  if (target <= i || target >= count) return Number.POSITIVE_INFINITY
  return from[target]! + (isAlways ? 0 : from[i + 1]!)
}

/**
 * Without CAP_PERFMON the verifier also walks on with what a processor may take for the result of a
 * pointer plus or minus a register (sanitize_ptr_alu).
 */
function isSpeculated(opcode: number, kind: number): boolean {
  const isArithmetic = kind === CLASS.ALU || kind === CLASS.ALU64
  return isArithmetic && (opcode & SRC_X) !== 0 && (opcode & OPERATION) <= 0x10
}
