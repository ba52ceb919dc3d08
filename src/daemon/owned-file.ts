/** Files that decide what the daemon does: only their owner, root, may write to them. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { FormatError, InputError } from '../errors.ts'
import { type FileFacts, notOwnersAlone } from '../uapi/file-owner.ts'

export interface OwnedFile {
  /** What the file holds, as an error says it: "policy". */
  readonly what: string
  readonly owner: number
  readonly maxBytes: number
  /** Otherwise a symbolic link is refused. */
  readonly followLinks?: boolean
}

/**
 * The text of a plain file that only `owner` may write to. InputError: it is another kind of file,
 * or not the owner's alone. FormatError: it has more than `maxBytes`. Others are Node's: ENOENT.
 */
export async function readOwned(path: string, how: OwnedFile): Promise<string> {
  const { what, owner, maxBytes, followLinks = false } = how
  // A pipe or a device is neither waited for nor read.
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | (followLinks ? 0 : constants.O_NOFOLLOW)
  let handle: FileHandle
  try {
    handle = await open(path, flags)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ELOOP') throw new InputError('it is a symbolic link')
    throw error
  }
  try {
    const facts = await handle.stat()
    if (!facts.isFile()) throw new InputError('it is no plain file')
    requireOwn(facts, owner)
    const bytes = Buffer.alloc(maxBytes + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await handle.read(bytes, length, bytes.length - length, length)
      length += bytesRead
      if (length > maxBytes) throw new FormatError(what, `it is longer than ${maxBytes} bytes`)
      if (bytesRead === 0) return bytes.toString('utf8', 0, length)
    }
  } finally {
    await handle.close()
  }
}

/** InputError: the file or directory is not `owner`'s, or somebody else may write to it. */
export function requireOwn(facts: FileFacts, owner: number): void {
  const why = notOwnersAlone(facts, owner)
  if (why !== undefined) throw new InputError(why)
}
