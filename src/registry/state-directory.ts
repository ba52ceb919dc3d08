/**
 * The directory in which all of the daemon's records are: root's alone, and held by one daemon.
 *
 * The lock is flock(2) of the directory itself. The kernel gives it up with the last descriptor,
 * however its holder ended, and to open the directory takes the rights that it denies everybody
 * else. A name in the abstract socket namespace would be free for any user to take first, and
 * another for each network namespace; a file with a number in it outlives the process, and the
 * number goes to others.
 */
import { dirname } from 'node:path'
import { ConflictError, DeniedError } from '../errors.ts'
import type { Files } from './files.ts'

/** Everybody but the owner. */
const OTHERS = 0o077

/**
 * Makes it where there is none, and locks it until `close`. ConflictError: another daemon has it.
 * DeniedError: others than its owner have rights to it, or its owner is not us.
 */
export async function holdDirectory(files: Files, path: string): Promise<{ close(): Promise<void> }> {
  await files.makeDirectory(path)
  const { uid, mode } = await files.facts(path)
  if (uid !== process.geteuid!() || (mode & OTHERS) !== 0)
    throw new DeniedError(
      `The state directory ${path} is not ours alone: owner ${uid}, mode 0${(mode & 0o7777).toString(8)}`,
      { reason: 'state-open-to-others', context: { path, uid, mode: mode & 0o7777 } },
    )
  const lock = await files.lock(path)
  if (lock === undefined)
    throw new ConflictError(`Another process holds the state directory ${path}`, {
      reason: 'state-in-use',
      context: { path },
    })
  // Its own name, if it is new; where nothing can be written it is not.
  await files.syncDirectory(dirname(path)).catch(() => {})
  return lock
}
