/** Owners of namespaces: nsfs ioctls (include/uapi/linux/nsfs.h, since Linux 4.9 and 4.11). */
import { readlinkSync } from 'node:fs'
import { NotFoundError } from '../errors.ts'
import {
  NS_GET_ID,
  NS_GET_OWNER_UID,
  NS_GET_PARENT,
  NS_GET_USERNS,
  PIDFD_GET_MNT_NAMESPACE,
  PIDFD_GET_NET_NAMESPACE,
  PIDFD_GET_PID_NAMESPACE,
  PIDFD_GET_USER_NAMESPACE,
} from '../uapi/constants.ts'
import { ERRNO } from '../uapi/errno.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'
import { inodeOf, inodeOfNumber } from './open.ts'
import { type NamespaceKind, openNamespace, PIDFD_THREAD, type ProcessHandle } from './process.ts'
import { ownNamespace } from './self.ts'

const REQUESTS = {
  user: PIDFD_GET_USER_NAMESPACE,
  mnt: PIDFD_GET_MNT_NAMESPACE,
  net: PIDFD_GET_NET_NAMESPACE,
  pid: PIDFD_GET_PID_NAMESPACE,
} as const satisfies Record<NamespaceKind, number>

/**
 * Identity of a namespace that the process is in at this moment, e.g. `user:[4026531837]`, with no
 * wait for its execve(2) since Linux 6.11. NotFoundError: it has exited.
 */
export function heldNamespaceName(process: ProcessHandle, kind: NamespaceKind): string {
  using namespace = heldNamespace(process, kind)
  return `${kind}:[${inodeOf(namespace)}]`
}

/**
 * The namespace that the process is in at this moment, by ioctl of its pidfd (since Linux 6.11),
 * else through /proc. NotFoundError: it has exited. EACCES: a security module keeps it from us. The
 * caller closes it.
 */
export function heldNamespace(process: ProcessHandle, kind: NamespaceKind): Fd {
  return askedNamespace(process, kind) ?? openNamespace(process, kind)
}

/**
 * The namespace of a thread, e.g. `mnt:[4026531832]`; undefined: it has ended, or is not ours to
 * look at. For many of them: it makes no error, and does not wait since Linux 6.11.
 */
export function namespaceOfTask(tid: number, kind: NamespaceKind): string | undefined {
  const pidfd = native().pidfd_open(tid, PIDFD_THREAD)
  // EINVAL: there are no pidfds of threads, before Linux 6.9.
  if (pidfd < 0) return -pidfd === ERRNO['EINVAL'] ? linkOf(tid, kind) : undefined
  const namespace = native().ioctl(pidfd, REQUESTS[kind], null)
  native().close(pidfd)
  if (-namespace === ERRNO['ENOTTY']) return linkOf(tid, kind)
  if (namespace < 0) return undefined
  const inode = inodeOfNumber(namespace)
  native().close(namespace)
  return `${kind}:[${inode}]`
}

function linkOf(tid: number, kind: NamespaceKind): string | undefined {
  try {
    return readlinkSync(`/proc/${tid}/ns/${kind}`)
  } catch {
    return undefined
  }
}

/** As `heldNamespace`, and never waits; undefined: this kernel has no such ioctl. */
export function askedNamespace(process: ProcessHandle, kind: NamespaceKind): Fd | undefined {
  const result = native().ioctl(process.pidfd.number, REQUESTS[kind], null)
  if (-result === ERRNO['ENOTTY']) return undefined
  if (-result === ERRNO['ESRCH'])
    throw new NotFoundError(`Process ${process.pid} has exited`, { context: { pid: process.pid } })
  return new Fd(check('ioctl', `PIDFD_GET_${kind.toUpperCase()}_NAMESPACE`, result, `pid ${process.pid}`))
}

/**
 * The user namespace that owns this namespace. EPERM: it lies outside ours. The caller closes it.
 */
export function owningUserNamespace(namespace: Fd): Fd {
  return new Fd(check('ioctl', 'NS_GET_USERNS', native().ioctl(namespace.number, NS_GET_USERNS, null)))
}

/** User id, in our own user namespace, of the creator of this user namespace. */
export function ownerUid(userNamespace: Fd): number {
  const out = new Uint8Array(4)
  check('ioctl', 'NS_GET_OWNER_UID', native().ioctl(userNamespace.number, NS_GET_OWNER_UID, out))
  return new DataView(out.buffer).getUint32(0, true)
}

/**
 * The number of a namespace of any kind, never used again before the next boot, as that of its inode
 * is. Undefined: this kernel knows none. Since Linux 6.18.
 */
export function uniqueNamespaceId(namespace: Fd): bigint | undefined {
  const out = new Uint8Array(8)
  const result = native().ioctl(namespace.number, NS_GET_ID, out)
  if (-result === ERRNO['ENOTTY'] || -result === ERRNO['EINVAL']) return undefined
  check('ioctl', 'NS_GET_ID', result)
  return new DataView(out.buffer).getBigUint64(0, true)
}

/**
 * User ids, in our own user namespace, of the creators of this user namespace and of those that it
 * lies in, up to our own. Each of them has all power over it. EPERM: it does not lie below ours.
 */
export function ownerUids(userNamespace: Fd): number[] {
  const ours = ownNamespace('user')
  using above = new Above()
  const owners: number[] = []
  let at = userNamespace
  do {
    owners.push(ownerUid(at))
    at = above.of(at)
  } while (userNamespaceName(at) !== ours)
  return owners
}

/**
 * Those that this user namespace lies in, the nearest first, up to our own, which is not among them.
 * EPERM: it does not lie below ours.
 */
export function userNamespacesAbove(userNamespace: Fd): string[] {
  const ours = ownNamespace('user')
  using above = new Above()
  const names: string[] = []
  for (let at = userNamespace; userNamespaceName(at) !== ours; names.push(userNamespaceName(at)))
    at = above.of(at)
  return names.slice(0, -1)
}

/**
 * The outermost of this user namespace and those that it lies in, below our own, and its creator.
 * Undefined: this one is our own. EPERM: it does not lie below ours.
 */
function outermostBelowOurs(
  userNamespace: Fd,
): { readonly name: string; readonly ownerUid: number } | undefined {
  const ours = ownNamespace('user')
  using above = new Above()
  let outermost: { name: string; ownerUid: number } | undefined
  for (let at = userNamespace; ; at = above.of(at)) {
    const name = userNamespaceName(at)
    if (name === ours) return outermost
    outermost = { name, ownerUid: ownerUid(at) }
  }
}

/**
 * Whose doing this user namespace is, whatever users there are in it: `user N`, who made the outermost
 * one that it lies in; of one that root made, its name. Undefined: it is our own. EPERM: it does not
 * lie below ours.
 */
export function ownerOf(userNamespace: Fd): string | undefined {
  const outermost = outermostBelowOurs(userNamespace)
  if (outermost === undefined) return undefined
  return outermost.ownerUid === 0 ? outermost.name : `user ${outermost.ownerUid}`
}

/** Somebody who may have power over a user namespace. */
export interface Holder {
  /** Where it is, `user:[INODE]`. */
  readonly userNamespace: string
  /** Its effective user id, in our own user namespace. */
  readonly uid: number
  /** Whether it has CAP_SYS_ADMIN there. */
  readonly isAdmin: boolean
}

/**
 * Whether the kernel gives this holder CAP_SYS_ADMIN in the user namespace: cap_capable() of
 * security/commoncap.c. It is in there, or in one that this one lies in, and has the capability; or
 * it made this one, or one that this one lies in, from where it is itself. Of our own namespace and
 * what lies outside of it the answer is no. EPERM: it does not lie below ours.
 */
export function hasPowerOver(userNamespace: Fd, holder: Holder): boolean {
  const ours = ownNamespace('user')
  using above = new Above()
  for (let at = userNamespace; ; ) {
    const name = userNamespaceName(at)
    if (name === ours) return false
    if (name === holder.userNamespace) return holder.isAdmin
    const owner = ownerUid(at)
    at = above.of(at)
    if (userNamespaceName(at) === holder.userNamespace && owner === holder.uid) return true
  }
}

function userNamespaceName(namespace: Fd): string {
  return `user:[${inodeOf(namespace)}]`
}

/** The namespace that was climbed to last. */
class Above implements Disposable {
  #held: Fd | undefined

  /** The parent, until asked for the next. */
  of(namespace: Fd): Fd {
    const parent = parentOf(namespace)
    this.#held?.close()
    this.#held = parent
    return parent
  }

  [Symbol.dispose](): void {
    this.#held?.close()
  }
}

function parentOf(userNamespace: Fd): Fd {
  return new Fd(check('ioctl', 'NS_GET_PARENT', native().ioctl(userNamespace.number, NS_GET_PARENT, null)))
}
