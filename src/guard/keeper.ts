/**
 * The mark of processes that may change the guard. Without it a process can neither open the
 * guard's maps nor remove its pins.
 */
import { SyscallError } from '../errors.ts'
import { fsconfigFlag, fsopen } from '../sys/mount.ts'
import { GUARD_KEEPER_KEY } from './layout.ts'

/**
 * Marks this process until it exits, by a mount option that only the guard knows: fsopen(2),
 * fsconfig(2). Where there is no guard, nothing happens. EPERM: the guard takes only processes in
 * the initial user and pid namespaces with CAP_SYS_ADMIN.
 */
export function becomeKeeper(): void {
  using context = fsopen('bpf')
  try {
    fsconfigFlag(context, GUARD_KEEPER_KEY)
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errnoName !== 'EPERM') throw error
    const { call, op, errno, errnoName } = error
    throw new SyscallError(
      { call, op, errno, errnoName, object: 'the guard' },
      { cause: error, hint: "Run this as the host's root, outside of any container" },
    )
  }
}
