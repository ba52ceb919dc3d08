/** The bound of what the verifier walks through: counted by hand, and against a walk of all paths. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  alu64,
  assemble,
  call,
  exit,
  jump,
  jumpIf,
  label,
  ldMapFd,
  mov64,
  R0,
  R1,
  R2,
} from '../../../../src/ebpf/asm/insn.ts'
import { mostSteps } from '../../../../src/ebpf/asm/most-steps.ts'

type Line = Parameters<typeof assemble>[0][number]

const steps = (...items: Line[]): number => mostSteps(assemble(items).bytes)

test('mostSteps() counts the instructions of all paths', () => {
  assert.equal(steps(mov64(R0, 0), exit()), 2)
  assert.equal(steps(ldMapFd(R1, 3), mov64(R0, 0), exit()), 3)
  assert.equal(steps(call(5), jump('end'), mov64(R0, 1), label('end'), exit()), 3)
  // Both ways of each of two jumps that come together again.
  const diamond = (to: string): Line[] => [jumpIf('==', R0, 0, to), mov64(R1, 0), label(to)]
  assert.equal(steps(...diamond('a'), exit()), 1 + 1 + 1 + 1)
  assert.equal(steps(...diamond('a'), ...diamond('b'), exit()), 1 + 4 + 1 + 4)
  // A register that is added may be added to a pointer.
  assert.equal(steps(alu64('+=', R1, R2), mov64(R0, 0), exit()), 1 + 2 * 2)
  assert.equal(steps(alu64('+=', R1, 2), mov64(R0, 0), exit()), 3)
})

test('mostSteps() has no bound for what may go round, or on elsewhere', () => {
  const code = (...bytes: number[]): number =>
    mostSteps(Uint8Array.from([...bytes, 0x95, 0, 0, 0, 0, 0, 0, 0]))
  assert.equal(steps(label('a'), mov64(R0, 0), jumpIf('==', R0, 0, 'a'), exit()), Infinity)
  assert.equal(code(0x05, 0, 0xff, 0xff, 0, 0, 0, 0), Infinity, 'a jump to itself')
  assert.equal(code(0x06, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), Infinity, 'the same with 32 bits')
  assert.equal(code(0x05, 0, 1, 0, 0, 0, 0, 0), Infinity, 'a jump out of it')
  assert.equal(code(0x0d, 1, 0, 0, 0, 0, 0, 0), Infinity, 'a jump to where a register says')
  assert.equal(code(0x85, 0x10, 0, 0, 0, 0, 0, 0), Infinity, 'a call of its own')
  assert.equal(code(0x18, 0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), Infinity, 'a callback')
  assert.equal(code(0xe5, 0, 0xff, 0xff, 0, 0, 0, 0), Infinity, 'may_goto back')
  assert.equal(code(0x85, 0x20, 0, 0, 1, 0, 0, 0), 3, 'a function of the kernel is tried twice')
  const unreached = [jump('end'), label('a'), mov64(R0, 0), jump('a'), label('end'), exit()]
  assert.equal(steps(...unreached), Infinity)
  assert.equal(mostSteps(new Uint8Array(0)), 0)
})

/** Jumps forward, arithmetic and calls, in any order, as bytes. */
const anyCode = fc.array(
  fc.record({
    code: fc.constantFrom(0xb7, 0x07, 0x0f, 0x1f, 0x2f, 0x85, 0x05, 0x15, 0x1d, 0x16, 0x61, 0x7b, 0x95),
    off: fc.integer({ min: 0, max: 6 }),
    source: fc.constantFrom(0, 2),
  }),
  { maxLength: 14 },
)

test('mostSteps() is as many as there are where all paths are walked one by one', () => {
  fc.assert(
    fc.property(anyCode, items => {
      const bytes = new Uint8Array(8 * (items.length + 1))
      items.forEach(({ code, off, source }, i) => {
        bytes.set([code, code === 0x85 ? source << 4 : 0, off], i * 8)
      })
      bytes[items.length * 8] = 0x95
      const count = items.length + 1
      const walk = (i: number): number => {
        if (i >= count) return Infinity
        const code = bytes[i * 8]!
        const target = i + 1 + bytes[i * 8 + 2]!
        if (code === 0x95) return 1
        if (code === 0x05) return 1 + walk(target)
        if (code === 0x85) return 1 + walk(i + 1) * (bytes[i * 8 + 1] === 0x20 ? 2 : 1)
        if ([0x15, 0x1d, 0x16].includes(code)) return 1 + walk(i + 1) + walk(target)
        return 1 + walk(i + 1) * (code === 0x0f || code === 0x1f ? 2 : 1)
      }
      // Where any jump leaves the program there is no bound, reached or not.
      const leaves = items.some(
        ({ code, off }, i) => [0x05, 0x15, 0x1d, 0x16].includes(code) && i + 1 + off >= count,
      )
      assert.equal(mostSteps(bytes), leaves ? Infinity : walk(0))
    }),
  )
})
