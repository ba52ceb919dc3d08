/** mmap(2) of BPF maps, and of the kernel's own types. */
import { statSync } from 'node:fs'
import { O_CLOEXEC, O_RDONLY } from '../uapi/constants.ts'
import { check } from './failure.ts'
import type { Fd } from './fd.ts'
import { native } from './native.ts'
import { open } from './open.ts'

export const PAGE_BYTES = 4096

/** A mapping of a descriptor; `buffer` is empty once disposed of. */
export class Mapping implements Disposable {
  readonly buffer: ArrayBuffer

  constructor(buffer: ArrayBuffer) {
    this.buffer = buffer
  }

  /** Where it begins in this process; 0 once disposed of. */
  get address(): bigint {
    return native().mappingAddress(this.buffer) ?? 0n
  }

  [Symbol.dispose](): void {
    if (this.buffer.byteLength > 0) native().munmap(this.buffer)
  }
}

/** MAP_SHARED, and MAP_FIXED_NOREPLACE: there, or EEXIST where something else is. */
const MAP_SHARED = 1
const MAP_FIXED_NOREPLACE = 0x100000

/**
 * Maps `length` bytes of `fd` at offset `off`, shared. EPERM: write access to a read-only map.
 * `address`: where in our memory; EEXIST: something else is there. 0, the default: anywhere.
 */
export function mapShared(fd: Fd, length: number, off: number, writable: boolean, address = 0): Mapping {
  const flags = MAP_SHARED | (address === 0 ? 0 : MAP_FIXED_NOREPLACE)
  const result = native().mmap(fd.number, length, writable ? 3 : 1, flags, off, address)
  if (typeof result === 'number') check('mmap', 'mmap', result)
  return new Mapping(result as ArrayBuffer)
}

/**
 * All of a file that nobody changes, to be read only, until the collector takes it; undefined: it
 * cannot be mapped. /sys/kernel/btf/vmlinux can since Linux 6.16 (ENODEV before), if the mapping is
 * private: sysfs gives a page at a time, so that reading all of it takes longer than finding
 * something in it.
 */
export function mapReadOnly(path: string): Uint8Array | undefined {
  try {
    using file = open(path, O_RDONLY | O_CLOEXEC)
    const result = native().mmap(file.number, statSync(path).size, 1, 2 /* MAP_PRIVATE */, 0, 0)
    return typeof result === 'number' ? undefined : new Uint8Array(result)
  } catch {
    return undefined // Reading it tells why.
  }
}
