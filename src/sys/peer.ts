/** Who is at the other end of a Unix socket: what the kernel noted when it connected. */
import { NotSupportedError } from '../errors.ts'
import { SO_PEERCRED, SO_PEERPIDFD, SOL_SOCKET } from '../uapi/constants.ts'
import { DESCRIPTORS, isWithin } from '../uapi/number-range.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

/** Ids in our own user namespace, as they were when it connected. */
export interface PeerCredentials {
  /** In our own pid namespace; 0 where it has no number there. */
  readonly pid: number
  /** The effective ones. */
  readonly uid: number
  readonly gid: number
}

/**
 * The number of the descriptor of one of Node's sockets. Node has no public name for it; the one
 * that it keeps has been the same since its first versions. Fail closed: where it is no more, nobody
 * is let in.
 */
export function descriptorOf(socket: object): number {
  const { _handle: handle } = socket as { _handle?: { fd?: unknown } | null }
  if (!isWithin(DESCRIPTORS, handle?.fd))
    throw new NotSupportedError(
      'This connection has no descriptor: it has been closed, or Node keeps it elsewhere',
    )
  return handle.fd
}

/**
 * SO_PEERCRED of a connected Unix stream socket: struct ucred, 12 bytes: pid @0, uid @4, gid @8
 * (include/linux/socket.h). Ids are those of the thread that called connect(2), and of its process;
 * whoever has the socket now is another question.
 */
export function peerCredentials(descriptor: number): PeerCredentials {
  const value = option(descriptor, SO_PEERCRED, 12, 'SO_PEERCRED')
  return { pid: value.getInt32(0, true), uid: value.getUint32(4, true), gid: value.getUint32(8, true) }
}

/**
 * SO_PEERPIDFD: a pidfd of the process that connected, also once it has exited, so that its number
 * is not believed. The caller closes it. Since Linux 6.5. ENOPROTOOPT: an older kernel; ENODATA: the
 * socket has no peer; EINVAL, or of late ESRCH: the process has exited and has been waited for
 * (since Linux 6.16 there is a pidfd of it all the same).
 */
export function peerPidfd(descriptor: number): Fd {
  return new Fd(option(descriptor, SO_PEERPIDFD, 4, 'SO_PEERPIDFD').getInt32(0, true))
}

/** The value of a socket option that has `length` bytes. */
function option(descriptor: number, name: number, length: number, called: string): DataView {
  const value = new DataView(new ArrayBuffer(length))
  const size = new DataView(new ArrayBuffer(4))
  size.setUint32(0, length, true)
  const bytes = new Uint8Array(value.buffer)
  const result = native().getsockopt(descriptor, SOL_SOCKET, name, bytes, new Uint8Array(size.buffer))
  check('getsockopt', called, result, `descriptor ${descriptor}`)
  if (size.getUint32(0, true) !== length)
    throw new NotSupportedError(`${called} has ${size.getUint32(0, true)} bytes here, not ${length}`)
  return value
}
