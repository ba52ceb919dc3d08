/** Datagrams to a Unix socket, which Node has none of. */
import { InputError } from '../errors.ts'
import { ERRNO } from '../uapi/errno.ts'
import { failure } from './failure.ts'
import type { Fd } from './fd.ts'
import { native } from './native.ts'
import { socket } from './socket.ts'

const AF_UNIX = 1
const SOCK_DGRAM = 2
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
/** struct sockaddr_un: family @0, path @2 (include/uapi/linux/un.h). */
const PATH_BYTES = 108

/** Nobody listens there, or not now. */
const ABSENT = ['ENOENT', 'ECONNREFUSED', 'EAGAIN', 'ENOBUFS', 'EACCES', 'EPERM'].map(name => -ERRNO[name]!)

/**
 * Pure: struct sockaddr_un of an absolute path, or of an abstract name, which begins with `@`.
 * InputError: it is neither, or too long.
 */
export function unixAddress(path: string): Uint8Array {
  const name = Buffer.from(path.replace(/^@/, '\0'))
  if (!/^[/@]./.test(path) || name.length >= PATH_BYTES || name.indexOf(0, 1) >= 0)
    throw new InputError('This is no address of a Unix socket', { context: { path } })
  // An abstract name has no zero behind it.
  const end = Buffer.alloc(path.startsWith('@') ? 0 : 1)
  return Uint8Array.from(Buffer.concat([Buffer.from(new Uint16Array([AF_UNIX]).buffer), name, end]))
}

/** The way to one address. Whoever listens there may come, go and come again. */
export class DatagramSender implements Disposable {
  readonly #socket: Fd
  readonly #address: Uint8Array

  /** InputError: this is no address. */
  constructor(path: string) {
    this.#address = unixAddress(path)
    this.#socket = socket(AF_UNIX, SOCK_DGRAM)
  }

  /**
   * Sends one, and never waits. False: nobody listens, or whoever does has not read what is there.
   * EMSGSIZE: it is too long.
   */
  send(data: Uint8Array): boolean {
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL
    const result = native().sendto(this.#socket.number, data, flags, this.#address)
    if (result >= 0) return true
    if (ABSENT.includes(result)) return false
    throw failure('sendto', 'sendto', result)
  }

  [Symbol.dispose](): void {
    this.#socket.close()
  }
}
