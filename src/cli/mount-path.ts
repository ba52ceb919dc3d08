/** The option --path: where a bpffs is mounted in a target. */
import { UsageError } from '../errors.ts'
import { word } from './output.ts'

/** include/uapi/linux/limits.h, with the zero byte at the end. */
const PATH_MAX = 4096

/** UsageError: no path that the kernel takes. */
export function requirePath(path: string): void {
  const bytes = Buffer.byteLength(path)
  if (bytes >= PATH_MAX)
    throw new UsageError(`--path has ${bytes} bytes, and the kernel takes ${PATH_MAX - 1}`)
  if (!path.startsWith('/')) throw new UsageError(`--path ${word(path)} is not absolute`)
}
