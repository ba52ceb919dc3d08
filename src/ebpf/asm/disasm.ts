/**
 * BPF instructions as the kernel's verifier prints them (kernel/bpf/disasm.c). Pure. Never throws:
 * it is used on what a verifier refused.
 */
import { bpf_func_id } from '../../uapi/bpf.ts'
import {
  ALU_OPS,
  ATOMIC_CMPXCHG,
  ATOMIC_FETCH,
  ATOMIC_LOAD_ACQ,
  ATOMIC_OPS,
  ATOMIC_STORE_REL,
  ATOMIC_XCHG,
  CLASS,
  decodeSlot,
  type Insn,
  JUMP_OPS,
  LD_IMM64,
  MODE,
  OP,
  PSEUDO,
  SIZE,
  SLOT_BYTES,
  SRC_X,
  slotsOf,
} from './insn.ts'

const byNumber = (words: Readonly<Record<string, number>>) =>
  new Map(Object.entries(words).map(([word, number]) => [number, word]))
const ALU_WORDS = byNumber(ALU_OPS)
const JUMP_WORDS = byNumber(JUMP_OPS)
const SIZE_WORDS = byNumber(SIZE)
const ATOMIC_WORDS = byNumber(ATOMIC_OPS)
const HELPER_WORDS = byNumber(bpf_func_id)

/** `BPF_ADDR_PERCPU`: only the kernel itself makes it, and shows it in translated programs. */
const OFF_PERCPU = -1
const OFF_ADDR_SPACE_CAST = 1
/** BPF_ST | BPF_NOSPEC, likewise. */
const MODE_NOSPEC = 0xc0

const signed = (n: number) => (n < 0 ? `${n}` : `+${n}`)
const hex = (n: number) => `0x${(n >>> 0).toString(16)}`
const code = (i: Insn) => i.code.toString(16).padStart(2, '0')
const memory = (size: string, reg: number, off: number) => `(${size} *)(r${reg} ${signed(off)})`

/**
 * One instruction without its opcode: `r0 = 2`, `if r1 == 0x0 goto pc+2`, `call
 * bpf_ringbuf_output#130`.
 */
export function disassembleInsn(i: Insn): string {
  switch (i.code & 0x07) {
    case CLASS.ALU:
    case CLASS.ALU64:
      return arithmetic(i)
    case CLASS.JMP:
    case CLASS.JMP32:
      return control(i)
    case CLASS.LDX:
      return loadFrom(i)
    case CLASS.LD:
      return loadConstant(i)
    default:
      return storeTo(i)
  }
}

/**
 * A program, one line per instruction: `   4: (b7) r0 = 2`, numbered by slot as in verifier logs.
 */
export function disassemble(bytes: Uint8Array): string[] {
  const lines: string[] = []
  const number = (at: number) => `${at / SLOT_BYTES}`.padStart(4)
  let at = 0
  for (; at + SLOT_BYTES <= bytes.length; at += SLOT_BYTES) {
    const start = at
    let insn = decodeSlot(bytes, at)
    if (slotsOf(insn) === 2) {
      if (at + 2 * SLOT_BYTES > bytes.length) {
        lines.push(`${number(at)}: (18) r${insn.dst} = 64-bit constant without its second slot`)
        continue
      }
      at += SLOT_BYTES
      insn = { ...insn, immHigh: decodeSlot(bytes, at).imm }
    }
    lines.push(`${number(start)}: (${code(insn)}) ${disassembleInsn(insn)}`)
  }
  if (at < bytes.length) lines.push(`${number(at)}: ${bytes.length - at} bytes that are no whole instruction`)
  return lines
}

function arithmetic(i: Insn): string {
  const r = (i.code & 0x07) === CLASS.ALU ? 'w' : 'r'
  const op = i.code & 0xf0
  const byRegister = (i.code & SRC_X) !== 0
  if (op === OP.END) {
    const to = r === 'r' ? 'bswap' : byRegister ? 'be' : 'le'
    return `r${i.dst} = ${to}${i.imm} r${i.dst}`
  }
  if (op === OP.NEG) return `${r}${i.dst} = -${r}${i.dst}`
  let word = ALU_WORDS.get(op)
  if (word === undefined) return `BUG_alu_${code(i)}`
  if ((word === '/=' || word === '%=') && i.off === 1) word = `s${word}`
  if (!byRegister) return `${r}${i.dst} ${word} ${i.imm}`
  if (word === '=' && r === 'r' && i.off === OFF_ADDR_SPACE_CAST) {
    return `r${i.dst} = addr_space_cast(r${i.src}, ${i.imm >>> 16}, ${i.imm & 0xffff})`
  }
  if (word === '=' && r === 'r' && i.off === OFF_PERCPU) return `r${i.dst} = &(void __percpu *)(r${i.src})`
  const extend = word === '=' && [8, 16, 32].includes(i.off) ? `(s${i.off})` : ''
  return `${r}${i.dst} ${word} ${extend}${r}${i.src}`
}

function control(i: Insn): string {
  const short = (i.code & 0x07) === CLASS.JMP32
  const op = i.code & 0xf0
  const byRegister = (i.code & SRC_X) !== 0
  if (op === OP.CALL) return `call ${callee(i)}`
  if (op === OP.EXIT) return 'exit'
  if (op === OP.JA && byRegister && !short) return `gotox r${i.dst}`
  if (op === OP.JA && !byRegister) return short ? `gotol pc${signed(i.imm)}` : `goto pc${signed(i.off)}`
  if (op === OP.JCOND && !short && !byRegister && i.src === 0) return `may_goto pc${signed(i.off)}`
  const word = JUMP_WORDS.get(op)
  if (word === undefined) return `BUG_jmp_${code(i)}`
  const r = short ? 'w' : 'r'
  const operand = byRegister ? `${r}${i.src}` : hex(i.imm)
  return `if ${r}${i.dst} ${word} ${operand} goto pc${signed(i.off)}`
}

function callee(i: Insn): string {
  if (i.src === PSEUDO.CALL) return `pc${signed(i.imm)}`
  if (i.src === PSEUDO.KFUNC_CALL) return `kernel-function#${i.imm}`
  const helper = i.src === 0 ? HELPER_WORDS.get(i.imm) : undefined
  return `${helper?.replace('BPF_FUNC_', 'bpf_') ?? 'unknown'}#${i.imm}`
}

function loadFrom(i: Insn): string {
  const size = SIZE_WORDS.get(i.code & 0x18)!
  const mode = i.code & 0xe0
  if (mode === MODE.MEM) return `r${i.dst} = *${memory(size, i.src, i.off)}`
  if (mode === MODE.MEMSX) return `r${i.dst} = *${memory(size.replace('u', 's'), i.src, i.off)}`
  return `BUG_ldx_${code(i)}`
}

function loadConstant(i: Insn): string {
  if (i.code === LD_IMM64) return `r${i.dst} = ${constant(i)}`
  const size = SIZE_WORDS.get(i.code & 0x18)!
  const mode = i.code & 0xe0
  if (mode === MODE.ABS) return `r0 = *(${size} *)skb[${i.imm}]`
  if (mode === MODE.IND) return `r0 = *(${size} *)skb[r${i.src} + ${i.imm}]`
  return `BUG_ld_${code(i)}`
}

/** What the kernel prints as an address; here what the number stands for, as bpftool does. */
function constant({ src, imm, immHigh = 0 }: Insn): string {
  switch (src) {
    case PSEUDO.MAP_FD:
      return `map[fd:${imm}]`
    case PSEUDO.MAP_VALUE:
      return `map[fd:${imm}][0]${signed(immHigh)}`
    case PSEUDO.MAP_IDX:
      return `map[idx:${imm}]`
    case PSEUDO.MAP_IDX_VALUE:
      return `map[idx:${imm}][0]${signed(immHigh)}`
    case PSEUDO.BTF_ID:
      return immHigh === 0 ? `btf[id:${imm}]` : `btf[id:${imm} fd:${immHigh}]`
    case PSEUDO.FUNC:
      return `subprog[${signed(imm)}]`
    default:
      return `0x${((BigInt(immHigh >>> 0) << 32n) | BigInt(imm >>> 0)).toString(16)}`
  }
}

function storeTo(i: Insn): string {
  const size = SIZE_WORDS.get(i.code & 0x18)!
  const mode = i.code & 0xe0
  const place = memory(size, i.dst, i.off)
  if ((i.code & 0x07) === CLASS.ST) {
    if (mode === MODE_NOSPEC) return 'nospec'
    return mode === MODE.MEM ? `*${place} = ${i.imm}` : `BUG_st_${code(i)}`
  }
  if (mode === MODE.MEM) return `*${place} = r${i.src}`
  if (mode !== MODE.ATOMIC) return `BUG_${code(i)}`

  const wide = size === 'u64' ? '64' : ''
  if (i.imm === ATOMIC_XCHG) return `r${i.src} = atomic${wide}_xchg(${place}, r${i.src})`
  if (i.imm === ATOMIC_CMPXCHG) return `r0 = atomic${wide}_cmpxchg(${place}, r0, r${i.src})`
  if (i.imm === ATOMIC_LOAD_ACQ) return `r${i.dst} = load_acquire(${memory(size, i.src, i.off)})`
  if (i.imm === ATOMIC_STORE_REL) return `store_release(${place}, r${i.src})`
  const word = ATOMIC_WORDS.get(i.imm & ~ATOMIC_FETCH)
  if (word === undefined) return `BUG_${code(i)}`
  return (i.imm & ATOMIC_FETCH) === 0
    ? `lock *${place} ${ALU_WORDS.get(i.imm)} r${i.src}`
    : `r${i.src} = atomic${wide}_fetch_${word}(${place}, r${i.src})`
}
