/** Netlink: requests to the kernel's routing family, each answered before the next. */
import { SyscallError } from '../errors.ts'
import { errnoName } from '../uapi/errno.ts'
import { check } from './failure.ts'
import type { Fd } from './fd.ts'
import { native } from './native.ts'
import { setIntOption, socket } from './socket.ts'

// linux/socket.h, linux/netlink.h
const AF_NETLINK = 16
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const NETLINK_ROUTE = 0
const SOL_NETLINK = 270
const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11
const NLMSG_ERROR = 2
const NLM_F_REQUEST = 0x1
const NLM_F_ACK = 0x4
const NLM_F_ACK_TLVS = 0x200
const NLMSGERR_ATTR_MSG = 1
/** struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port. */
const HEADER_BYTES = 16
const ANSWER_BYTES = 64 * 1024
/** More than any of our requests is answered with. */
const MAX_ANSWERS = 1000

export interface NetlinkMessage {
  readonly type: number
  readonly body: Buffer
}

/** An attribute: u16 length with these 4 bytes, u16 type, then the bytes, padded to 4. */
export function netlinkAttribute(type: number, value: Uint8Array): Buffer {
  const bytes = Buffer.alloc(aligned(4 + value.length))
  bytes.writeUInt16LE(4 + value.length, 0)
  bytes.writeUInt16LE(type, 2)
  bytes.set(value, 4)
  return bytes
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 4) * 4
}

/** A socket of ours in the network namespace that we are in. The caller closes it. */
export function routeSocket(): Fd {
  const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE)
  try {
    setIntOption(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1)
    setIntOption(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return fd
  } catch (error) {
    fd.close()
    throw error
  }
}

/**
 * Sends a request, and gives what the kernel says before it acknowledges. `op` names it in errors,
 * whose hint is the kernel's own word where it has one. Routing requests are answered while they
 * are sent, so that this does not wait.
 */
export function netlinkRequest(
  fd: Fd,
  op: string,
  type: number,
  flags: number,
  body: Uint8Array,
  object: string,
): NetlinkMessage[] {
  const request = Buffer.alloc(HEADER_BYTES + body.length)
  request.writeUInt32LE(request.length, 0)
  request.writeUInt16LE(type, 4)
  request.writeUInt16LE(flags | NLM_F_REQUEST | NLM_F_ACK, 6)
  request.set(body, HEADER_BYTES)
  // struct sockaddr_nl: u16 family, u16 nothing, u32 port 0 (the kernel), u32 groups.
  const kernel = new Uint8Array(12)
  kernel[0] = AF_NETLINK
  check('sendto', op, native().sendto(fd.number, request, 0, kernel), object)
  const found: NetlinkMessage[] = []
  const answer = Buffer.alloc(ANSWER_BYTES)
  while (found.length < MAX_ANSWERS) {
    const length = check('read', op, native().read(fd.number, answer), object)
    for (let at = 0; at + HEADER_BYTES <= length; ) {
      const bytes = answer.readUInt32LE(at)
      if (bytes < HEADER_BYTES || at + bytes > length) break
      const message = answer.subarray(at + HEADER_BYTES, at + bytes)
      if (answer.readUInt16LE(at + 4) === NLMSG_ERROR) {
        requireSuccess(message, answer.readUInt16LE(at + 6), op, object)
        return found
      }
      found.push({ type: answer.readUInt16LE(at + 4), body: Buffer.from(message) })
      at += aligned(bytes)
    }
  }
  return found
}

/** struct nlmsgerr: s32 -errno, the header of the request, attributes. */
function requireSuccess(message: Buffer, flags: number, op: string, object: string): void {
  const errno = -message.readInt32LE(0)
  if (errno === 0) return
  const text = (flags & NLM_F_ACK_TLVS) === 0 ? undefined : textIn(message.subarray(4 + HEADER_BYTES))
  throw new SyscallError(
    { call: 'netlink', op, errno, errnoName: errnoName(errno), object },
    { context: { object }, hint: text === undefined ? undefined : `The kernel says: ${text}` },
  )
}

function textIn(attributes: Buffer): string | undefined {
  for (let at = 0; at + 4 <= attributes.length; ) {
    const [bytes, type] = [attributes.readUInt16LE(at), attributes.readUInt16LE(at + 2)]
    if (bytes < 4 || at + bytes > attributes.length) return undefined
    if (type === NLMSGERR_ATTR_MSG) return attributes.toString('latin1', at + 4, at + bytes - 1)
    at += aligned(bytes)
  }
  return undefined
}
