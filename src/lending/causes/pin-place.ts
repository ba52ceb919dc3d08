/**
 * What a process finds where a pin is, or is to be: the directories on the way, the file system, and
 * the pin. Only what answers is looked at, see answering.ts.
 */
import { constants, fstatSync } from 'node:fs'
import { SyscallError } from '../../errors.ts'
import type { Inode } from '../../model/inode.ts'
import type { Fd } from '../../sys/fd.ts'
import { LOOK_MS, openInTime } from '../../sys/in-time.ts'
import { open } from '../../sys/open.ts'
import { openProcess, readProcLines } from '../../sys/process.ts'
import { O_CLOEXEC, O_PATH, RESOLVE_CACHED } from '../../uapi/constants.ts'
import { answers, fileSystemOf, openAnswering } from './answering.ts'
import { type Identity, mayUse, ownerText } from './bpffs-place.ts'
import { ownersOfFileSystems } from './file-system-owner.ts'
import type { Finding } from './finding.ts'

export interface PinPlace {
  readonly path: string
  /** From the root of the process on; the last one is that of the pin. */
  readonly directories: readonly { readonly path: string; readonly inode: Inode }[]
  /** Whether the last one is in a bpffs, and of which user namespace; undefined: it cannot be told. */
  readonly isBpffs: boolean
  readonly userNamespace: string | undefined
  /** What has the name; undefined: nothing. */
  readonly pin: { readonly isDirectory: boolean; readonly inode: Inode } | undefined
  /** Why it was not looked at further. */
  readonly unknown: string | undefined
}

/** NotFoundError: the process has exited. */
export async function pinPlaceOf(pid: number, path: string): Promise<PinPlace> {
  const none = { path, directories: [], isBpffs: false, userNamespace: undefined, pin: undefined }
  if (!path.startsWith('/')) return { ...none, unknown: 'a path that does not begin at the root' }
  using process = openProcess(pid)
  const { text: mountinfo } = readProcLines(process, 'mountinfo', MOST_MOUNTINFO_BYTES)
  using root = await openInTime(process, 'root', LOOK_MS)
  const names = path.split('/').filter(name => name !== '')
  const name = names.pop()
  if (name === undefined) return { ...none, unknown: 'the root directory' }
  const directories: { path: string; inode: Inode }[] = []
  const look = (at: string): void => {
    using directory = openAnswering(root, at, mountinfo)
    directories.push({ path: at, inode: inodeIn(directory, mountinfo) })
  }
  try {
    for (const depth of names.keys()) look(`/${names.slice(0, depth).join('/')}`)
    const at = `/${names.join('/')}`
    using last = openAnswering(root, at, mountinfo)
    directories.push({ path: at, inode: inodeIn(last, mountinfo) })
    const isBpffs = fileSystemOf(last, mountinfo) === 'bpf'
    const [userNamespace] = isBpffs ? await ownersOfFileSystems([last]) : []
    return {
      path,
      directories,
      isBpffs,
      userNamespace,
      pin: pinIn(last, name, mountinfo),
      unknown: undefined,
    }
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return { ...none, directories, unknown: `the way to it: ${error.errnoName}` }
  }
}

/** Of a file system that may keep us waiting nothing is asked: EAGAIN. */
function inodeIn(file: Fd, mountinfo: string): Inode {
  if (!answers(file, mountinfo)) throw new SyscallError({ call: 'fstat', errno: 11, errnoName: 'EAGAIN' })
  const { uid, gid, mode } = fstatSync(file.number)
  return { uid, gid, mode: mode & 0o7777 }
}

/** More of a mount table is not looked at: what is mounted behind that counts as not answering. */
const MOST_MOUNTINFO_BYTES = 16 << 20

const PIN = O_PATH | O_CLOEXEC | constants.O_NOFOLLOW

/** In a bpffs, the kernel knows all names by itself. */
function pinIn(directory: Fd, name: string, mountinfo: string): PinPlace['pin'] {
  try {
    using pin = open(name, PIN, answers(directory, mountinfo) ? 0 : RESOLVE_CACHED, directory)
    return { isDirectory: fstatSync(pin.number).isDirectory(), inode: inodeIn(pin, mountinfo) }
  } catch (error) {
    // Of a name with a dot the kernel says EPERM: a bpffs has none.
    if (error instanceof SyscallError && ['ENOENT', 'EPERM'].includes(error.errnoName)) return undefined
    throw error
  }
}

const MAY_SEARCH = 1

/** Undefined: it can come to the directory. The last one is left to the model. Pure. */
export function closedWay(
  { directories }: PinPlace,
  identity: Identity,
  capabilities: readonly string[],
): Finding | undefined {
  const closed = directories
    .slice(0, -1)
    .find(({ inode }) => !mayUse(inode, MAY_SEARCH, identity, capabilities))
  if (closed === undefined) return undefined
  return {
    cause: 'closed-directory',
    errno: 'EACCES',
    needed: `the right to search ${closed.path}`,
    found: ownerText(closed.inode, identity),
  }
}
