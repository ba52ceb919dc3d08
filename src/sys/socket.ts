/** Sockets: passing descriptors, attaching filters, interface numbers. */
import { SO_ACCEPTCONN, SO_DOMAIN, SO_TYPE, SOL_SOCKET } from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

/**
 * A connected pair of Unix SOCK_SEQPACKET sockets, which keep message bounds. The caller closes
 * both.
 */
export function socketPair(): [Fd, Fd] {
  const result = native().socketpair()
  if (typeof result === 'number') check('socketpair', 'socketpair', result)
  const [a, b] = result as [number, number]
  return [new Fd(a), new Fd(b)]
}

/** Sends bytes and, by SCM_RIGHTS, copies of descriptors (16 at most). */
export function sendFds(socket: Fd, data: Uint8Array, fds: Fd[]): void {
  const numbers = fds.map(fd => fd.number)
  check('sendmsg', 'SCM_RIGHTS', native().sendFds(socket.number, data, numbers))
}

/**
 * The next message, cut to `data`; EAGAIN when none is there. The caller closes the descriptors.
 */
export function recvFds(socket: Fd, data: Uint8Array): { length: number; fds: Fd[] } {
  const result = native().recvFds(socket.number, data)
  if (typeof result === 'number') check('recvmsg', 'SCM_RIGHTS', result)
  const [length, ...fds] = result as [number, ...number[]]
  return { length, fds: fds.map(fd => new Fd(fd)) }
}

/** A socket that is closed on exec. The caller closes it. */
export function socket(domain: number, type: number, protocol = 0): Fd {
  const SOCK_CLOEXEC = 0o2000000
  return new Fd(check('socket', 'socket', native().socket(domain, type | SOCK_CLOEXEC, protocol)))
}

/** Sets an integer option; for SO_ATTACH_BPF the value is a program's descriptor. */
export function setIntOption(target: Fd, level: number, name: number, value: number): void {
  const bytes = new Uint8Array(new Int32Array([value]).buffer)
  check('setsockopt', 'setsockopt', native().setsockopt(target.number, level, name, bytes))
}

/**
 * Index of a network interface in our own network namespace. ENODEV: there is none of that name.
 */
export function interfaceIndex(name: string): number {
  return check('if_nametoindex', 'if_nametoindex', native().interfaceIndex(name), name)
}

const AF_UNIX = 1
const SOCK_STREAM = 1

/** Whether this is a Unix stream socket that connections are accepted from. False: also no socket. */
export function isListeningUnixStream(descriptor: number): boolean {
  return (
    intOption(descriptor, SO_DOMAIN) === AF_UNIX &&
    intOption(descriptor, SO_TYPE) === SOCK_STREAM &&
    intOption(descriptor, SO_ACCEPTCONN) === 1
  )
}

/** Undefined: it is no socket, or has no such option. */
function intOption(descriptor: number, name: number): number | undefined {
  const value = new Int32Array(1)
  const length = new Uint32Array([value.byteLength])
  const bytes = new Uint8Array(value.buffer)
  const result = native().getsockopt(descriptor, SOL_SOCKET, name, bytes, new Uint8Array(length.buffer))
  return result < 0 ? undefined : value[0]
}
