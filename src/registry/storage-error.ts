/** What Node says of a file that could not be read or written, as an error with a code. */
import { BpftokenError, type ErrorDetails, SyscallError } from '../errors.ts'
import { codeOf } from './files.ts'

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'Free space on its file system',
  EDQUOT: "Raise the quota of the file's owner, or free space",
  EROFS: 'Mount its file system writable',
  EIO: 'See what the kernel says of the disk',
}

/** The error itself where it is none of a system call. */
export function storageError(error: unknown, path: string): unknown {
  if (error instanceof BpftokenError) return error
  const { code, errno, syscall } = error as NodeJS.ErrnoException
  if (typeof code !== 'string' || typeof errno !== 'number') return error
  const details: ErrorDetails = { cause: error, context: { path }, hint: HINTS[code] }
  return new SyscallError(
    { call: syscall ?? 'write', errno: Math.abs(errno), errnoName: code, object: path },
    details,
  )
}

const REFUSALS: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'EROFS'])

/** Whether the disk takes nothing now, as `storageError` or Node says: what is there can be read. */
export function refusesWrites(error: unknown): boolean {
  return REFUSALS.has(error instanceof SyscallError ? error.errnoName : codeOf(error))
}
