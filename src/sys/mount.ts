/**
 * The mount API in our own namespaces, one function per system call: fsopen(2), fsconfig(2),
 * fsmount(2).
 */
import {
  FSCONFIG_CMD_CREATE,
  FSCONFIG_SET_FLAG,
  FSCONFIG_SET_STRING,
  FSMOUNT_CLOEXEC,
  FSOPEN_CLOEXEC,
} from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

/**
 * A new context for file system `type`; its user namespace is the caller's. Since Linux 5.2.
 * EPERM: no CAP_SYS_ADMIN over the mount namespace. The caller closes it.
 */
export function fsopen(type: string): Fd {
  return new Fd(check('fsopen', 'fsopen', native().fsopen(type, FSOPEN_CLOEXEC), type))
}

/**
 * Sets one option. Key and value are at most 255 characters. For bpffs `delegate_*`: EPERM without
 * CAP_SYS_ADMIN in the initial user namespace, EINVAL for an unknown word, EBUSY after creation.
 */
export function fsconfigString(fs: Fd, key: string, value: string): void {
  const result = native().fsconfig(fs.number, FSCONFIG_SET_STRING, key, value, 0)
  check('fsconfig', 'fsconfig', result, `${key}=${value}`)
}

/** Sets an option that has no value. Errno as for `fsconfigString`. */
export function fsconfigFlag(fs: Fd, key: string): void {
  check('fsconfig', 'fsconfig', native().fsconfig(fs.number, FSCONFIG_SET_FLAG, key, null, 0), key)
}

/**
 * Creates the superblock. EPERM for a bpffs in a user namespace without CAP_SYS_ADMIN outside it.
 */
export function fsconfigCreate(fs: Fd): void {
  const result = native().fsconfig(fs.number, FSCONFIG_CMD_CREATE, null, null, 0)
  check('fsconfig', 'FSCONFIG_CMD_CREATE', result)
}

/**
 * A detached mount of the created superblock, with `MOUNT_ATTR_*`; an O_PATH descriptor. The caller
 * closes it.
 */
export function fsmount(fs: Fd, attrs: number): Fd {
  return new Fd(check('fsmount', 'fsmount', native().fsmount(fs.number, FSMOUNT_CLOEXEC, attrs)))
}
