/**
 * Remote calls in both directions over one socket of NRI. Whatever is wrong with what comes ends the
 * connection: after that nothing on it can be understood.
 */

import type { Duplex } from 'node:stream'
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf'
import { FormatError, TimeoutError, UnreachableError } from '../errors.ts'
import { CONNECTION, frameOf, MESSAGE, type Message, MessageReader } from './frames.ts'
import { RequestSchema, type Response, ResponseSchema } from './messages/ttrpc_pb.ts'

/** Of google.rpc.Code. */
export const CODE = { unknown: 2, failedPrecondition: 9, unimplemented: 12 } as const

/** What a call is answered with instead of a payload; the runtime shows the text to people. */
export class RefusedCall extends Error {
  readonly code: number

  constructor(message: string, code: number = CODE.failedPrecondition) {
    super(message)
    this.code = code
  }
}

/** Answers a call. RefusedCall: tells the other side why not. */
export type Answer = (method: string, payload: Uint8Array) => Promise<Uint8Array>

/** The runtime waits for each before it makes the next for the same container. */
const MAX_UNANSWERED = 1024
/** What the runtime does not read. */
const MAX_UNREAD_BYTES = 16 << 20
/** Of a text for people. */
const MAX_TEXT_CHARS = 4096

interface Waiting {
  readonly resolve: (response: Response) => void
  readonly reject: (error: Error) => void
}

export class TtrpcLink implements Disposable {
  /** When the connection has ended; with why, if it was not the other side that ended it. */
  readonly ended: Promise<Error | undefined>
  readonly #socket: Duplex
  readonly #answer: Answer
  readonly #waiting = new Map<number, Waiting>()
  #unanswered = 0
  /** Those of whoever begins a stream are odd. */
  #nextStream = 1
  #failure: Error | undefined

  /** The link owns the socket: it ends it, and is over when it ends. */
  constructor(socket: Duplex, answer: Answer) {
    this.#socket = socket
    this.#answer = answer
    const reader = new MessageReader()
    socket.on('data', (bytes: Buffer) => this.#read(reader, bytes))
    socket.on('error', error => this.#end(error))
    // Half of a connection is of no use.
    socket.on('end', () => socket.destroy())
    this.ended = new Promise(resolve => {
      socket.once('close', () => {
        const why = this.#failure
        for (const { reject } of this.#waiting.values())
          reject(why ?? new UnreachableError('The runtime has ended the connection'))
        this.#waiting.clear()
        resolve(why)
      })
    })
  }

  /**
   * Calls a method of the runtime. RefusedCall: it says no; TimeoutError; UnreachableError: the
   * connection ended.
   */
  async call(service: string, method: string, payload: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (this.#socket.destroyed) throw new UnreachableError('The connection with the runtime has ended')
    const stream = this.#nextStream
    this.#nextStream += 2
    let timer: NodeJS.Timeout | undefined
    const answered = new Promise<Response>((resolve, reject) => {
      this.#waiting.set(stream, { resolve, reject })
      timer = setTimeout(
        () => reject(new TimeoutError(`The runtime does not answer ${method}`, { context: { timeoutMs } })),
        timeoutMs,
      )
    })
    const request = create(RequestSchema, {
      service,
      method,
      payload,
      timeoutNano: BigInt(timeoutMs) * 1_000_000n,
    })
    this.#send({
      ...{ connection: CONNECTION.runtime, type: MESSAGE.request, stream },
      data: toBinary(RequestSchema, request),
    })
    try {
      const { status, payload: answer } = await answered
      if (status !== undefined && status.code !== 0) throw new RefusedCall(status.message, status.code)
      return answer
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(stream)
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }

  #read(reader: MessageReader, bytes: Buffer): void {
    // Bytes that came after the one that ended it.
    if (this.#socket.destroyed) return
    try {
      for (const message of reader.read(bytes)) this.#take(message)
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #take({ connection, stream, type, data }: Message): void {
    if (connection === CONNECTION.plugin && type === MESSAGE.request) {
      if (++this.#unanswered > MAX_UNANSWERED)
        throw new FormatError('ttrpc', `more than ${MAX_UNANSWERED} calls wait for an answer`)
      void this.#reply(stream, data)
    } else if (connection === CONNECTION.runtime && type === MESSAGE.response) {
      // One that came too late is nobody's.
      this.#waiting.get(stream)?.resolve(decoded(ResponseSchema, data))
    } else throw new FormatError('NRI', `a message of type ${type} came on connection ${connection}`)
  }

  async #reply(stream: number, data: Uint8Array): Promise<void> {
    let response: Response
    try {
      const { method, payload } = decoded(RequestSchema, data)
      response = create(ResponseSchema, { payload: await this.#answer(method, payload) })
    } catch (error) {
      if (error instanceof FormatError) {
        this.#end(error)
        return
      }
      // Fail closed: an answer that says no makes the runtime give up what it asked about.
      const code = error instanceof RefusedCall ? error.code : CODE.unknown
      const message = String((error as Error)?.message ?? error).slice(0, MAX_TEXT_CHARS)
      response = create(ResponseSchema, { status: { code, message } })
    }
    this.#unanswered--
    this.#send({
      ...{ connection: CONNECTION.plugin, type: MESSAGE.response, stream },
      data: toBinary(ResponseSchema, response),
    })
  }

  #send(message: Message): void {
    if (this.#socket.destroyed) return
    this.#socket.write(frameOf(message))
    if (this.#socket.writableLength > MAX_UNREAD_BYTES)
      this.#end(new TimeoutError('The runtime does not read what it is answered'))
  }

  #end(error: Error): void {
    this.#failure ??= error
    this.#socket.destroy()
  }
}

/** FormatError: it is no message of this type. */
export function decoded<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> {
  try {
    return fromBinary(schema, bytes)
  } catch (error) {
    throw new FormatError(schema.typeName, (error as Error).message, { cause: error })
  }
}
