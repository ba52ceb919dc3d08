/** What owns what: nsfs ioctls (include/uapi/linux/nsfs.h, since Linux 4.9 and 4.11). */
import { NS_GET_OWNER_UID, NS_GET_USERNS } from '../uapi/constants.ts'
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

/** The user namespace that owns this namespace. EPERM: it lies outside ours. The caller closes it. */
export function owningUserNamespace(namespace: Fd): Fd {
  return new Fd(check('ioctl', 'NS_GET_USERNS', native().ioctl(namespace.number, NS_GET_USERNS, null)))
}

/** User id, in our own user namespace, of the creator of this user namespace. */
export function ownerUid(userNamespace: Fd): number {
  const out = new Uint8Array(4)
  check('ioctl', 'NS_GET_OWNER_UID', native().ioctl(userNamespace.number, NS_GET_OWNER_UID, out))
  return new DataView(out.buffer).getUint32(0, true)
}
