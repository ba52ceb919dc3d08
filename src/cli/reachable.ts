/**
 * Whether an ordinary user can run what we start as that user: a clone may be in somebody's home.
 */
import { realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import { ConflictError } from '../errors.ts'
import type { HostUser } from './user.ts'

/** ConflictError: the user may not read one of these files. */
export function requireReachable(user: HostUser, files: readonly string[]): void {
  for (const file of files) {
    const lacking = closedTo(user, realpathSync(file))
    if (lacking === undefined) continue
    throw new ConflictError(`${user.name}, who loads the object, may not read ${lacking}`, {
      context: { user: user.name, file, lacking },
      hint: 'Install bpftoken and Node for all users, or name with --user whose they are',
    })
  }
}

const READ = 4
const SEARCH = 1

/**
 * The directory on the way to the file that this user may not pass, by its mode; undefined: there
 * is none.
 */
function closedTo({ uid, gid }: HostUser, file: string): string | undefined {
  const way = [file]
  while (way[0] !== '/') way.unshift(path.dirname(way[0]!))
  return way.find(one => {
    const stat = statSync(one)
    const shift = stat.uid === uid ? 6 : stat.gid === gid ? 3 : 0
    return ((stat.mode >> shift) & (one === file ? READ : SEARCH)) === 0
  })
}
