/** openat2(2), statx(2): opening without being led astray, and knowing what was opened. */
import { AT_EMPTY_PATH, AT_FDCWD, AT_STATX_DONT_SYNC, STATX_INO, STATX_MNT_ID } from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

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
 * What file the descriptor is of: equal texts, equal files. Asks no server of a file system, which
 * may be a workload's and never answer. struct statx: stx_ino @32, stx_dev_major @136,
 * stx_dev_minor @140.
 */
export function fileIdentity(fd: Fd): string {
  const out = new Uint8Array(256)
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
  check('statx', 'statx', native().statx(fd.number, '', flags, STATX_INO, out))
  const view = new DataView(out.buffer)
  return `${view.getUint32(136, true)}:${view.getUint32(140, true)} ${view.getBigUint64(32, true)}`
}

/**
 * Inode number of what the descriptor refers to; of a namespace, the number in its name. struct
 * statx: stx_ino @32.
 */
export function inodeOf(fd: Fd): bigint {
  const STATX_INO = 0x100
  const out = new Uint8Array(256)
  check('statx', 'statx', native().statx(fd.number, '', AT_EMPTY_PATH, STATX_INO, out))
  return new DataView(out.buffer).getBigUint64(32, true)
}
