/** A server on a Unix socket that answers as a test tells it to. It stands in for the daemon. */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { Scratch } from './scratch.ts'

/** One request that it got. */
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
      // A client may go away before it has the whole answer.
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

  /** Gives each connection to `talk`, which writes what it likes. */
  static async raw(talk: (socket: Socket) => void): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(createServer(talk))
    await daemon.listen()
    return daemon
  }

  listen(): Promise<void> {
    return new Promise(resolve => this.#server.listen(this.socket, resolve))
  }

  /** Stops listening and breaks every connection. */
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
