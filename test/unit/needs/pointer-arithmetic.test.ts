/** pointerArithmetic(): what only holders of CAP_PERFMON may do is found, and its lawful twin is not. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as asm from '../../../src/ebpf/asm/insn.ts'
import { pointerArithmetic } from '../../../src/needs/pointer-arithmetic.ts'

const { R0, R1, R2, R3, R4, R6, R10 } = asm
const END = [asm.mov64(R0, 0), asm.exit()]
const found = (insns: readonly (asm.Insn | asm.Label)[], type = 'xdp'): string | undefined =>
  pointerArithmetic(asm.assemble(insns).bytes, type)
/** r2 = data; r3 = data_end. */
const PACKET = [asm.load('u32', R2, R1, 0), asm.load('u32', R3, R1, 4)]

test('the length of a packet is found, and what bounds checks do is not', () => {
  assert.equal(found([...PACKET, asm.alu64('-=', R3, R2), ...END]), 'computes with two pointers')
  const check = [asm.mov64(R4, R2), asm.alu64('+=', R4, 14), asm.jumpIf('>', R4, R3, 'out')]
  assert.equal(found([...PACKET, ...check, asm.label('out'), ...END]), undefined)
  assert.equal(found([...PACKET, asm.alu32('-=', R3, R2), ...END]), 'computes with half of a pointer')
  assert.equal(found([...PACKET, asm.mov32(R4, R2), ...END]), 'copies half of a pointer')
})

test('pointers are compared by order with their bound only', () => {
  const compare = (op: '==' | '>', left: asm.Reg, right: asm.Reg) =>
    found([...PACKET, asm.mov64(R4, R2), asm.jumpIf(op, left, right, 'out'), asm.label('out'), ...END])
  assert.equal(compare('>', R2, R3), undefined)
  assert.equal(compare('>', R3, R2), undefined)
  assert.equal(compare('==', R2, R3), 'compares pointers')
  assert.equal(compare('>', R4, R2), 'compares pointers')
})

test('pointers are followed through the stack and calls, and not where ways part', () => {
  const spilled = [asm.store('u64', R10, -8, R2), asm.load('u64', R4, R10, -8), asm.alu64('-=', R3, R4)]
  assert.equal(found([...PACKET, ...spilled, ...END]), 'computes with two pointers')
  const overwritten = [asm.store('u64', R10, -8, R2), asm.store('u32', R10, -8, 0)]
  assert.equal(found([...PACKET, ...overwritten, ...spilled.slice(1), ...END]), undefined)
  const kept = [asm.mov64(R6, R2), asm.call('ktime_get_ns')]
  assert.equal(found([...PACKET, ...kept, asm.alu64('-=', R6, R3), ...END]), undefined)
  // On one of two ways it is a number, and only the kernel knows which is gone.
  const parted = [asm.jumpIf('==', R3, 0, 'other'), asm.mov64(R2, 5), asm.label('other')]
  assert.equal(found([...PACKET, ...parted, asm.alu64('-=', R3, R2), ...END]), undefined)
})

test('only programs whose context is known are looked at, and any code is taken', () => {
  const subtracts = [...PACKET, asm.alu64('-=', R3, R2), ...END]
  assert.equal(found(subtracts, 'kprobe'), undefined)
  assert.equal(found(subtracts, 'sched_cls'), undefined)
  const skb = [asm.load('u32', R2, R1, 76), asm.load('u32', R3, R1, 80), asm.alu64('-=', R3, R2), ...END]
  assert.equal(found(skb, 'sched_cls'), 'computes with two pointers')
  for (const bytes of [new Uint8Array(), new Uint8Array(8).fill(0xff), new Uint8Array(24).fill(0x05)])
    pointerArithmetic(bytes, 'xdp')
})
