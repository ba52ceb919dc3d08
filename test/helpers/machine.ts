/**
 * What this machine can do, and why a test is skipped on it. Abilities are probed. A version only
 * says what a test must find.
 */
import { existsSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { CACHE, ROOT } from '../../scripts/tree.ts'
import { SyscallError } from '../../src/errors.ts'
import { tokenCreate } from '../../src/sys/bpf.ts'
import { fsconfigCreate, fsmount, fsopen } from '../../src/sys/mount.ts'
import { open } from '../../src/sys/open.ts'
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../../src/uapi/constants.ts'

export { CACHE, ROOT }

export const isRoot = process.geteuid?.() === 0

/**
 * Whether we run in a VM of scripts/vm/vm.ts. Its processors are emulated and slow, and it has no
 * compiler.
 */
export const inVm = process.env['BPFTOKEN_TEST_VM'] !== undefined

/**
 * Whether the running kernel is this version or newer. For features that are younger than tokens;
 * the test says which.
 */
export function kernelSince(major: number, minor: number): boolean {
  const [ours, next] = release().split('.').map(Number) as [number, number]
  return ours > major || (ours === major && next >= minor)
}

let tokens: boolean | undefined

/**
 * Whether the running kernel has BPF tokens. A token cannot be made in the initial user namespace,
 * but only a kernel that has them says so with EOPNOTSUPP; others say EINVAL. (That bpffs takes the
 * mount options proves nothing: old kernels ignore unknown ones.) Needs root.
 */
export function hasTokens(): boolean {
  tokens ??= probeTokens()
  return tokens
}

function probeTokens(): boolean {
  using context = fsopen('bpf')
  fsconfigCreate(context)
  using mount = fsmount(context, 0)
  using root = open('.', O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, mount)
  try {
    tokenCreate(root).close()
    return true
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return error.errnoName === 'EOPNOTSUPP'
  }
}

/** `{ skip: reason }` where tests that delegate cannot run, for the options of `test()`. */
export function needsTokens(): { skip?: string } {
  if (!isRoot) return { skip: 'needs root' }
  if (!hasTokens()) return { skip: 'this kernel has no BPF tokens (Linux 6.9 and newer have)' }
  return {}
}

/** The same, and also a file that scripts/fetch-debs.sh brings into .cache. */
export function needsProgram(path: string): { skip?: string } {
  const machine = needsTokens()
  if (machine.skip !== undefined || existsSync(join(CACHE, path))) return machine
  const reason = existsSync(join(CACHE, 'why-not'))
    ? readFileSync(join(CACHE, 'why-not'), 'utf8').trim()
    : 'run scripts/fetch-debs.sh'
  return { skip: `.cache/${path} is missing: ${reason}` }
}
