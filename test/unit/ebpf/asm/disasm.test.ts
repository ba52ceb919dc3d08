import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { disassemble } from '../../../../src/ebpf/asm/disasm.ts'
import * as asm from '../../../../src/ebpf/asm/insn.ts'

const { R0, R1, R2, R6, R7, R10 } = asm

/** As Linux 6.18 printed the same instructions in its verifier log. */
const GOLDEN: [insn: asm.Insn, text: string][] = [
  [asm.mov64(R6, R1), '(bf) r6 = r1'],
  [asm.mov32(R0, 5), '(b4) w0 = 5'],
  [asm.alu64('+=', R7, -16), '(07) r7 += -16'],
  [asm.store('u64', R7, 0, 7), '(7a) *(u64 *)(r7 +0) = 7'],
  [asm.store('u64', R7, 8, R0), '(7b) *(u64 *)(r7 +8) = r0'],
  [asm.store('u64', R10, -520, 0), '(7a) *(u64 *)(r10 -520) = 0'],
  [asm.atomic('add', 'u64', R7, 0, R0), '(db) lock *(u64 *)(r7 +0) += r0'],
  [asm.atomic('or', 'u64', R7, 0, R0, { fetch: true }), '(db) r0 = atomic64_fetch_or((u64 *)(r7 +0), r0)'],
  [asm.xchg('u32', R7, 0, R0), '(c3) r0 = atomic_xchg((u32 *)(r7 +0), r0)'],
  [asm.cmpxchg('u64', R7, 0, R0), '(db) r0 = atomic64_cmpxchg((u64 *)(r7 +0), r0, r0)'],
  [asm.movsx64(R1, R0, 8), '(bf) r1 = (s8)r0'],
  [asm.movsx32(R2, R0, 16), '(bc) w2 = (s16)w0'],
  [asm.toBe(R1, 16), '(dc) r1 = be16 r1'],
  [asm.toLe(R1, 64), '(d4) r1 = le64 r1'],
  [asm.bswap(R1, 32), '(d7) r1 = bswap32 r1'],
  [asm.neg64(R1), '(87) r1 = -r1'],
  [asm.neg32(R2), '(84) w2 = -w2'],
  [asm.alu64('s/=', R1, 3), '(37) r1 s/= 3'],
  [asm.alu32('s%=', R1, 3), '(94) w1 s%= 3'],
  [asm.alu64('s>>=', R1, 2), '(c7) r1 s>>= 2'],
  [asm.jumpIf('s<', R1, -1, 2), '(c5) if r1 s< 0xffffffff goto pc+2'],
  [asm.jumpIf32('&', R1, R0, 1), '(4e) if w1 & w0 goto pc+1'],
  [asm.jump(-1), '(05) goto pc-1'],
  [asm.jumpLong(0), '(06) gotol pc+0'],
  [asm.load('s8', R1, R7, 0), '(91) r1 = *(s8 *)(r7 +0)'],
  [asm.load('u16', R1, R7, 2), '(69) r1 = *(u16 *)(r7 +2)'],
  [asm.ldImm64(R1, 0x1122334455667788n), '(18) r1 = 0x1122334455667788'],
  [asm.callLocal(6), '(85) call pc+6'],
  [asm.loadAcquire('u64', R1, R7, 0), '(db) r1 = load_acquire((u64 *)(r7 +0))'],
  [asm.storeRelease('u32', R7, 0, R1), '(c3) store_release((u32 *)(r7 +0), r1)'],
  [asm.mayGoto(0), '(e5) may_goto pc+0'],
  [asm.call('ktime_get_ns'), '(85) call bpf_ktime_get_ns#5'],
  [asm.call('probe_read_kernel'), '(85) call bpf_probe_read_kernel#113'],
  [asm.ldAbs('u16', 12), '(28) r0 = *(u16 *)skb[12]'],
  [asm.ldInd('u8', R7, 3), '(50) r0 = *(u8 *)skb[r7 + 3]'],
  [asm.exit(), '(95) exit'],
]

/**
 * Where the kernel prints addresses or resolved names, or that it does not print unless it made it.
 */
const OURS: [insn: asm.Insn, text: string][] = [
  [asm.ldMapFd(R1, 5), '(18) r1 = map[fd:5]'],
  [asm.ldMapValue(R1, 5, 8), '(18) r1 = map[fd:5][0]+8'],
  [asm.ldMapIdx(R1, 2), '(18) r1 = map[idx:2]'],
  [asm.ldMapIdxValue(R1, 2, 8), '(18) r1 = map[idx:2][0]+8'],
  [asm.ldBtfId(R1, 99), '(18) r1 = btf[id:99]'],
  [asm.ldFunc(R1, 3), '(18) r1 = subprog[+3]'],
  [asm.call('ringbuf_output'), '(85) call bpf_ringbuf_output#130'],
  [asm.callKfunc(77), '(85) call kernel-function#77'],
  [asm.call(9999), '(85) call unknown#9999'],
  [asm.addrSpaceCast(R1, R2, 0, 1), '(bf) r1 = addr_space_cast(r2, 0, 1)'],
  [asm.jumpIndirect(R1), '(0d) gotox r1'],
]

test('disassemble() prints what the verifier prints', () => {
  for (const [insn, text] of [...GOLDEN, ...OURS]) {
    assert.deepEqual(disassemble(asm.encode([insn])), [`   0: ${text}`])
  }
})

test('disassemble() numbers lines by slot when a constant takes two', () => {
  const bytes = asm.encode([asm.ldImm64(R1, 1), asm.exit()])
  assert.deepEqual(disassemble(bytes), ['   0: (18) r1 = 0x1', '   2: (95) exit'])
})

test('disassemble() says what is missing when the program is cut off', () => {
  const bytes = asm.encode([asm.exit(), asm.ldImm64(R1, 1)])
  assert.deepEqual(disassemble(bytes.slice(0, 16)), [
    '   0: (95) exit',
    '   1: (18) r1 = 64-bit constant without its second slot',
  ])
  assert.deepEqual(disassemble(bytes.slice(0, 11)), [
    '   0: (95) exit',
    '   1: 3 bytes that are no whole instruction',
  ])
})

test('disassemble() prints a line and never throws when given any bytes', () => {
  for (let code = 0; code < 256; code++) {
    for (const regs of [0, 0x10, 0x2f, 0xff]) {
      const lines = disassemble(new Uint8Array([code, regs, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff]))
      assert.equal(lines.length, 1)
      assert.doesNotMatch(lines[0]!, /undefined|NaN/)
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 128 }), bytes => {
      assert.doesNotMatch(disassemble(bytes).join('\n'), /undefined|NaN/)
    }),
  )
})
