/**
 * The page's HTTP server. It knows who comes and what may be asked, and nothing of the daemon: `ask`
 * does.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Ask, askIn, type Told } from './asks.ts'
import { cookieIn, cookieName, HEADERS, MAX_BODY_BYTES, type Refusal, type Wanted, wanted } from './gate.ts'
import { hostOf, type Listen } from './listen.ts'
import type { Session, Sessions } from './sessions.ts'

export interface PageFile {
  readonly type: string
  readonly content: Buffer
}

export interface PageOptions {
  readonly sessions: Sessions
  readonly files: ReadonlyMap<string, PageFile>
  readonly ask: (ask: Ask) => Promise<Told>
  /** What a browser says in `Host`, where that is not the address it listens at. */
  readonly host?: string | undefined
}

const MAX_HEADER_BYTES = 8 * 1024
const MAX_CONNECTIONS = 64
const HEADERS_MS = 5_000
const REQUEST_MS = 10_000
const IDLE_MS = 10_000
const SWEEP_MS = 1_000

export class PageServer {
  readonly #options: PageOptions
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #host = ''
  /** What is looked at just now: any number of browsers load the daemon as one does. */
  #look: Promise<Told> | undefined

  constructor(options: PageOptions) {
    this.#options = options
    this.#server = createServer({
      insecureHTTPParser: false,
      requireHostHeader: true,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: IDLE_MS,
      connectionsCheckingInterval: SWEEP_MS,
    })
    this.#server.maxHeadersCount = 0
    this.#server.maxConnections = MAX_CONNECTIONS
    this.#server.on('connection', socket => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    this.#server.on('request', (req, res) => void this.#serve(req, res))
    // What waits to be told to go on is not told: nothing that is sent here is that long.
    this.#server.on('checkContinue', (req, res) => this.#refuse(req, res, 403))
    this.#server.on('checkExpectation', (req, res) => this.#refuse(req, res, 403))
    this.#server.on('upgrade', (_, socket) => socket.destroy())
    this.#server.on('clientError', (error: NodeJS.ErrnoException, stream) => {
      const socket = stream as Socket
      if (error.code !== 'ECONNRESET' && socket.writable)
        socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
      // Not only our half of it: the other side may never close its own.
      socket.destroySoon()
    })
  }

  /** What a browser is to say in `Host`. Nothing is taken before the next turn of the event loop. */
  listen(listen: Listen): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen({ ...listen, exclusive: true }, () => {
        this.#server.off('error', reject)
        const at = this.#server.address()
        if (this.#options.host !== undefined) this.#host = this.#options.host
        else if (typeof at === 'string' || at === null) this.#host = 'localhost'
        else this.#host = hostOf({ host: at.address, port: at.port })
        resolve(this.#host)
      })
    })
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  async #serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    res.on('error', () => {})
    try {
      const asked = wanted(req, this.#host)
      if (typeof asked === 'number') this.#refuse(req, res, this.#known(req) ? asked : 403)
      else await this.#answer(asked, req, res)
    } catch {
      // A defect of ours, or the other process has gone: nothing of it is for a browser.
      if (res.headersSent) res.destroy()
      else this.#end(res, 500)
    }
  }

  async #answer(asked: Wanted, req: IncomingMessage, res: ServerResponse): Promise<void> {
    if (asked.what === 'enter') {
      this.#enter(asked.secret, req, res)
      return
    }
    if (asked.what === 'file') {
      const file = this.#options.files.get(asked.name)
      if (this.#known(req) === undefined || file === undefined) this.#refuse(req, res, 403)
      else this.#send(res, 200, file.type, file.content)
      return
    }
    const session = this.#session(req)
    if (session === undefined) {
      this.#refuse(req, res, 403)
      return
    }
    if (asked.what === 'look') {
      const { status, body } = await this.#looked()
      this.#document(res, status, `{"role":"${session.role}","now":${Date.now()},"seen":${body}}`)
      return
    }
    if (session.role !== 'operator') {
      this.#refuse(req, res, 403)
      return
    }
    const body = await bodyOf(req)
    const ask = typeof body === 'number' ? undefined : askIn(body.document)
    if (typeof body === 'number') this.#refuse(req, res, body)
    else if (ask === undefined || ask.what === 'look') this.#refuse(req, res, 400)
    else {
      const { status, body: told } = await this.#options.ask(ask)
      this.#document(res, status, told)
    }
  }

  #enter(secret: string, req: IncomingMessage, res: ServerResponse): void {
    const entered = this.#options.sessions.enter(secret)
    if (entered === 'wrong') this.#refuse(req, res, 403)
    else if (entered === 'later') this.#refuse(req, res, 429)
    else {
      const cookie = `${cookieName(this.#host)}=${entered.cookie}; HttpOnly; SameSite=Strict; Path=/`
      // The fragment goes to nobody; the page keeps it, and takes it out of the address.
      res.writeHead(303, { ...HEADERS, 'Set-Cookie': cookie, Location: `/#${entered.key}` }).end()
    }
  }

  #looked(): Promise<Told> {
    this.#look ??= this.#options.ask({ what: 'look' }).finally(() => {
      this.#look = undefined
    })
    return this.#look
  }

  #known(req: IncomingMessage): Session | undefined {
    const cookie = cookieIn(req.headers.cookie, cookieName(this.#host))
    return cookie === undefined ? undefined : this.#options.sessions.byCookie(cookie)
  }

  #session(req: IncomingMessage): Session | undefined {
    const cookie = cookieIn(req.headers.cookie, cookieName(this.#host))
    const key = req.headers['x-bpftoken-key']
    if (cookie === undefined || typeof key !== 'string') return undefined
    return this.#options.sessions.byCookieAndKey(cookie, key)
  }

  /** The rest of what was sent is not read: it could be taken for a request. */
  #refuse(_: IncomingMessage, res: ServerResponse, status: Refusal): void {
    res.setHeader('Connection', 'close')
    if (status === 429) res.setHeader('Retry-After', '1')
    this.#end(res, status)
  }

  #end(res: ServerResponse, status: number): void {
    res.writeHead(status, { ...HEADERS, 'Content-Length': '0' }).end()
  }

  #document(res: ServerResponse, status: number, text: string): void {
    this.#send(res, status, 'application/json', Buffer.from(text))
  }

  #send(res: ServerResponse, status: number, type: string, content: Buffer): void {
    res.writeHead(status, { ...HEADERS, 'Content-Type': type, 'Content-Length': content.length })
    res.end(content)
  }
}

/** The document of a body, bounded in length; Node bounds its time. */
function bodyOf(req: IncomingMessage): Promise<{ readonly document: unknown } | Refusal> {
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    let bytes = 0
    req.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > MAX_BODY_BYTES) resolve(413)
      else chunks.push(chunk)
    })
    req.once('error', () => resolve(400))
    req.once('close', () => resolve(400))
    req.once('end', () => {
      try {
        resolve({ document: JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown })
      } catch {
        resolve(400)
      }
    })
  })
}
