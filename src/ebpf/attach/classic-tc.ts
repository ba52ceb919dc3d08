/**
 * Programs as filters of the classic traffic control, which `tc filter` shows: for kernels without
 * TCX (before Linux 6.6), and beside filters that are there. By netlink, not by links: a filter
 * stays until it is deleted, whoever closes what.
 */
import { SyscallError } from '../../errors.ts'
import { netlinkAttribute, netlinkRequest, routeSocket } from '../../sys/netlink.ts'
import type { Program } from '../prog.ts'

// linux/rtnetlink.h, linux/netlink.h
const RTM_NEWQDISC = 36
const RTM_DELQDISC = 37
const RTM_NEWTFILTER = 44
const RTM_DELTFILTER = 45
const NLM_F_ECHO = 0x8
const NLM_F_REPLACE = 0x100
const NLM_F_EXCL = 0x200
const NLM_F_CREATE = 0x400
const TCA_KIND = 1
const TCA_OPTIONS = 2
// linux/pkt_cls.h
const TCA_BPF_FD = 6
const TCA_BPF_NAME = 7
const TCA_BPF_FLAGS = 8
const DIRECT_ACTION = 1
// linux/pkt_sched.h: the queueing discipline that has no queue, and its two ends.
const CLSACT = 0xffff_fff1
const CLSACT_HANDLE = 0xffff_0000
const ENDS = { ingress: 0xffff_fff2, egress: 0xffff_fff3 }
/** ETH_P_ALL, in network order. */
const EVERY_PROTOCOL = 0x0300
const NAME_BYTES = 256

export interface TcTarget {
  readonly ifindex: number
  readonly direction: 'ingress' | 'egress'
  /** Lower ones run first; 1 to 65535. The kernel's choice by default. */
  readonly priority?: number
  /** Its number among filters of its priority. The kernel's choice by default. */
  readonly handle?: number
  /** What `tc` calls it; `bpftoken` by default. */
  readonly name?: string
}

/**
 * Adds a program of type `sched_cls` as a filter, in direct action: what it returns (TC_ACT_*) is
 * done. Makes the device's `clsact` where there is none. Since Linux 4.5. Needs CAP_NET_ADMIN in
 * the user namespace of the network namespace that we are in. ENODEV: no such device. EEXIST: there
 * is a filter of that priority and handle, or a discipline that keeps `clsact` away. The caller
 * disposes of it.
 */
export function attachTc(program: Program, target: TcTarget): TcFilter {
  const { ifindex, direction, priority = 0, handle = 0, name = 'bpftoken' } = target
  if (Buffer.byteLength(name) >= NAME_BYTES || name.includes('\0'))
    throw new RangeError('a filter has a name below 256 bytes, and no zero in it')
  requireWithin('priority', priority, 0, 0xffff)
  requireWithin('handle', handle, 0, 0xffff_ffff)
  requireWithin('ifindex', ifindex, 1, 0x7fff_ffff)
  makeClsact(ifindex)
  const filter = { ifindex, parent: ENDS[direction], priority, handle }
  const [found] = request('RTM_NEWTFILTER', RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO, filter, [
    ...bpfOptions(program, name),
  ])
  if (found === undefined) throw new Error('the kernel does not tell which filter it made')
  // struct tcmsg: u32 handle @8, u32 priority and protocol @16
  const made = { ...filter, handle: found.readUInt32LE(8), priority: found.readUInt32LE(16) >>> 16 }
  return new TcFilter(made, name)
}

function requireWithin(what: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max)
    throw new RangeError(`${what} is ${value}, and must be ${min} to ${max}`)
}

/** Takes a device's `clsact` away, and all filters that anybody has there. ENOENT: it has none. */
export function removeClsact(ifindex: number): void {
  request('RTM_DELQDISC', RTM_DELQDISC, 0, { ifindex, parent: CLSACT, handle: CLSACT_HANDLE }, [
    text(TCA_KIND, 'clsact'),
  ])
}

interface Place {
  readonly ifindex: number
  readonly parent: number
  readonly handle: number
  readonly priority?: number
}

/** A program among a device's filters. */
export class TcFilter implements Disposable {
  readonly ifindex: number
  readonly priority: number
  readonly handle: number
  readonly #place: Place & { readonly priority: number }
  readonly #name: string
  #ended = false

  constructor(place: Place & { readonly priority: number }, name: string) {
    this.#place = place
    this.#name = name
    this.ifindex = place.ifindex
    this.priority = place.priority
    this.handle = place.handle
  }

  /** Swaps the program without a gap. */
  replace(program: Program): void {
    request('RTM_NEWTFILTER', RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, this.#place, [
      ...bpfOptions(program, this.#name),
    ])
  }

  /** Deletes the filter. ENOENT, ENODEV: it, or its device, is gone already. `clsact` stays. */
  detach(): void {
    if (this.#ended) return
    this.#ended = true
    request('RTM_DELTFILTER', RTM_DELTFILTER, 0, this.#place, [text(TCA_KIND, 'bpf')])
  }

  /** As `detach`; that it is gone already does not matter. */
  [Symbol.dispose](): void {
    try {
      this.detach()
    } catch (error) {
      if (!(error instanceof SyscallError) || !['ENOENT', 'ENODEV', 'EINVAL'].includes(error.errnoName))
        throw error
    }
  }
}

function makeClsact(ifindex: number): void {
  try {
    request(
      'RTM_NEWQDISC',
      RTM_NEWQDISC,
      NLM_F_CREATE | NLM_F_EXCL,
      { ifindex, parent: CLSACT, handle: CLSACT_HANDLE },
      [text(TCA_KIND, 'clsact')],
    )
  } catch (error) {
    // Somebody's is as good; if it is another discipline, adding the filter says so.
    if (!(error instanceof SyscallError) || error.errnoName !== 'EEXIST') throw error
  }
}

function* bpfOptions(program: Program, name: string): Generator<Buffer> {
  yield text(TCA_KIND, 'bpf')
  const options = [
    netlinkAttribute(TCA_BPF_FD, word(program.fd.number)),
    text(TCA_BPF_NAME, name),
    netlinkAttribute(TCA_BPF_FLAGS, word(DIRECT_ACTION)),
  ]
  yield netlinkAttribute(TCA_OPTIONS, Buffer.concat(options))
}

function text(type: number, value: string): Buffer {
  return netlinkAttribute(type, Buffer.from(`${value}\0`))
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/**
 * struct tcmsg, 20 bytes: u8 family, s32 ifindex @4, u32 handle @8, u32 parent @12, u32 info @16.
 */
function request(op: string, type: number, flags: number, place: Place, attributes: Buffer[]): Buffer[] {
  const message = Buffer.alloc(20)
  message.writeInt32LE(place.ifindex, 4)
  message.writeUInt32LE(place.handle, 8)
  message.writeUInt32LE(place.parent, 12)
  if (place.priority !== undefined) message.writeUInt32LE(place.priority * 0x1_0000 + EVERY_PROTOCOL, 16)
  using socket = routeSocket()
  const body = Buffer.concat([message, ...attributes])
  const answers = netlinkRequest(socket, op, type, flags, body, `device ${place.ifindex}`)
  return answers.filter(one => one.type === type && one.body.length >= message.length).map(one => one.body)
}
