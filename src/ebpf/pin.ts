/** Names of maps, programs and links in a bpffs. */
import { statfsSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { SyscallError } from '../errors.ts'
import { objPin } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { BPF_FS_MAGIC } from '../uapi/constants.ts'

/**
 * BPF_OBJ_PIN, since Linux 4.4. Needs the right to write to the directory. ENOENT: there is no such
 * directory; EPERM: it lies in no bpffs, or the name has a dot; the hint says which. EEXIST: the name
 * is taken.
 */
export function pin(fd: Fd, path: string): void {
  try {
    objPin(fd, path)
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    const hint = hintOf(error.errnoName, path)
    if (hint === undefined) throw error
    const { call, op, errno, errnoName, context } = error
    throw new SyscallError({ call, op, errno, errnoName, object: path }, { context, hint })
  }
}

function hintOf(errnoName: string, path: string): string | undefined {
  const directory = dirname(path)
  if (errnoName === 'ENOENT') return missing(path, directory)
  if (errnoName !== 'EPERM') return undefined
  const type = typeOf(directory)
  if (type !== undefined && type !== BPF_FS_MAGIC) return `"${directory}" lies in no bpffs: ${WHERE}`
  if (basename(path).includes('.')) return 'Take a name without a dot: a bpffs lets nothing be called so'
  return type === undefined ? undefined : 'A security module may refuse it: see the audit log'
}

const WHERE = 'name a path in one, which is usually mounted at /sys/fs/bpf'

function missing(path: string, directory: string): string | undefined {
  if (typeOf(directory) !== undefined)
    return path.endsWith('/') ? 'Leave away the slash at the end: a pin is no directory' : undefined
  for (let above = directory; above !== dirname(above); ) {
    above = dirname(above)
    const type = typeOf(above)
    if (type === undefined) continue
    return type === BPF_FS_MAGIC
      ? `Make the directory "${directory}" first`
      : `There is no directory "${directory}", and "${above}" lies in no bpffs: ${WHERE}`
  }
  return undefined
}

/** Of the file system that it lies in; undefined: it is not there, or not to be seen. */
function typeOf(directory: string): number | undefined {
  try {
    return statfsSync(directory).type >>> 0
  } catch {
    return undefined
  }
}
