/**
 * Packets for tests, layer by layer: `packet(ethernet(), ipv4(), tcp({ destinationPort: 80 }), 'GET')`.
 * Lengths, types of what follows, and checksums are filled in. Pure.
 *
 * Kept small on purpose: what is not here is written as bytes, which any layer may be.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { InputError } from '../../errors.ts'

/** One header, made when what follows it is known. */
export interface Layer {
  /** Number by which an Ethernet header and an IP header announce it. */
  readonly etherType?: number
  readonly protocol?: number
  /** The header with `payload` behind it. */
  readonly wrap: (payload: Uint8Array, next: Layer | undefined, outer: Layer | undefined) => Uint8Array
  /** Of an IP header: what the checksums of the layer in it begin with. */
  readonly pseudoHeader?: (protocol: number, length: number) => Uint8Array
}

const IPV4 = 0x0800
const IPV6 = 0x86dd
const TCP = 6
const UDP = 17
const MAX_PACKET_BYTES = 65535

/** Layers from the outermost to the payload, which may be bytes or text. */
export function packet(...parts: readonly (Layer | Uint8Array | string)[]): Uint8Array {
  let bytes: Uint8Array = new Uint8Array()
  for (let i = parts.length - 1; i >= 0; i--) {
    const part = parts[i]!
    if (typeof part === 'string') bytes = joined(new TextEncoder().encode(part), bytes)
    else if (part instanceof Uint8Array) bytes = joined(part, bytes)
    else bytes = part.wrap(bytes, layerAt(parts, i + 1), layerAt(parts, i - 1))
    if (bytes.length > MAX_PACKET_BYTES)
      throw new InputError(`A packet has ${MAX_PACKET_BYTES} bytes at most`, {
        context: { bytes: bytes.length },
      })
  }
  return bytes
}

function layerAt(parts: readonly (Layer | Uint8Array | string)[], at: number): Layer | undefined {
  const part = parts[at]
  return typeof part === 'object' && !(part instanceof Uint8Array) ? part : undefined
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** 14 bytes. Addresses as `02:00:00:00:00:01`; `type` where what follows does not say it. */
export function ethernet(
  options: { readonly source?: string; readonly destination?: string; readonly type?: number } = {},
): Layer {
  const { source = '02:00:00:00:00:01', destination = '02:00:00:00:00:02' } = options
  const head = joined(macBytes(destination), macBytes(source), new Uint8Array(2))
  return {
    wrap(payload, next) {
      new DataView(head.buffer).setUint16(12, options.type ?? next?.etherType ?? 0)
      return joined(head, payload)
    },
  }
}

/** 20 bytes. `protocol` where what follows does not say it. */
export function ipv4(
  options: {
    readonly source?: string
    readonly destination?: string
    readonly protocol?: number
    readonly ttl?: number
    readonly tos?: number
    readonly id?: number
  } = {},
): Layer {
  const source = ipv4Bytes(options.source ?? '10.0.0.1')
  const destination = ipv4Bytes(options.destination ?? '10.0.0.2')
  return {
    etherType: IPV4,
    wrap(payload, next) {
      const head = new Uint8Array(20)
      const view = new DataView(head.buffer)
      head[0] = 0x45
      head[1] = byte('tos', options.tos ?? 0)
      view.setUint16(2, 20 + payload.length)
      view.setUint16(4, short('id', options.id ?? 0))
      head[8] = byte('ttl', options.ttl ?? 64)
      head[9] = byte('protocol', options.protocol ?? next?.protocol ?? 0)
      head.set(source, 12)
      head.set(destination, 16)
      view.setUint16(10, checksum(head))
      return joined(head, payload)
    },
    pseudoHeader(protocol, length) {
      const tail = new Uint8Array(4)
      tail[1] = protocol
      new DataView(tail.buffer).setUint16(2, length)
      return joined(source, destination, tail)
    },
  }
}

/** 40 bytes. `nextHeader` where what follows does not say it. */
export function ipv6(
  options: {
    readonly source?: string
    readonly destination?: string
    readonly nextHeader?: number
    readonly hopLimit?: number
  } = {},
): Layer {
  const source = ipv6Bytes(options.source ?? 'fd00::1')
  const destination = ipv6Bytes(options.destination ?? 'fd00::2')
  return {
    etherType: IPV6,
    wrap(payload, next) {
      const head = new Uint8Array(40)
      head[0] = 0x60
      new DataView(head.buffer).setUint16(4, payload.length)
      head[6] = byte('nextHeader', options.nextHeader ?? next?.protocol ?? 59)
      head[7] = byte('hopLimit', options.hopLimit ?? 64)
      head.set(source, 8)
      head.set(destination, 24)
      return joined(head, payload)
    },
    pseudoHeader(protocol, length) {
      const tail = new Uint8Array(8)
      new DataView(tail.buffer).setUint32(0, length)
      tail[7] = protocol
      return joined(source, destination, tail)
    },
  }
}

/** Bits of the 14th byte of a TCP header. */
const TCP_FLAGS = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 } as const

/** 20 bytes, with the checksum that the IP header around it wants. */
export function tcp(
  options: {
    readonly sourcePort?: number
    readonly destinationPort?: number
    readonly sequence?: number
    readonly acknowledgement?: number
    readonly flags?: readonly (keyof typeof TCP_FLAGS)[]
    readonly window?: number
  } = {},
): Layer {
  return {
    protocol: TCP,
    wrap(payload, _, outer) {
      const head = new Uint8Array(20)
      const view = new DataView(head.buffer)
      view.setUint16(0, short('sourcePort', options.sourcePort ?? 40000))
      view.setUint16(2, short('destinationPort', options.destinationPort ?? 80))
      view.setUint32(4, (options.sequence ?? 0) >>> 0)
      view.setUint32(8, (options.acknowledgement ?? 0) >>> 0)
      head[12] = 5 << 4
      for (const flag of options.flags ?? ['syn']) head[13]! |= TCP_FLAGS[flag]
      view.setUint16(14, short('window', options.window ?? 65535))
      return withChecksum(joined(head, payload), 16, TCP, outer)
    },
  }
}

/** 8 bytes, with the checksum that the IP header around it wants. */
export function udp(
  options: { readonly sourcePort?: number; readonly destinationPort?: number } = {},
): Layer {
  return {
    protocol: UDP,
    wrap(payload, _, outer) {
      const head = new Uint8Array(8)
      const view = new DataView(head.buffer)
      view.setUint16(0, short('sourcePort', options.sourcePort ?? 40000))
      view.setUint16(2, short('destinationPort', options.destinationPort ?? 53))
      view.setUint16(4, 8 + payload.length)
      return withChecksum(joined(head, payload), 6, UDP, outer)
    },
  }
}

function withChecksum(
  segment: Uint8Array,
  at: number,
  protocol: number,
  outer: Layer | undefined,
): Uint8Array {
  const pseudo = outer?.pseudoHeader?.(protocol, segment.length)
  if (pseudo === undefined) return segment
  const sum = checksum(joined(pseudo, segment))
  // Of UDP, zero would mean that there is none.
  new DataView(segment.buffer).setUint16(at, sum === 0 ? 0xffff : sum)
  return segment
}

/** RFC 1071. */
function checksum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

function byte(what: string, value: number): number {
  return within(what, value, 0xff)
}

function short(what: string, value: number): number {
  return within(what, value, 0xffff)
}

function within(what: string, value: number, max: number): number {
  if (Number.isInteger(value) && value >= 0 && value <= max) return value
  throw new InputError(`${what} takes 0 to ${max}, not ${value}`, { context: { [what]: value } })
}

function macBytes(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i.test(text))
    throw new InputError(`"${text}" is no Ethernet address`, { hint: 'Write it as 02:00:00:00:00:01' })
  return Uint8Array.from(text.split(':'), part => Number.parseInt(part, 16))
}

function ipv4Bytes(text: string): Uint8Array {
  if (!isIPv4(text)) throw new InputError(`"${text}" is no IPv4 address`)
  return Uint8Array.from(text.split('.'), Number)
}

function ipv6Bytes(text: string): Uint8Array {
  if (!isIPv6(text) || text.includes('%') || text.includes('.'))
    throw new InputError(`"${text}" is no IPv6 address in plain hexadecimal`)
  const [before = '', after] = text.split('::')
  const groups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map(group => Number.parseInt(group, 16))
  const [first, last] = [groups(before), groups(after ?? '')]
  const all = [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last]
  return Uint8Array.from(all.flatMap(group => [group >> 8, group & 0xff]))
}
