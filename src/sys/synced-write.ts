/** Writes of which the disk has said that it has them. */
import { errnoName } from '../uapi/errno.ts'
import { native } from './native.ts'

/**
 * Writes at that place, and waits until all of the file is on the disk, on a worker thread: pwrite(2)
 * and fdatasync(2). How many bytes were written, perhaps not all. Throws as Node's own calls of files
 * do, with `code`.
 */
export async function writeSynced(descriptor: number, bytes: Uint8Array, offset: number): Promise<number> {
  const result = await native().writeSynced(descriptor, bytes, offset)
  if (result >= 0) return result
  const code = errnoName(result)
  throw Object.assign(new Error(`${code}: write and fdatasync`), { code, errno: result, syscall: 'write' })
}
