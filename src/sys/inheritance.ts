/** What programs that we start inherit from us unasked, even as another user. */
import { readdirSync, readFileSync } from 'node:fs'
import { check } from './failure.ts'
import { native } from './native.ts'
import { procFields } from './proc-file.ts'

/** include/uapi/linux/keyctl.h */
const KEYCTL_JOIN_SESSION_KEYRING = 1
const ENOSYS = 38
/** include/uapi/linux/close_range.h; since Linux 5.11. */
const CLOSE_RANGE_CLOEXEC = 4
const FIRST_AFTER_STDIO = 3
/** The kernel takes it for the largest unsigned number. */
const ALL = -1

/**
 * What is started by this thread afterwards gets none of our descriptors but those that it is given
 * as its own, and none of our caller's keys: the session keyring of this thread is a new, empty
 * one. Node closes only the first of the descriptors that it was started with. A kernel without
 * keys has none to keep back. EDQUOT: the quota of our user in /proc/key-users is used up.
 */
export function passNothingOn(): void {
  const cloexec = native().close_range(FIRST_AFTER_STDIO, ALL, CLOSE_RANGE_CLOEXEC)
  check('close_range', 'close_range', cloexec)
  const joined = native().keyctl(KEYCTL_JOIN_SESSION_KEYRING, null)
  if (joined !== -ENOSYS) check('keyctl', 'KEYCTL_JOIN_SESSION_KEYRING', joined)
}

/** O_CLOEXEC of a descriptor, as its fdinfo has it: octal. */
const CLOSES_ON_EXEC = 0o2000000

/**
 * Closes descriptors that whoever started us left open, but for standard input, output and error,
 * and those of `keep`. Node opens its own to be closed on exec; what is not was inherited. Those
 * that Node has marked by itself, the first few, stay open, and are not passed on.
 */
export function closeInherited(keep: readonly number[]): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const descriptor = Number(name)
    if (descriptor < FIRST_AFTER_STDIO || keep.includes(descriptor)) continue
    let info: string
    try {
      info = readFileSync(`/proc/self/fdinfo/${name}`, 'latin1')
    } catch {
      continue // That of the directory itself, which is closed by now.
    }
    const flags = Number.parseInt(procFields(info).get('flags') ?? '0', 8)
    if ((flags & CLOSES_ON_EXEC) === 0) native().close(descriptor)
  }
}

/**
 * What is started from now on does not get these descriptors, from `first` to `last`. Those of them
 * that are not open are passed over. Since Linux 5.11.
 */
export function markCloseOnExec(first: number, last: number): void {
  check('close_range', 'close_range', native().close_range(first, last, CLOSE_RANGE_CLOEXEC))
}
