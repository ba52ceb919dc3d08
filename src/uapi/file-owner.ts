/**
 * Who else than its owner may write to a file, or put another one in its place: by what stat(2) says
 * of it and of the directories on the way. Pure; the same words everywhere.
 *
 * Here because the commands, the daemon and the plugins all ask it, and none may see the other.
 */

/** Of `fs.Stats`. */
export interface FileFacts {
  readonly uid: number
  readonly mode: number
}

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000
const PERMISSIONS = 0o7777

/** Why the file or directory is not `owner`'s alone to write to; undefined: it is. */
export function notOwnersAlone({ uid, mode }: FileFacts, owner: number): string | undefined {
  if (uid !== owner) return `it belongs to ${userText(uid)}, not to ${userText(owner)}`
  return isWritable(mode) ? othersWrite(mode) : undefined
}

/**
 * Why others than root and `owner` may put something else in the place of what is `owner`'s in this
 * directory; undefined: they may not. In a sticky one nobody may move what is another's.
 */
export function othersMayExchange({ uid, mode }: FileFacts, owner: number): string | undefined {
  if (uid !== 0 && uid !== owner) return notOwnersAlone({ uid, mode }, owner)
  return isWritable(mode) && (mode & STICKY) === 0 ? othersWrite(mode) : undefined
}

const isWritable = (mode: number): boolean => (mode & WRITABLE_BY_OTHERS) !== 0

function othersWrite(mode: number): string {
  return `others than its owner may write to it (mode ${(mode & PERMISSIONS).toString(8)})`
}

function userText(uid: number): string {
  return uid === 0 ? 'root' : `user ${uid}`
}
