/**
 * One request and its answer over the Unix socket. Node's HTTP is loaded with the first: who only
 * imports the door does not pay for it.
 */
import type { Agent, ClientRequest, IncomingMessage } from 'node:http'
import { BpftokenError, BusyError, FormatError, UnreachableError } from '../errors.ts'

export interface Asked {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/**
 * The connection broke before there was an answer: what was asked for may be done, or not. For who
 * can ask again; thrown on, it says just that.
 */
export class BrokenError extends UnreachableError {}

/**
 * Sends it, and gives the answer once its head is there; its body is still to be read. The signal
 * ends both. UnreachableError: nobody listens; BrokenError: it went away without an answer.
 */
export async function send(
  socket: string,
  asked: Asked,
  { agent, signal }: { agent: Agent | undefined; signal: AbortSignal },
): Promise<IncomingMessage> {
  const { request } = await import('node:http')
  signal.throwIfAborted()
  const { method, path, headers, body } = asked
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }
    const sent: ClientRequest = request({
      ...{ socketPath: socket, method, path, headers: { ...headers, ...length }, signal },
      // Node takes the name for the header `host`, which HTTP wants.
      host: 'localhost',
      agent: agent ?? false,
    })
    sent.once('response', resolve)
    sent.on('error', error => reject(signal.aborted ? signal.reason : failureOf(error, socket)))
    sent.end(body)
  })
}

/** All of it. FormatError: it is longer than that; BrokenError: it ended early. */
export async function bodyOf(
  answer: IncomingMessage,
  socket: string,
  { maxBytes, signal }: { maxBytes: number; signal: AbortSignal },
): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > maxBytes) throw tooLong(maxBytes)
      chunks.push(chunk)
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason
    throw error instanceof BpftokenError ? error : failureOf(error, socket)
  }
  return Buffer.concat(chunks).toString('utf8')
}

export function tooLong(maxBytes: number): FormatError {
  return new FormatError('answer', `it has more than ${maxBytes} bytes`, {
    hint: 'Ask for less at once',
  })
}

const NOBODY_LISTENS = ['ENOENT', 'ECONNREFUSED', 'ENOTDIR', 'ENOTSOCK', 'EPROTOTYPE']

/** What a failure of the connection means. */
export function failureOf(error: unknown, socket: string): BpftokenError {
  const { code = '', syscall, message } = error as NodeJS.ErrnoException
  const context = { socket, errno: code }
  if (code.startsWith('HPE_'))
    return new FormatError('HTTP', `what answers at ${socket} speaks none: ${message}`)
  if (syscall === 'connect') {
    if (code === 'EAGAIN')
      return new BusyError(`Too many wait to be connected with the daemon at ${socket}`, { context })
    const why = NOBODY_LISTENS.includes(code) ? 'No daemon answers' : 'The daemon cannot be asked'
    return new UnreachableError(`${why} at ${socket} (${code})`, { context })
  }
  return new BrokenError(
    `The daemon at ${socket} went away before it had answered${code === '' ? '' : ` (${code})`}: whether it did what was asked is not known`,
    { context },
  )
}
