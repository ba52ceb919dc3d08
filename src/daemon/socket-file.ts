/** The daemon's socket as a file: its directory, and what a daemon before this one left there. */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { ConflictError, InputError } from '../errors.ts'
import { notOwnersAlone } from '../uapi/file-owner.ts'

/** sun_path of sockaddr_un, with the zero that ends it. */
const MAX_PATH_BYTES = 107
const ENTERED_BY_OTHERS = 0o001

/**
 * Makes room for the socket. What its directory lets others do is theirs who made it: only of one
 * that is made here others get in. False: they cannot reach the socket there. ConflictError: a
 * daemon answers there, or what lies there is none of a daemon. InputError: whoever may write to the
 * directory could put a socket of his own there.
 */
export async function prepareSocket(path: string): Promise<boolean> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new InputError(`The path of the socket has more than ${MAX_PATH_BYTES} bytes`)
  const directory = dirname(path)
  const made = mkdirSync(directory, { recursive: true, mode: 0o755 }) !== undefined
  const { uid, mode } = lstatSync(directory)
  const open = notOwnersAlone({ uid, mode }, process.geteuid!())
  if (open !== undefined)
    throw new InputError(`The socket cannot be in ${directory}: ${open}`, {
      context: { path: directory, uid, mode: mode & 0o7777 },
    })
  // It is made with the umask of who keeps all else to himself.
  if (made) chmodSync(directory, 0o755)
  const reachable = made || (mode & ENTERED_BY_OTHERS) !== 0
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return reachable
  if (!stats.isSocket()) throw new ConflictError(`${path} is there, and is no socket`)
  if (await answers(path))
    throw new ConflictError(`A daemon answers at ${path} already`, { hint: 'Stop it first' })
  unlinkSync(path)
  return reachable
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false)
      // Full is not gone.
      else if (error.code === 'EAGAIN') resolve(true)
      else reject(error)
    })
  })
}

/** The kernel says who asks; so everybody may. */
export function openToAll(path: string): void {
  chmodSync(path, 0o666)
}
