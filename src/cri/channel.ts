/**
 * gRPC over a Unix socket by Node's own HTTP/2: calls with one message each way. A package for it
 * brings thirty more for what is a frame of five bytes.
 */
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2'
import { connect } from 'node:net'
import { FormatError, TimeoutError, UnreachableError } from '../errors.ts'

/** A flag of compression, which is not used, and the length of the message, big-endian. */
const HEADER_BYTES = 5
const MAX_ANSWER_BYTES = 1 << 20
const OK = '0'

/** The peer has answered with an error; its message is the peer's own. */
export class GrpcError extends Error {}

export class GrpcChannel implements Disposable {
  readonly #session: ClientHttp2Session
  readonly #socket: string

  /** It connects now; each call is told if it cannot. */
  constructor(socket: string) {
    this.#socket = socket
    this.#session = connectHttp2('http://localhost', { createConnection: () => connect(socket) })
    this.#session.on('error', () => {})
  }

  /**
   * `method`: as `/package.Service/Name`. GrpcError: the peer's own words. TimeoutError.
   * UnreachableError: nobody is there. FormatError: it is no message, or longer than 1 MiB.
   */
  call(method: string, message: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    const frame = Buffer.alloc(HEADER_BYTES + message.length)
    frame.writeUInt32BE(message.length, 1)
    frame.set(message, HEADER_BYTES)
    return new Promise((resolve, reject) => {
      const stream = this.#session.request({
        ':method': 'POST',
        ':path': method,
        'content-type': 'application/grpc',
        te: 'trailers',
      })
      const timer = setTimeout(
        () => fail(new TimeoutError(`${method} was not answered within ${timeoutMs} ms`)),
        timeoutMs,
      )
      const fail = (error: Error): void => {
        clearTimeout(timer)
        reject(error)
        stream.close(constants.NGHTTP2_CANCEL)
      }
      const chunks: Buffer[] = []
      let bytes = 0
      let status: string | undefined
      let said = ''
      const read = (headers: object): void => {
        const { 'grpc-status': code, 'grpc-message': text } = headers as Record<string, string | undefined>
        status = code ?? status
        said = text ?? said
      }
      stream
        .on('response', read)
        .on('trailers', read)
        .on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > MAX_ANSWER_BYTES) fail(new FormatError('answer', 'it is longer than 1 MiB'))
          else chunks.push(chunk)
        })
        .on('error', cause =>
          fail(new UnreachableError(`Nobody answers at ${this.#socket}`, { cause: cause as Error })),
        )
        .once('end', () => {
          clearTimeout(timer)
          if (status !== OK) return fail(new GrpcError(`${method}: ${unescaped(said) || `status ${status}`}`))
          const answer = Buffer.concat(chunks)
          if (answer.length < HEADER_BYTES || answer.readUInt32BE(1) !== answer.length - HEADER_BYTES)
            return fail(new FormatError('answer', `${method} was not answered with one message`))
          resolve(answer.subarray(HEADER_BYTES))
        })
      stream.end(frame)
    })
  }

  [Symbol.dispose](): void {
    this.#session.destroy()
  }
}

/** As gRPC has it: what is no printable ASCII is written as %XX. */
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
