/** Writes of which the disk has said that it has them. */
import { native } from './native.ts'

/**
 * Writes at that place, and waits until all of the file is on the disk, on a worker thread: pwrite(2)
 * and fdatasync(2). How many bytes were written, perhaps not all; or -errno of what failed.
 */
export function writeSynced(descriptor: number, bytes: Uint8Array, offset: number): Promise<number> {
  return native().writeSynced(descriptor, bytes, offset)
}
