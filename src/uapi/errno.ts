/**
 * Names of errno values, x86-64 and arm64 Linux (include/uapi/asm-generic/errno{,-base}.h), and 524
 * ENOTSUPP, which only kernel code defines (include/linux/errno.h) but bpf(2) lets through.
 */
import { constants } from 'node:os'

/** Kernel-internal "operation is not supported"; bpf(2) returns it for attach targets. */
export const ENOTSUPP = 524

export const ERRNO: Readonly<Record<string, number>> = {
  ...constants.errno,
  EBADFD: 77,
  EUCLEAN: 117,
  ENOKEY: 126,
  EKEYREJECTED: 129,
  ENOTSUPP,
}

const NAMES = new Map<number, string>()
for (const [name, value] of Object.entries(ERRNO)) {
  // EWOULDBLOCK and EOPNOTSUPP/ENOTSUP share numbers; the kernel says EAGAIN and EOPNOTSUPP.
  if (name === 'EWOULDBLOCK' || name === 'ENOTSUP') continue
  NAMES.set(value, name)
}

/** `errnoName(1)` is `"EPERM"`; an unknown value gives `"errno 4095"`. */
export function errnoName(errno: number): string {
  return NAMES.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`
}
