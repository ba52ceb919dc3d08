/** read(2) on a worker thread, for files whose reading is work. */
import { check } from './failure.ts'
import type { Fd } from './fd.ts'
import { native } from './native.ts'

/** How many bytes came, at most `into.length`; 0: the end. The descriptor stays open meanwhile. */
export async function readLater(fd: Fd, into: Uint8Array): Promise<number> {
  return check('read', 'read', await native().later('read', fd.number, into))
}
