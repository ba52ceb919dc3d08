/** openat2(2), statx(2): opening without being led astray, and knowing what was opened. */
import { readFileSync } from 'node:fs'
import { NotSupportedError } from '../errors.ts'
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_STATX_DONT_SYNC,
  STATX_INO,
  STATX_MNT_ID,
  STATX_MNT_ID_UNIQUE,
} from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'
import { procFields } from './proc-file.ts'

/** struct open_how, 24 bytes: flags @0, mode @8, resolve @16 (include/uapi/linux/openat2.h). */
export function openHow(flags: number, resolve: number): Uint8Array {
  const how = new DataView(new ArrayBuffer(24))
  how.setBigUint64(0, BigInt(flags), true)
  how.setBigUint64(16, BigInt(resolve), true)
  return new Uint8Array(how.buffer)
}

/**
 * Opens `path` below `dir` (default: working directory) with `RESOLVE_*` rules. The caller closes
 * it.
 */
export function open(path: string, flags: number, resolve = 0, dir?: Fd): Fd {
  const result = native().openat2(dir?.number ?? AT_FDCWD, path, openHow(flags, resolve))
  return new Fd(check('openat2', 'openat2', result, path))
}

/**
 * Id, as in mountinfo, of the mount that the descriptor lies in. struct statx: stx_mnt_id @144.
 * Since Linux 5.8.
 */
export function mountId(fd: Fd): number {
  const out = new Uint8Array(256)
  check('statx', 'statx', native().statx(fd.number, '', AT_EMPTY_PATH, STATX_MNT_ID, out))
  return Number(new DataView(out.buffer).getBigUint64(144, true))
}

/**
 * The same, of an O_PATH descriptor too, without asking the file system, which could have us wait.
 * Since Linux 3.15. NotSupportedError: the kernel does not say.
 */
export function heldMountId(fd: Fd): number {
  const id = procFields(readFileSync(`/proc/self/fdinfo/${fd.number}`, 'latin1')).get('mnt_id')
  if (id === undefined)
    throw new NotSupportedError('The kernel does not say in which mount a descriptor lies')
  return Number(id)
}

/**
 * Inode number of what the descriptor refers to; of a namespace, the number in its name. struct
 * statx: stx_ino @32.
 */
export function inodeOf(fd: Fd): bigint {
  return inodeOfNumber(fd.number)
}

const stat = new DataView(new ArrayBuffer(256))
const statBytes = new Uint8Array(stat.buffer)

/** The same by the descriptor's number. */
export function inodeOfNumber(fd: number): bigint {
  check('statx', 'statx', native().statx(fd, '', AT_EMPTY_PATH, STATX_INO, statBytes))
  return stat.getBigUint64(32, true)
}

/**
 * The number, never used again, of the mount that the descriptor lies in; undefined: this kernel
 * knows none. struct statx: stx_mask @0, stx_mnt_id @144. Since Linux 6.8.
 */
export function uniqueMountId(fd: Fd): bigint | undefined {
  const out = new Uint8Array(256)
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
  check('statx', 'statx', native().statx(fd.number, '', flags, STATX_MNT_ID_UNIQUE, out))
  const fields = new DataView(out.buffer)
  return (fields.getUint32(0, true) & STATX_MNT_ID_UNIQUE) === 0 ? undefined : fields.getBigUint64(144, true)
}
