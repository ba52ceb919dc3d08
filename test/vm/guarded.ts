/**
 * What the guard's tests share: the kernels that they run on, and how to wait for what a kernel
 * does in its own time.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { SyscallError } from '../../src/errors.ts'
import { bootTimeNs, type DelegationId, type Guard } from '../../src/guard/guard.ts'

export { eventually } from '../helpers/eventually.ts'

const hasLsm = readFileSync('/sys/kernel/security/lsm', 'utf8').split(',').includes('bpf')
const hasTokens = readFileSync('/proc/kallsyms', 'utf8').includes(' bpf_token_create')

/** False: the guard runs here. */
export const skip = hasLsm && hasTokens ? false : 'this kernel has no BPF LSM, or no tokens'

export function hasExpired(guard: Guard, id: DelegationId): boolean {
  const { expiresNs } = guard.delegation(id)
  return expiresNs !== undefined && bootTimeNs() >= expiresNs
}

/** Whether what was called before this was called before that time. Our clock lags behind by a tick. */
export const wasBefore = (timeNs: bigint): boolean => bootTimeNs() + 20_000_000n < timeNs

/** Waits until it has, by the guard's clock. */
export async function untilExpired(guard: Guard, id: DelegationId): Promise<void> {
  while (!hasExpired(guard, id)) await sleep(20)
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
