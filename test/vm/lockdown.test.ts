/**
 * explain under lockdown: a program that is refused for a helper that lockdown keeps from all. The
 * kernel stays locked until it is booted again, so this has a virtual machine of its own.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 7 --tests test/vm/lockdown.test.ts
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { alu64, call, exit, mov64, R0, R1, R2, R3, R10 } from '../../src/ebpf/asm/insn.ts'
import { Program } from '../../src/ebpf/prog.ts'
import type { Need } from '../../src/ebpf/rights.ts'
import { VerifierError } from '../../src/errors.ts'
import { explainCall } from '../../src/lending/explain.ts'
import { runningKernel } from '../../src/lending/kernel-model.ts'
import { situationOfPid } from '../../src/lending/situation.ts'

const FILE = '/sys/kernel/security/lockdown'
const skip = existsSync(FILE) ? false : 'this kernel has no lockdown'
const KPROBE: Need = { cmd: 'prog_load', progType: 'kprobe', attachType: 0 }

/** Reads the kernel's memory. The log of the verifier; undefined: it was loaded. */
async function refusal(): Promise<string | undefined> {
  const insns = [
    mov64(R1, R10),
    alu64('+=', R1, -8),
    mov64(R2, 8),
    mov64(R3, 0),
    call('probe_read_kernel'),
    mov64(R0, 0),
    exit(),
  ]
  try {
    using _ = await Program.load({ type: 'kprobe', insns, license: 'GPL', token: null })
    return undefined
  } catch (error) {
    if (error instanceof VerifierError) return error.log.join('\n')
    throw error
  }
}

const explained = async (log: string) =>
  explainCall(runningKernel(), await situationOfPid(process.pid), KPROBE, {
    ...{ errno: 'EINVAL', reached: true, withToken: false, log },
  })

test('what lockdown refuses is told from what the verifier does', { skip }, async () => {
  assert.match(readFileSync(FILE, 'utf8'), /\[none\]/)
  assert.equal(await refusal(), undefined)
  const { cause } = await explained(
    '0: (85) call bpf_probe_read_kernel#113\ncannot use helper bpf_probe_read_kernel#113',
  )
  assert.equal(cause, 'verifier')
  writeFileSync(FILE, 'confidentiality')
  const log = await refusal()
  assert.ok(log !== undefined)
  const locked = await explained(log)
  assert.equal(locked.cause, 'lockdown', log)
  assert.match(locked.found, /^lockdown confidentiality: .*bpf_probe_read/)
  assert.equal(locked.needed, 'lockdown none or integrity')
  // What reads no memory is loaded as before.
  using _ = await Program.load({ type: 'kprobe', insns: [mov64(R0, 0), exit()], license: 'GPL', token: null })
})
