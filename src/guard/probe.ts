/** Whether a guard enforces. Pins do not say it: where none does, anybody could have put them there. */
import { SyscallError } from '../errors.ts'
import { fsconfigString, fsopen } from '../sys/mount.ts'
import { GUARD_PROBE_ERRNO, GUARD_PROBE_KEY } from './layout.ts'

/**
 * Whether a guard enforces, proven by doing: bpffs takes any option that it does not know, and only
 * the guard refuses this one.
 */
export function probeGuard(): boolean {
  using context = fsopen('bpf')
  try {
    fsconfigString(context, GUARD_PROBE_KEY, '1')
    return false
  } catch (error) {
    if (error instanceof SyscallError && error.errno === GUARD_PROBE_ERRNO) return true
    throw error
  }
}
