/** Whether the running kernel has BPF tokens at all. */
import { NotSupportedError, SyscallError } from '../errors.ts'
import { tokenCreate } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { fsconfigCreate, fsmount, fsopen } from '../sys/mount.ts'
import { open } from '../sys/open.ts'
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../uapi/constants.ts'

/**
 * The root directory of a new bpffs in our own user namespace, mounted nowhere. The caller closes
 * it.
 */
export function scratchBpffs(): Fd {
  using context = fsopen('bpf')
  fsconfigCreate(context)
  using mount = fsmount(context, 0)
  return open('.', O_DIRECTORY | O_RDONLY | O_CLOEXEC, 0, mount)
}

/**
 * Needs CAP_SYS_ADMIN in the initial user namespace. There a kernel with tokens (Linux 6.9 and
 * newer) answers EOPNOTSUPP, and one without EINVAL. That bpffs takes the mount options proves
 * nothing: it ignores unknown ones.
 */
export function kernelHasTokens(): boolean {
  using root = scratchBpffs()
  try {
    tokenCreate(root).close()
    return true
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    if (error.errnoName === 'EOPNOTSUPP') return true
    if (error.errnoName === 'EINVAL') return false
    throw error
  }
}

/**
 * The reason of a failed delegation. A kernel without tokens refuses the superblock with EPERM, and
 * then that is the reason.
 */
export function explainFailure(error: unknown): unknown {
  if (!(error instanceof SyscallError) || error.errnoName !== 'EPERM') return error
  try {
    if (kernelHasTokens()) return error
  } catch {
    return error // The failure that we came with says more than that of the probe.
  }
  return new NotSupportedError('This kernel has no BPF tokens', {
    cause: error,
    hint: 'Run Linux 6.9 or newer',
    reason: 'tokens-unknown',
  })
}
