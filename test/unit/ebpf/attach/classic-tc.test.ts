/** Refused before the kernel is asked. What is taken: test/kernel/ebpf/links.test.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { attachTc } from '../../../../src/ebpf/attach/classic-tc.ts'
import type { Program } from '../../../../src/ebpf/prog.ts'

/** Whoever gets as far as to ask for the program's descriptor took everything else. */
class Asked extends Error {}
const program = {
  get fd(): never {
    throw new Asked()
  },
} as unknown as Program
/** No device has it: nothing is made. */
const IFINDEX = 0x7fff_ffff

test('numbers that no filter has are refused, those that one may have go to the kernel', () => {
  const target = { ifindex: IFINDEX, direction: 'ingress' } as const
  for (const wrong of [
    // 1.5 was priority 1 for another protocol.
    ...[1.5, Number.NaN, -1, 65536].map(priority => ({ priority })),
    ...[0.5, -1, 2 ** 32].map(handle => ({ handle })),
    ...[0, -1, 2 ** 31, Number.NaN].map(ifindex => ({ ifindex })),
    ...['x'.repeat(256), 'a\0b'].map(name => ({ name })),
  ])
    assert.throws(() => attachTc(program, { ...target, ...wrong }), RangeError, JSON.stringify(wrong))
  for (const right of [{}, { priority: 65535 }, { handle: 2 ** 32 - 1 }, { name: 'x'.repeat(255) }])
    assert.throws(
      () => attachTc(program, { ...target, ...right }),
      // ENODEV; of an ordinary user EPERM.
      { code: 'BPFTOKEN_SYSCALL' },
      JSON.stringify(right),
    )
})
