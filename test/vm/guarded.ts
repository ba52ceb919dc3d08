/** What the guard's tests share: the kernels that they run on, and how to wait for what a kernel does in its own time. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { SyscallError } from '../../src/errors.ts'

const hasLsm = readFileSync('/sys/kernel/security/lsm', 'utf8').split(',').includes('bpf')
const hasTokens = readFileSync('/proc/kallsyms', 'utf8').includes(' bpf_token_create')

/** False: the guard runs here. */
export const skip = hasLsm && hasTokens ? false : 'this kernel has no BPF LSM, or no tokens'

/** Freed by the kernel's workers, some time after the last descriptor is closed. */
export async function eventually(what: () => boolean, message: string): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (what()) return
    await sleep(25)
  }
  assert.fail(message)
}

/** `ok`, or the errno's name. */
export function errnoOf(action: () => unknown): string {
  try {
    action()
    return 'ok'
  } catch (error) {
    if (error instanceof SyscallError) return error.errnoName
    throw error
  }
}
