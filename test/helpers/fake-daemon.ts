/** What stands in for a daemon on a Unix socket, and says what a test wants said. */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { Scratch } from './scratch.ts'

/** What it was asked. */
export interface Heard {
  readonly line: string
  readonly headers: IncomingMessage['headers']
  readonly body: unknown
}

export class FakeDaemon implements AsyncDisposable {
  readonly #scratch = new Scratch()
  readonly socket = `${this.#scratch.path}/daemon.sock`
  readonly heard: Heard[] = []
  readonly #sockets = new Set<Socket>()
  readonly #server: Server
  /** How many connections there were. */
  connections = 0

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket: Socket) => {
      this.connections++
      this.#sockets.add(socket)
      socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket))
    })
  }

  /** Speaks HTTP; `answer` gets each request in turn. */
  static async http(answer: (heard: Heard, to: ServerResponse) => void): Promise<FakeDaemon> {
    const server = createHttpServer(async (request, to) => {
      // A client that goes away in the midst of it: that is its right.
      const sent = await text(request).catch(() => '')
      const heard: Heard = {
        line: `${request.method} ${request.url}`,
        headers: request.headers,
        body: sent === '' ? undefined : JSON.parse(sent),
      }
      daemon.heard.push(heard)
      answer(heard, to)
    })
    const daemon = new FakeDaemon(server)
    await daemon.listen()
    return daemon
  }

  /** Speaks whatever `talk` does. */
  static async raw(talk: (socket: Socket) => void): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(createServer(talk))
    await daemon.listen()
    return daemon
  }

  listen(): Promise<void> {
    return new Promise(resolve => this.#server.listen(this.socket, resolve))
  }

  /** Nobody listens any more, and every connection is broken. */
  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (this.#server.listening) await new Promise(resolve => this.#server.close(resolve))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    this.#scratch[Symbol.dispose]()
  }
}

export function sayJson(to: ServerResponse, status: number, document: unknown): void {
  to.writeHead(status, {
    'content-type': status < 400 ? 'application/json' : 'application/problem+json',
  }).end(JSON.stringify(document))
}

export function sayProblem(to: ServerResponse, status: number, problem: object): void {
  sayJson(to, status, { type: 'about:blank', title: 'No', status, ...problem })
}
