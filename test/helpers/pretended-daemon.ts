/**
 * A server that answers on a socket as bpftokend does, with whatever a test wants. For tests of
 * clients.
 */
import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { native } from '../../src/sys/native.ts'
import { Scratch } from './scratch.ts'

const SOL_SOCKET = 1
const SO_PEERCRED = 17

export interface Asked {
  readonly method: string
  readonly path: string
  readonly body: unknown
  /** The process at the other end of the connection. */
  readonly pid: number
  readonly uid: number
}

export interface Said {
  readonly status: number
  readonly body: unknown
}

/** Makes the answer. undefined: it has answered by itself. */
export type Answer = (asked: Asked, response: ServerResponse) => Promise<Said | undefined> | Said | undefined

export class PretendedDaemon implements AsyncDisposable {
  readonly socket: string
  readonly asked: Asked[] = []
  readonly #server = createServer((request, response) => void this.#serve(request, response))
  readonly #scratch: Scratch
  #answer: Answer

  private constructor(answer: Answer) {
    this.#answer = answer
    this.#scratch = new Scratch()
    this.socket = join(this.#scratch.path, 'socket')
  }

  static async start(answer: Answer): Promise<PretendedDaemon> {
    const daemon = new PretendedDaemon(answer)
    daemon.#server.listen(daemon.socket)
    await once(daemon.#server, 'listening')
    chmodSync(daemon.socket, 0o666)
    return daemon
  }

  set answer(answer: Answer) {
    this.#answer = answer
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const peer = peerOf(request.socket)
    const given = await text(request)
    const asked: Asked = {
      ...{ method: request.method!, path: request.url!, ...peer },
      body: given === '' ? undefined : JSON.parse(given),
    }
    this.asked.push(asked)
    try {
      const said = await this.#answer(asked, response)
      if (said === undefined) return
      const type = said.status < 400 ? 'application/json' : 'application/problem+json'
      response.writeHead(said.status, { 'content-type': type }).end(JSON.stringify(said.body))
    } catch (error) {
      response.writeHead(500).end(JSON.stringify({ detail: String(error) }))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
    this.#scratch[Symbol.dispose]()
  }
}

/** struct ucred: pid, uid, gid. */
function peerOf(socket: Socket): { pid: number; uid: number } {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
  const bytes = new Uint8Array(12)
  const length = new Uint8Array(Uint32Array.of(bytes.length).buffer)
  if (native().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, bytes, length) !== 0) throw new Error('SO_PEERCRED')
  const view = new DataView(bytes.buffer)
  return { pid: view.getInt32(0, true), uid: view.getUint32(4, true) }
}
