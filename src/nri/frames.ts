/**
 * Pure: bytes of NRI's connection as messages of ttrpc, and back. Two layers of headers, all numbers
 * big-endian:
 *
 *   frame    8 bytes: number of the connection (4), length of the payload (4)
 *   message 10 bytes: length of the data (4), number of the stream (4), type (1), flags (1)
 *
 * The frames carry two connections over one socket, and a message may be spread over frames.
 * Sources: containerd/nri, pkg/net/multiplex; containerd/ttrpc, PROTOCOL.md.
 */
import { FormatError } from '../errors.ts'
import { ByteQueue } from './byte-queue.ts'

/** The runtime asks us on the first, and we ask the runtime on the second. */
export const CONNECTION = { plugin: 1, runtime: 2 } as const
export type Connection = (typeof CONNECTION)[keyof typeof CONNECTION]

/** Of ttrpc. Its third, of streams, is none that NRI uses. */
export const MESSAGE = { request: 1, response: 2 } as const
export type MessageType = (typeof MESSAGE)[keyof typeof MESSAGE]

const FRAME_HEADER_BYTES = 8
const MESSAGE_HEADER_BYTES = 10
/** As ttrpc has it. */
export const MAX_DATA_BYTES = 4 << 20
const MAX_PAYLOAD_BYTES = MESSAGE_HEADER_BYTES + MAX_DATA_BYTES

export interface Message {
  readonly connection: Connection
  readonly stream: number
  readonly type: MessageType
  readonly data: Uint8Array
}

/** The message in one frame. FormatError: it is longer than ttrpc takes. */
export function frameOf({ connection, stream, type, data }: Message): Uint8Array {
  if (data.length > MAX_DATA_BYTES) throw new FormatError('ttrpc', `a message has ${data.length} bytes`)
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + MESSAGE_HEADER_BYTES + data.length)
  frame.writeUInt32BE(connection, 0)
  frame.writeUInt32BE(MESSAGE_HEADER_BYTES + data.length, 4)
  frame.writeUInt32BE(data.length, 8)
  frame.writeUInt32BE(stream, 12)
  frame.writeUInt8(type, 16)
  frame.set(data, FRAME_HEADER_BYTES + MESSAGE_HEADER_BYTES)
  return frame
}

/**
 * Finds the messages in what comes. What is kept while a message is not whole is bounded: two
 * messages and a frame of the greatest length.
 */
export class MessageReader {
  readonly #bytes = new ByteQueue()
  readonly #payloads: Readonly<Record<Connection, ByteQueue>> = { 1: new ByteQueue(), 2: new ByteQueue() };

  /** FormatError: it is not what NRI sends; nothing after it can be read. */
  *read(bytes: Uint8Array): Generator<Message, void, undefined> {
    this.#bytes.push(bytes)
    for (;;) {
      const header = this.#bytes.peek(FRAME_HEADER_BYTES)
      if (header === undefined) return
      const connection = header.readUInt32BE(0)
      if (connection !== CONNECTION.plugin && connection !== CONNECTION.runtime)
        throw new FormatError('NRI', `a frame is for connection ${connection}, which there is not`)
      const length = header.readUInt32BE(4)
      if (length > MAX_PAYLOAD_BYTES) throw new FormatError('NRI', `a frame has ${length} bytes`)
      if (this.#bytes.length < FRAME_HEADER_BYTES + length) return
      this.#bytes.take(FRAME_HEADER_BYTES)
      const payload = this.#payloads[connection]
      payload.push(this.#bytes.take(length))
      yield* messagesIn(payload, connection)
    }
  }
}

function* messagesIn(payload: ByteQueue, connection: Connection): Generator<Message, void, undefined> {
  for (;;) {
    const header = payload.peek(MESSAGE_HEADER_BYTES)
    if (header === undefined) return
    const length = header.readUInt32BE(0)
    if (length > MAX_DATA_BYTES) throw new FormatError('ttrpc', `a message has ${length} bytes`)
    const stream = header.readUInt32BE(4)
    const type = header.readUInt8(8)
    if (type !== MESSAGE.request && type !== MESSAGE.response)
      throw new FormatError('ttrpc', `a message has type ${type}, which NRI does not use`)
    if (payload.length < MESSAGE_HEADER_BYTES + length) return
    payload.take(MESSAGE_HEADER_BYTES)
    yield { connection, stream, type, data: payload.take(length) }
  }
}
