/** What is loaded without a thread, and that the bound by which it is chosen is one on this kernel. */
import assert from 'node:assert/strict'
import { setImmediate as nextTurn } from 'node:timers/promises'
import fc from 'fast-check'
import { mostSteps } from '../../../src/ebpf/asm/most-steps.ts'
import { alu64, assemble, call, exit, jumpIf, label, mov64, R0, R5, R6, R7 } from '../../../src/ebpf/index.ts'
import { VerifierError } from '../../../src/errors.ts'
import { type Native, native, use } from '../../../src/sys/native.ts'
import { bpf_cmd } from '../../../src/uapi/bpf.ts'
import { kernelTest, loadProgram } from './fixture.ts'

/** Which of the two ways programs are loaded by while `body` runs. */
async function waysOf(body: () => Promise<void>): Promise<{ here: number; onThread: number }> {
  const real = native()
  const ways = { here: 0, onThread: 0 }
  use(
    new Proxy(real, {
      get: (target, key: keyof Native) =>
        key === 'bpf' || key === 'later'
          ? (...args: unknown[]) => {
              if (key === 'bpf' && args[0] === bpf_cmd.BPF_PROG_LOAD) ways.here++
              if (key === 'later' && args[1] === bpf_cmd.BPF_PROG_LOAD) ways.onThread++
              return (target[key] as (...all: unknown[]) => unknown)(...args)
            }
          : target[key],
    }),
  )
  try {
    await nextTurn()
    await body()
  } finally {
    use(undefined)
  }
  return ways
}

kernelTest(
  'load() hands what may take long to a thread, and a short program to the kernel at once',
  async () => {
    const short = await waysOf(async () => {
      using program = await loadProgram({ type: 'xdp', insns: [mov64(R0, 2), exit()] })
      assert.equal((await program.testRun({ dataIn: new Uint8Array(64) })).returned, 2)
    })
    assert.deepEqual(short, { here: 1, onThread: 0 })
    const loop = await waysOf(async () => {
      const insns = [mov64(R0, 0), label('again'), alu64('+=', R0, 1), jumpIf('<', R0, 1000, 'again'), exit()]
      using program = await loadProgram({ type: 'xdp', insns })
      assert.ok(program.info().verifiedInsns >= 2000)
    })
    assert.deepEqual(loop, { here: 0, onThread: 1 })
    const refused = await waysOf(async () => {
      await assert.rejects(loadProgram({ type: 'xdp', insns: [mov64(R0, R5), exit()] }), VerifierError)
    })
    assert.deepEqual(refused, { here: 2, onThread: 0 }, 'again with a log')
  },
)

kernelTest('the verifier walks through no more instructions than we say', async () => {
  const random = fc.sample(
    fc.array(
      fc.record({
        kind: fc.constantFrom('add', 'branch', 'compare', 'call', 'move'),
        over: fc.integer({ min: 1, max: 4 }),
        value: fc.integer({ min: -3, max: 3 }),
      }),
      { minLength: 4, maxLength: 24 },
    ),
    { numRuns: 300, seed: 1 },
  )
  let loaded = 0
  for (const items of random) {
    const target = (i: number, over: number): string => `at${Math.min(i + 1 + over, items.length)}`
    const insns = assemble([
      ...[call('ktime_get_ns'), mov64(R6, R0), mov64(R7, 0)],
      ...items.flatMap(({ kind, over, value }, i) => [
        label(`at${i}`),
        kind === 'add'
          ? alu64('+=', R7, R6)
          : kind === 'branch'
            ? jumpIf('==', R6, value, target(i, over))
            : kind === 'compare'
              ? jumpIf('s>', R7, R6, target(i, over))
              : kind === 'call'
                ? call('ktime_get_ns')
                : mov64(R6, value),
      ]),
      ...[label(`at${items.length}`), mov64(R0, 0), exit()],
    ]).bytes
    const most = mostSteps(insns)
    assert.ok(most < Infinity)
    using program = await loadProgram({ type: 'xdp', insns })
    loaded++
    assert.ok(program.info().verifiedInsns <= most, `${program.info().verifiedInsns} of ${most}`)
  }
  assert.equal(loaded, 300)
})
