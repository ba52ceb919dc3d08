/**
 * Packets that we send to ourselves over the loopback device, so that a program that is tried has
 * something to see: a UDP datagram and a TCP connection at a time.
 */
import { createSocket, type Socket as Datagrams } from 'node:dgram'
import { connect, createServer, type Server, type Socket } from 'node:net'

const HOST = '127.0.0.1'
const TEXT = 'bpftoken'

/** Packets may be dropped. So nothing here waits for an answer, and no failure matters to us. */
export class LoopbackTraffic implements Disposable {
  readonly #server: Server
  readonly #open = new Set<Socket | Datagrams>()

  constructor() {
    this.#server = createServer(peer => this.#keep(peer).end()).on('error', () => {})
    this.#server.listen(0, HOST)
  }

  send(): void {
    // A connection that has not come about since the last time will not.
    this.#closeAll()
    const socket = createSocket('udp4').on('error', () => {})
    this.#open.add(socket)
    socket.bind(0, HOST, () => {
      if (this.#open.has(socket)) socket.send(TEXT, socket.address().port, HOST, () => {})
    })
    const address = this.#server.address()
    if (typeof address === 'object' && address !== null) this.#keep(connect(address.port, HOST)).end(TEXT)
  }

  #keep(socket: Socket): Socket {
    this.#open.add(socket)
    return socket
      .on('error', () => {})
      .on('close', () => this.#open.delete(socket))
      .resume()
  }

  #closeAll(): void {
    for (const socket of this.#open) {
      if ('destroy' in socket) socket.destroy()
      else socket.close()
    }
    this.#open.clear()
  }

  [Symbol.dispose](): void {
    this.#server.close()
    this.#closeAll()
  }
}
