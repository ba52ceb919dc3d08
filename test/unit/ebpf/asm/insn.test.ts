import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import * as asm from '../../../../src/ebpf/asm/insn.ts'
import { FormatError } from '../../../../src/errors.ts'

const { assemble, decode, encode, R0, R1, R2, R10 } = asm
const { ALU_OPS, CLASS, JUMP_OPS, LD_IMM64, MODE, OP, SIZE, SRC_X } = asm

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const one = (insn: asm.Insn) => hex(encode([insn]))
const message = (text: RegExp) => (error: unknown) => error instanceof FormatError && text.test(error.message)

/** Every opcode of the instruction set. */
const OPCODES = [
  ...[CLASS.ALU, CLASS.ALU64].flatMap(cls => [
    ...Object.values(ALU_OPS).flatMap(op => [cls | op, cls | op | SRC_X]),
    cls | OP.NEG,
    cls | OP.END,
  ]),
  CLASS.ALU | OP.END | SRC_X,
  ...[CLASS.JMP, CLASS.JMP32].flatMap(cls => [
    ...Object.values(JUMP_OPS).flatMap(op => [cls | op, cls | op | SRC_X]),
    cls | OP.JA,
  ]),
  ...[OP.CALL, OP.EXIT, OP.JCOND, OP.JA | SRC_X].map(op => CLASS.JMP | op),
  ...Object.values(SIZE).flatMap(size => [
    CLASS.LDX | MODE.MEM | size,
    CLASS.LDX | MODE.MEMSX | size,
    CLASS.STX | MODE.MEM | size,
    CLASS.STX | MODE.ATOMIC | size,
    CLASS.ST | MODE.MEM | size,
    CLASS.LD | MODE.ABS | size,
    CLASS.LD | MODE.IND | size,
  ]),
  LD_IMM64,
]
const s32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const anyInsn = fc
  .record({
    code: fc.constantFrom(...OPCODES),
    dst: fc.integer({ min: 0, max: 10 }),
    src: fc.integer({ min: 0, max: 10 }),
    off: fc.integer({ min: -(2 ** 15), max: 2 ** 15 - 1 }),
    imm: s32,
    immHigh: s32,
  })
  .map(({ immHigh, ...insn }): asm.Insn => (insn.code === LD_IMM64 ? { ...insn, immHigh } : insn))

test('decode() gives back the instructions when they were encoded, for every opcode', () => {
  assert.equal(new Set(OPCODES).size, OPCODES.length)
  for (const code of OPCODES) {
    const insn = { code, dst: 1, src: 2, off: -3, imm: -4, ...(code === LD_IMM64 ? { immHigh: 5 } : {}) }
    assert.deepEqual(decode(encode([insn])), [insn])
  }
  fc.assert(fc.property(fc.array(anyInsn), insns => assert.deepEqual(decode(encode(insns)), insns)))
})

test('decode() returns instructions that encode to the same bytes, or throws FormatError, when given any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      let insns: asm.Insn[]
      try {
        insns = decode(bytes)
      } catch (error) {
        assert.ok(error instanceof FormatError)
        return
      }
      assert.equal(hex(encode(insns)), hex(bytes))
    }),
  )
})

test('decode() throws FormatError when a slot or half a constant is missing', () => {
  assert.throws(() => decode(new Uint8Array(7)), message(/7 bytes are not whole slots/))
  assert.throws(() => decode(encode([asm.ldImm64(R1, 1)]).slice(0, 8)), message(/second slot .* is missing/))
})

test('builders make the bytes that the instruction set asks for', () => {
  assert.equal(one(asm.mov64(R0, 2)), 'b700000002000000')
  assert.equal(one(asm.mov32(R0, R1)), 'bc10000000000000')
  assert.equal(one(asm.alu64('+=', R2, -8)), '07020000f8ffffff')
  assert.equal(one(asm.alu64('s/=', R1, R2)), '3f21010000000000')
  assert.equal(one(asm.movsx64(R1, R2, 8)), 'bf21080000000000')
  assert.equal(one(asm.toBe(R1, 16)), 'dc01000010000000')
  assert.equal(one(asm.bswap(R1, 32)), 'd701000020000000')
  assert.equal(one(asm.load('u32', R2, R1, 4)), '6112040000000000')
  assert.equal(one(asm.load('s16', R2, R1, 4)), '8912040000000000')
  assert.equal(one(asm.store('u64', R10, -8, R1)), '7b1af8ff00000000')
  assert.equal(one(asm.store('u32', R10, -4, 7)), '620afcff07000000')
  assert.equal(one(asm.atomic('add', 'u64', R1, 0, R2)), 'db21000000000000')
  assert.equal(one(asm.atomic('xor', 'u32', R1, 0, R2, { fetch: true })), 'c3210000a1000000')
  assert.equal(one(asm.cmpxchg('u64', R1, 0, R2)), 'db210000f1000000')
  assert.equal(one(asm.ldMapFd(R1, 5)), '18110000050000000000000000000000')
  assert.equal(one(asm.ldMapValue(R1, 5, 12)), '1821000005000000000000000c000000')
  assert.equal(one(asm.ldImm64(R1, -2n)), '18010000feffffff00000000ffffffff')
  assert.equal(one(asm.ldImm64(R1, 0xffff_ffff_0000_0001n)), '180100000100000000000000ffffffff')
  assert.equal(one(asm.call('map_lookup_elem')), '8500000001000000')
  assert.equal(one(asm.callKfunc(77, 2)), '852002004d000000')
  assert.equal(one(asm.addrSpaceCast(R1, R2, 0, 1)), 'bf21010001000000')
  assert.equal(one(asm.exit()), '9500000000000000')
})

test('assemble() resolves labels in both directions, counting a 64-bit constant as two slots', () => {
  const { insns, bytes } = assemble([
    asm.label('top'),
    asm.jumpIf('==', R1, 0, 'end'),
    asm.ldImm64(R2, 1n),
    asm.callLocal('f'),
    asm.jump('top'),
    asm.label('end'),
    asm.exit(),
    asm.label('f'),
    asm.ldFunc(R1, 'f'),
    asm.jumpLong('top'),
    asm.exit(),
  ])
  assert.deepEqual(
    insns.map(i => [i.off, i.imm]),
    [
      [4, 0],
      [0, 1],
      [0, 2],
      [-5, 0],
      [0, 0],
      [0, -1],
      [0, -9],
      [0, 0],
    ],
  )
  assert.ok(insns.every(i => !('target' in i)))
  assert.deepEqual(decode(bytes), insns)
})

test('assemble() throws FormatError when a label is missing, twice, or too far', () => {
  assert.throws(() => assemble([asm.jump('x')]), message(/slot 0: label "x" does not exist/))
  assert.throws(() => assemble([asm.label('x'), asm.label('x')]), message(/"x" is there twice/))
  const far = Array.from({ length: 32_768 }, () => asm.mov64(R0, 0))
  assert.throws(
    () => assemble([asm.jump('x'), ...far, asm.label('x'), asm.exit()]),
    message(/32768 slots away/),
  )
  assert.equal(assemble([asm.jump('x'), ...far.slice(1), asm.label('x')]).insns[0]!.off, 32_767)
  assert.equal(assemble([asm.jumpLong('x'), ...far, asm.label('x')]).insns[0]!.imm, 32_768)
})

test('encode() throws FormatError when a value does not fit', () => {
  assert.throws(() => encode([asm.mov64(R0, 2 ** 31)]), message(/2147483648 does not fit 32 bits/))
  assert.throws(() => encode([asm.mov64(R0, 0.5)]), message(/0.5 does not fit/))
  assert.throws(() => encode([asm.exit(), asm.load('u8', R0, R1, 32_768)]), message(/slot 1: offset 32768/))
  assert.throws(() => encode([asm.mov64({ reg: 16 }, 0)]), message(/register 16/))
  assert.throws(() => encode([asm.jump('x')]), message(/not resolved/))
  assert.throws(() => asm.ldImm64(R0, 1n << 64n), message(/does not fit 64 bits/))
  assert.throws(() => asm.call('no_such' as 'trace_printk'), message(/helper "no_such"/))
})
