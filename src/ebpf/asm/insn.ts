/**
 * BPF instructions: a builder that reads like the verifier's log, and the codec. Pure.
 *
 *   assemble([ldMapFd(R1, fd), call('map_lookup_elem'), jumpIf('==', R0, 0, 'miss'), ..., label('miss'), exit()])
 *
 * An instruction is one slot of 8 bytes (struct bpf_insn); a 64-bit constant takes two. Jump and
 * call distances count slots from the one after the instruction. The instruction set is
 * Documentation/bpf/standardization/instruction-set.rst; opcodes are
 * #defines in include/uapi/linux/bpf_common.h and bpf.h; operators are the words of the verifier's log.
 */
import { FormatError } from '../../errors.ts'
import { bpf_func_id } from '../../uapi/bpf.ts'

export const SLOT_BYTES = 8

/** Lowest three bits of every opcode. */
export const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const

/** Bit 3 of arithmetic and jumps: the second operand is a register. For END: to big endian. */
export const SRC_X = 0x08

/** Upper four bits of arithmetic, by operator. */
export const ALU_OPS = {
  '+=': 0x00,
  '-=': 0x10,
  '*=': 0x20,
  '/=': 0x30,
  '|=': 0x40,
  '&=': 0x50,
  '<<=': 0x60,
  '>>=': 0x70,
  '%=': 0x90,
  '^=': 0xa0,
  '=': 0xb0,
  's>>=': 0xc0,
} as const

/** Upper four bits of conditional jumps, by operator. */
export const JUMP_OPS = {
  '==': 0x10,
  '>': 0x20,
  '>=': 0x30,
  '&': 0x40,
  '!=': 0x50,
  's>': 0x60,
  's>=': 0x70,
  '<': 0xa0,
  '<=': 0xb0,
  's<': 0xc0,
  's<=': 0xd0,
} as const

/** Upper four bits of what has no operator: NEG and END are arithmetic, the others jumps. */
export const OP = { NEG: 0x80, END: 0xd0, JA: 0x00, CALL: 0x80, EXIT: 0x90, JCOND: 0xe0 } as const

/** Bits 3 and 4 of loads and stores. */
export const SIZE = { u32: 0x00, u16: 0x08, u8: 0x10, u64: 0x18 } as const

/** Upper three bits of loads and stores. */
export const MODE = { IMM: 0x00, ABS: 0x20, IND: 0x40, MEM: 0x60, MEMSX: 0x80, ATOMIC: 0xc0 } as const

/** The one instruction of two slots. */
export const LD_IMM64 = CLASS.LD | MODE.IMM | SIZE.u64

/** `imm` of an atomic instruction. */
export const ATOMIC_OPS = { add: 0x00, or: 0x40, and: 0x50, xor: 0xa0 } as const
export const ATOMIC_FETCH = 0x01
export const ATOMIC_XCHG = 0xe0 | ATOMIC_FETCH
export const ATOMIC_CMPXCHG = 0xf0 | ATOMIC_FETCH
export const ATOMIC_LOAD_ACQ = 0x100
export const ATOMIC_STORE_REL = 0x110

/** `src` of LD_IMM64 and of calls: what `imm` stands for. */
export const PSEUDO = {
  MAP_FD: 1,
  MAP_VALUE: 2,
  BTF_ID: 3,
  FUNC: 4,
  MAP_IDX: 5,
  MAP_IDX_VALUE: 6,
  CALL: 1,
  KFUNC_CALL: 2,
} as const

/** One instruction. `dst` and `src` are register numbers; `off` is 16 and `imm` 32 bits, signed. */
export interface Insn {
  readonly code: number
  readonly dst: number
  readonly src: number
  readonly off: number
  readonly imm: number
  /** Upper half of a 64-bit constant: there for LD_IMM64, which takes two slots, and only there. */
  readonly immHigh?: number
  /** The label that `off` or `imm` will lead to. Gone after `assemble`. */
  readonly target?: string
}

/** Names the place of the next instruction. */
export interface Label {
  readonly label: string
}

/** A register, as opposed to a number that means itself. */
export interface Reg {
  readonly reg: number
}

/** A label, or a distance in slots from the next instruction. */
export type Target = string | number
export type UnsignedSize = keyof typeof SIZE
export type SignedSize = 's8' | 's16' | 's32'
export type AluOp = Exclude<keyof typeof ALU_OPS, '='> | 's/=' | 's%='
export type JumpOp = keyof typeof JUMP_OPS
export type AtomicOp = keyof typeof ATOMIC_OPS
/** A helper without its prefix: `map_lookup_elem` is bpf_map_lookup_elem(). */
export type HelperName = keyof typeof bpf_func_id extends `BPF_FUNC_${infer N}` ? N : never

export const R0: Reg = { reg: 0 }
export const R1: Reg = { reg: 1 }
export const R2: Reg = { reg: 2 }
export const R3: Reg = { reg: 3 }
export const R4: Reg = { reg: 4 }
export const R5: Reg = { reg: 5 }
export const R6: Reg = { reg: 6 }
export const R7: Reg = { reg: 7 }
export const R8: Reg = { reg: 8 }
export const R9: Reg = { reg: 9 }
/** The frame pointer: read only, the stack lies below it. */
export const R10: Reg = { reg: 10 }

function insn(code: number, parts: Partial<Insn> = {}): Insn {
  return { code, dst: 0, src: 0, off: 0, imm: 0, ...parts }
}

/** Second operand: a register goes to `src` and sets the X bit, a number goes to `imm`. */
function withOperand(code: number, operand: Reg | number, parts: Partial<Insn>): Insn {
  return typeof operand === 'number'
    ? insn(code, { imm: operand, ...parts })
    : insn(code | SRC_X, { src: operand.reg, ...parts })
}

function to(target: Target, field: 'off' | 'imm'): Partial<Insn> {
  return typeof target === 'string' ? { target } : { [field]: target }
}

function alu(cls: number, op: AluOp, dst: Reg, src: Reg | number): Insn {
  const signed = op === 's/=' || op === 's%='
  const code = ALU_OPS[signed ? (op.slice(1) as '/=' | '%=') : op]
  return withOperand(cls | code, src, { dst: dst.reg, off: signed ? 1 : 0 })
}

/** `alu64('+=', R1, 8)` is r1 += 8. */
export const alu64 = (op: AluOp, dst: Reg, src: Reg | number): Insn => alu(CLASS.ALU64, op, dst, src)
/** On the lower halves; the upper half of `dst` becomes zero. */
export const alu32 = (op: AluOp, dst: Reg, src: Reg | number): Insn => alu(CLASS.ALU, op, dst, src)
export const mov64 = (dst: Reg, src: Reg | number): Insn =>
  withOperand(CLASS.ALU64 | ALU_OPS['='], src, { dst: dst.reg })
export const mov32 = (dst: Reg, src: Reg | number): Insn =>
  withOperand(CLASS.ALU | ALU_OPS['='], src, { dst: dst.reg })
/**
 * Sign-extends the lowest `bits` of `src` to 64 bits. Since Linux 6.6, as the other v4
 * instructions.
 */
export const movsx64 = (dst: Reg, src: Reg, bits: 8 | 16 | 32): Insn => ({ ...mov64(dst, src), off: bits })
export const movsx32 = (dst: Reg, src: Reg, bits: 8 | 16): Insn => ({ ...mov32(dst, src), off: bits })
export const neg64 = (dst: Reg): Insn => insn(CLASS.ALU64 | OP.NEG, { dst: dst.reg })
export const neg32 = (dst: Reg): Insn => insn(CLASS.ALU | OP.NEG, { dst: dst.reg })
/** Converts the lowest `bits` from native to little endian, and zeroes the rest. */
export const toLe = (dst: Reg, bits: 16 | 32 | 64): Insn =>
  insn(CLASS.ALU | OP.END, { dst: dst.reg, imm: bits })
/** Converts the lowest `bits` from native to big endian, and zeroes the rest. */
export const toBe = (dst: Reg, bits: 16 | 32 | 64): Insn =>
  insn(CLASS.ALU | OP.END | SRC_X, { dst: dst.reg, imm: bits })
/** Swaps bytes whatever the byte order. Since Linux 6.6. */
export const bswap = (dst: Reg, bits: 16 | 32 | 64): Insn =>
  insn(CLASS.ALU64 | OP.END, { dst: dst.reg, imm: bits })
/**
 * Converts an arena pointer between address spaces: 0 is the kernel's, 1 the arena's. Since Linux
 * 6.9.
 */
export const addrSpaceCast = (dst: Reg, src: Reg, dstSpace: number, srcSpace: number): Insn => ({
  ...mov64(dst, src),
  off: 1,
  imm: (dstSpace << 16) | srcSpace,
})

/**
 * `load('u32', R2, R1, 4)` is r2 = *(u32 *)(r1 + 4); signed sizes sign-extend (since Linux 6.6).
 */
export function load(size: UnsignedSize | SignedSize, dst: Reg, src: Reg, off: number): Insn {
  const signed = size.startsWith('s')
  const width = SIZE[signed ? (`u${size.slice(1)}` as UnsignedSize) : (size as UnsignedSize)]
  const mode = signed ? MODE.MEMSX : MODE.MEM
  return insn(CLASS.LDX | mode | width, { dst: dst.reg, src: src.reg, off })
}

/** `store('u64', R10, -8, R1)` is *(u64 *)(r10 - 8) = r1; a number is stored as itself. */
export function store(size: UnsignedSize, dst: Reg, off: number, src: Reg | number): Insn {
  const code = MODE.MEM | SIZE[size]
  return typeof src === 'number'
    ? insn(CLASS.ST | code, { dst: dst.reg, off, imm: src })
    : insn(CLASS.STX | code, { dst: dst.reg, off, src: src.reg })
}

const atomicInsn = (size: UnsignedSize, dst: Reg, off: number, src: Reg, imm: number): Insn =>
  insn(CLASS.STX | MODE.ATOMIC | SIZE[size], { dst: dst.reg, off, src: src.reg, imm })

/** Atomically applies `op` with `src` to memory; with `fetch`, `src` then holds the old value. */
export const atomic = (
  op: AtomicOp,
  size: 'u32' | 'u64',
  dst: Reg,
  off: number,
  src: Reg,
  options: { fetch?: boolean } = {},
): Insn => atomicInsn(size, dst, off, src, ATOMIC_OPS[op] | (options.fetch ? ATOMIC_FETCH : 0))
/** Exchanges memory and `src`. */
export const xchg = (size: 'u32' | 'u64', dst: Reg, off: number, src: Reg): Insn =>
  atomicInsn(size, dst, off, src, ATOMIC_XCHG)
/** Stores `src` if memory equals R0; R0 then holds the old value. */
export const cmpxchg = (size: 'u32' | 'u64', dst: Reg, off: number, src: Reg): Insn =>
  atomicInsn(size, dst, off, src, ATOMIC_CMPXCHG)
/** This and `storeRelease` since Linux 6.15. */
export const loadAcquire = (size: UnsignedSize, dst: Reg, src: Reg, off: number): Insn =>
  atomicInsn(size, dst, off, src, ATOMIC_LOAD_ACQ)
export const storeRelease = (size: UnsignedSize, dst: Reg, off: number, src: Reg): Insn =>
  atomicInsn(size, dst, off, src, ATOMIC_STORE_REL)
/** Legacy packet access: r0 = packet bytes at `at`, in host order. R6 must hold the skb. */
export const ldAbs = (size: 'u8' | 'u16' | 'u32', at: number): Insn =>
  insn(CLASS.LD | MODE.ABS | SIZE[size], { imm: at })
/** As `ldAbs`, at `src` + `at`. */
export const ldInd = (size: 'u8' | 'u16' | 'u32', src: Reg, at: number): Insn =>
  insn(CLASS.LD | MODE.IND | SIZE[size], { src: src.reg, imm: at })

const ld64 = (dst: Reg, src: number, parts: Partial<Insn>): Insn =>
  insn(LD_IMM64, { dst: dst.reg, src, immHigh: 0, ...parts })

/** Loads a 64-bit constant, signed or unsigned. */
export function ldImm64(dst: Reg, value: bigint | number): Insn {
  const wide = BigInt(value)
  if (wide < -(1n << 63n) || wide >= 1n << 64n) throw bad(`constant ${wide} does not fit 64 bits`)
  return ld64(dst, 0, {
    imm: Number(BigInt.asIntN(32, wide)),
    immHigh: Number(BigInt.asIntN(32, wide >> 32n)),
  })
}
export const ldMapFd = (dst: Reg, fd: number): Insn => ld64(dst, PSEUDO.MAP_FD, { imm: fd })
/** Address `off` bytes into the value of a one-element array map. */
export const ldMapValue = (dst: Reg, fd: number, off: number): Insn =>
  ld64(dst, PSEUDO.MAP_VALUE, { imm: fd, immHigh: off })
/** The map at `index` of BPF_PROG_LOAD's fd_array. */
export const ldMapIdx = (dst: Reg, index: number): Insn => ld64(dst, PSEUDO.MAP_IDX, { imm: index })
export const ldMapIdxValue = (dst: Reg, index: number, off: number): Insn =>
  ld64(dst, PSEUDO.MAP_IDX_VALUE, { imm: index, immHigh: off })
/** Address of a kernel variable by its BTF id; `btfFd` 0 is vmlinux. */
export const ldBtfId = (dst: Reg, btfId: number, btfFd = 0): Insn =>
  ld64(dst, PSEUDO.BTF_ID, { imm: btfId, immHigh: btfFd })
/** Address of a function of this program, for helpers that call back. */
export const ldFunc = (dst: Reg, target: Target): Insn => ld64(dst, PSEUDO.FUNC, to(target, 'imm'))

export const label = (name: string): Label => ({ label: name })
export const jump = (target: Target): Insn => insn(CLASS.JMP | OP.JA, to(target, 'off'))
/** A jump of up to 2^31 slots (gotol). Since Linux 6.6. */
export const jumpLong = (target: Target): Insn => insn(CLASS.JMP32 | OP.JA, to(target, 'imm'))
/** `jumpIf('s<', R1, 0, 'negative')`: compares 64 bits; s means signed, `&` any common bit. */
export const jumpIf = (op: JumpOp, dst: Reg, src: Reg | number, target: Target): Insn =>
  withOperand(CLASS.JMP | JUMP_OPS[op], src, { dst: dst.reg, ...to(target, 'off') })
/** As `jumpIf`, on the lower halves. */
export const jumpIf32 = (op: JumpOp, dst: Reg, src: Reg | number, target: Target): Insn =>
  withOperand(CLASS.JMP32 | JUMP_OPS[op], src, { dst: dst.reg, ...to(target, 'off') })
/** Jumps when the kernel's loop budget is used up. Since Linux 6.9. */
export const mayGoto = (target: Target): Insn => insn(CLASS.JMP | OP.JCOND, to(target, 'off'))
/** Jumps to the address in `dst`, from an instruction array map (gotox). */
export const jumpIndirect = (dst: Reg): Insn => insn(CLASS.JMP | OP.JA | SRC_X, { dst: dst.reg })
/** Calls a helper, by name or by its number in enum bpf_func_id. */
export function call(helper: HelperName | number): Insn {
  const id = typeof helper === 'number' ? helper : bpf_func_id[`BPF_FUNC_${helper}`]
  if (id === undefined) throw bad(`helper "${helper}" is not known`)
  return insn(CLASS.JMP | OP.CALL, { imm: id })
}
/** Calls a function of this program. */
export const callLocal = (target: Target): Insn =>
  insn(CLASS.JMP | OP.CALL, { src: PSEUDO.CALL, ...to(target, 'imm') })
/**
 * Calls a kfunc by the BTF id of its FUNC; `fdIndex` is its module's place in fd_array, 0 for
 * vmlinux.
 */
export const callKfunc = (btfId: number, fdIndex = 0): Insn =>
  insn(CLASS.JMP | OP.CALL, { src: PSEUDO.KFUNC_CALL, imm: btfId, off: fdIndex })
export const exit = (): Insn => insn(CLASS.JMP | OP.EXIT)

function bad(message: string, off?: number): FormatError {
  return new FormatError('BPF instructions', message, off === undefined ? {} : { off })
}

/** How many slots an instruction takes. */
export function slotsOf({ code }: Pick<Insn, 'code'>): 1 | 2 {
  return code === LD_IMM64 ? 2 : 1
}

/**
 * Resolves labels and encodes. Throws FormatError for a label missing or given twice, or a value
 * out of range.
 */
export function assemble(items: readonly (Insn | Label)[]): { bytes: Uint8Array; insns: Insn[] } {
  const places = new Map<string, number>()
  let slots = 0
  for (const item of items) {
    if ('label' in item) {
      if (places.has(item.label)) throw bad(`label "${item.label}" is there twice`)
      places.set(item.label, slots)
    } else slots += slotsOf(item)
  }
  let slot = 0
  const insns: Insn[] = []
  for (const item of items) {
    if ('label' in item) continue
    insns.push(resolve(item, slot, places))
    slot += slotsOf(item)
  }
  return { bytes: encode(insns), insns }
}

function resolve(item: Insn, slot: number, places: ReadonlyMap<string, number>): Insn {
  const { target, ...fixed } = item
  if (target === undefined) return item
  const place = places.get(target)
  if (place === undefined) throw bad(`slot ${slot}: label "${target}" does not exist`)
  const distance = place - (slot + 1)
  // Calls, function addresses and gotol reach further than 16 bits.
  const wide =
    item.code === LD_IMM64 || item.code === (CLASS.JMP | OP.CALL) || item.code === (CLASS.JMP32 | OP.JA)
  if (!wide && !fits(distance, 16)) {
    throw bad(`slot ${slot}: label "${target}" is ${distance} slots away, a jump reaches 32767; use jumpLong`)
  }
  return { ...fixed, [wide ? 'imm' : 'off']: distance }
}

function fits(value: number, bits: 16 | 32): boolean {
  return Number.isInteger(value) && value >= -(2 ** (bits - 1)) && value < 2 ** (bits - 1)
}

/** Instructions as the kernel takes them. */
export function encode(insns: readonly Insn[]): Uint8Array {
  const bytes = new Uint8Array(insns.reduce((sum, i) => sum + slotsOf(i), 0) * SLOT_BYTES)
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const i of insns) {
    check(i, at / SLOT_BYTES)
    view.setUint8(at, i.code)
    view.setUint8(at + 1, i.dst | (i.src << 4))
    view.setInt16(at + 2, i.off, true)
    view.setInt32(at + 4, i.imm, true)
    if (slotsOf(i) === 2) view.setInt32(at + SLOT_BYTES + 4, i.immHigh ?? 0, true)
    at += slotsOf(i) * SLOT_BYTES
  }
  return bytes
}

function check(i: Insn, slot: number): void {
  const need = (ok: boolean, message: string) => {
    if (!ok) throw bad(`slot ${slot}: ${message}`)
  }
  need(Number.isInteger(i.code) && i.code >= 0 && i.code <= 0xff, `opcode ${i.code} does not fit 8 bits`)
  for (const reg of [i.dst, i.src]) {
    need(Number.isInteger(reg) && reg >= 0 && reg <= 0xf, `register ${reg} does not exist`)
  }
  need(i.target === undefined, `label "${i.target}" is not resolved; use assemble()`)
  need(fits(i.off, 16), `offset ${i.off} does not fit 16 bits, signed`)
  need(fits(i.imm, 32), `constant ${i.imm} does not fit 32 bits, signed; use ldImm64`)
  need(fits(i.immHigh ?? 0, 32), `upper half ${i.immHigh} does not fit 32 bits, signed`)
  need(i.immHigh === undefined || slotsOf(i) === 2, 'only a 64-bit constant has an upper half')
}

/** The instructions in `bytes`. Opcodes are not judged: that is the verifier's part. */
export function decode(bytes: Uint8Array): Insn[] {
  if (bytes.length % SLOT_BYTES !== 0) throw bad(`${bytes.length} bytes are not whole slots of ${SLOT_BYTES}`)
  const insns: Insn[] = []
  for (let at = 0; at < bytes.length; ) {
    const one = decodeSlot(bytes, at)
    at += SLOT_BYTES
    if (slotsOf(one) === 1) {
      insns.push(one)
      continue
    }
    if (at === bytes.length) throw bad('second slot of a 64-bit constant is missing', at)
    const { code, dst, src, off, imm } = decodeSlot(bytes, at)
    if (code !== 0 || dst !== 0 || src !== 0 || off !== 0) {
      throw bad('second slot of a 64-bit constant holds more than its upper half', at)
    }
    insns.push({ ...one, immHigh: imm })
    at += SLOT_BYTES
  }
  return insns
}

/** The 8 bytes at `at`, with nothing said about what they mean. */
export function decodeSlot(bytes: Uint8Array, at: number): Insn {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, SLOT_BYTES)
  const regs = view.getUint8(1)
  return {
    code: view.getUint8(0),
    dst: regs & 0xf,
    src: regs >> 4,
    off: view.getInt16(2, true),
    imm: view.getInt32(4, true),
  }
}
