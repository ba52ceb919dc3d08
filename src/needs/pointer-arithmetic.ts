/**
 * Whether a program computes with pointers as the verifier lets only holders of CAP_PERFMON do:
 * `data_end - data`, and its like. Pure.
 *
 * Follows pointers of the context, the packet and the stack through the program's own code. What
 * could be a pointer or not, and what comes from a map or a function, is not followed: such programs
 * are found by trying. Source: kernel/bpf/verifier.c, adjust_reg_min_max_vals, check_alu_op and
 * check_cond_jmp_op, where allow_ptr_leaks is asked.
 */
import { ALU_OPS, CLASS, JUMP_OPS, LD_IMM64, MODE, OP, SIZE, SLOT_BYTES, SRC_X } from '../ebpf/asm/insn.ts'

/** What a register or a slot of the stack holds; 0: nothing that is known to be a pointer. */
const NONE = 0
const CONTEXT = 1
const STACK = 2
const PACKET = 3
const META = 4
const END = 5

/** Where the context has pointers into a packet: by byte offset what they are. */
type PacketFields = Readonly<Record<number, number>>

const XDP: PacketFields = { 0: PACKET, 4: END, 8: META }
const SKB: PacketFields = { 76: PACKET, 80: END, 140: META }
const FIELDS: Readonly<Record<string, PacketFields>> = {
  xdp: XDP,
  ...Object.fromEntries(
    [
      ...['sched_cls', 'sched_act', 'cgroup_skb', 'sk_skb', 'flow_dissector'],
      ...['lwt_in', 'lwt_out', 'lwt_xmit', 'lwt_seg6local'],
    ].map(type => [type, SKB]),
  ),
}

const REGISTERS = 11
const STACK_SLOTS = 64
const CALLER_SAVED = 6
/** A program that is larger is left to trying, as is one whose loops lose a little in each round. */
const MAX_SLOTS = 100_000
const VISITS_PER_SLOT = 16

/** Registers, then the stack in steps of eight bytes, downwards. */
type State = Uint8Array

/** For people, what it does; undefined: nothing that this finds. `type` is the program's. */
export function pointerArithmetic(code: Uint8Array, type: string): string | undefined {
  const fields = FIELDS[type]
  const count = code.length / SLOT_BYTES
  if (fields === undefined || count > MAX_SLOTS) return undefined
  const view = new DataView(code.buffer, code.byteOffset, code.length)
  const before: (State | undefined)[] = []
  const start = new Uint8Array(REGISTERS + STACK_SLOTS)
  start[1] = CONTEXT
  start[10] = STACK
  const waiting: number[] = []
  const reach = (slot: number, state: State): void => {
    if (slot < 0 || slot >= count) return
    const known = before[slot]
    if (known === undefined) before[slot] = state.slice()
    else {
      let changed = false
      for (let i = 0; i < known.length; i++)
        if (known[i] !== state[i] && known[i] !== NONE) {
          known[i] = NONE
          changed = true
        }
      if (!changed) return
    }
    waiting.push(slot)
  }
  reach(0, start)
  let visits = 0
  for (let slot = waiting.pop(); slot !== undefined; slot = waiting.pop()) {
    if (visits++ > count * VISITS_PER_SLOT) return undefined
    for (const [next, state] of step(view, slot, before[slot]!.slice(), fields)) reach(next, state)
  }
  // Only now is it known what may be another thing on another way.
  for (let slot = 0; slot < count; slot++) {
    const state = before[slot]
    const found = state && prohibited(view, slot, state)
    if (found !== undefined) return found
  }
  return undefined
}

interface Decoded {
  readonly opcode: number
  readonly dst: number
  readonly src: number
  readonly off: number
  readonly imm: number
}

function decode(view: DataView, slot: number): Decoded {
  const at = slot * SLOT_BYTES
  const registers = view.getUint8(at + 1)
  return {
    ...{ opcode: view.getUint8(at), dst: registers & 0xf, src: registers >> 4 },
    ...{ off: view.getInt16(at + 2, true), imm: view.getInt32(at + 4, true) },
  }
}

/** Place of a slot of the stack, that is at `r10 + off`; undefined: there is no such place. */
function stackPlace(off: number): number | undefined {
  const slot = -off / 8 - 1
  return Number.isInteger(slot) && slot >= 0 && slot < STACK_SLOTS ? REGISTERS + slot : undefined
}

/** Where it goes from there, and with what. */
function step(view: DataView, slot: number, state: State, fields: PacketFields): [number, State][] {
  const { opcode, dst, src, off, imm } = decode(view, slot)
  const next = slot + 1
  const kind = opcode & 7
  switch (kind) {
    case CLASS.ALU64:
    case CLASS.ALU: {
      const op = opcode & 0xf0
      const isX = (opcode & SRC_X) !== 0
      if (op === ALU_OPS['=']) state[dst] = kind === CLASS.ALU64 && isX && off === 0 ? state[src]! : NONE
      else if (kind === CLASS.ALU || (op !== ALU_OPS['+='] && op !== ALU_OPS['-='])) state[dst] = NONE
      // A number and a pointer are a pointer; what else it is, the second pass asks.
      else if (isX && op === ALU_OPS['+='] && state[dst] === NONE) state[dst] = state[src]!
      else if (isX && state[src] !== NONE) state[dst] = NONE
      // The stack is followed by its own register alone.
      if (state[dst] === STACK && dst !== 10) state[dst] = NONE
      return [[next, state]]
    }
    case CLASS.LDX: {
      const isField = state[src] === CONTEXT && opcode === (CLASS.LDX | MODE.MEM | SIZE.u32)
      const isSlot = src === 10 && opcode === (CLASS.LDX | MODE.MEM | SIZE.u64)
      const place = isSlot ? stackPlace(off) : undefined
      state[dst] = isField ? (fields[off] ?? NONE) : place === undefined ? NONE : state[place]!
      return [[next, state]]
    }
    case CLASS.STX:
    case CLASS.ST: {
      if (dst !== 10) return [[next, state]]
      const place = stackPlace(Math.floor(off / 8) * 8)
      const whole = opcode === (CLASS.STX | MODE.MEM | SIZE.u64) && off % 8 === 0
      if (place !== undefined) state[place] = whole ? state[src]! : NONE
      return [[next, state]]
    }
    case CLASS.JMP:
    case CLASS.JMP32: {
      const op = opcode & 0xf0
      if (op === OP.EXIT) return []
      if (op === OP.CALL) {
        state.fill(NONE, 0, CALLER_SAVED)
        return [[next, state]]
      }
      if (op === OP.JA) return [[next + (kind === CLASS.JMP32 ? imm : off), state]]
      return [
        [next, state],
        [next + off, state],
      ]
    }
    default:
      if (opcode === LD_IMM64) {
        state[dst] = NONE
        return [[next + 1, state]]
      }
      // Loads of a packet by number, which are calls.
      state.fill(NONE, 0, CALLER_SAVED)
      return [[next, state]]
  }
}

const ORDERS: readonly number[] = [JUMP_OPS['>'], JUMP_OPS['>='], JUMP_OPS['<'], JUMP_OPS['<=']]

function prohibited(view: DataView, slot: number, state: State): string | undefined {
  const { opcode, dst, src, off } = decode(view, slot)
  const kind = opcode & 7
  const op = opcode & 0xf0
  const isX = (opcode & SRC_X) !== 0
  const [left, right] = [state[dst] ?? NONE, isX ? (state[src] ?? NONE) : NONE]
  if (kind === CLASS.ALU64 && isX && op !== ALU_OPS['='] && op <= ALU_OPS['s>>='])
    return left !== NONE && right !== NONE ? 'computes with two pointers' : undefined
  if (kind === CLASS.ALU && isX && op === ALU_OPS['='] && off === 0)
    return right === NONE ? undefined : 'copies half of a pointer'
  if (kind === CLASS.ALU && op === ALU_OPS['-='] && left !== NONE) return 'computes with half of a pointer'
  if (
    kind !== CLASS.JMP ||
    !isX ||
    left === NONE ||
    right === NONE ||
    op === OP.JA ||
    (op >= 0x80 && op <= 0x90)
  )
    return undefined
  const pair = [left, right].sort((a, b) => a - b).join()
  const usual = pair === `${PACKET},${END}` || pair === `${PACKET},${META}`
  return usual && ORDERS.includes(op) ? undefined : 'compares pointers'
}
