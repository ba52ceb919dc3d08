/** The command `page` with a daemon that lends nothing, and raw HTTP requests to that page. */
import type { ChildProcess } from 'node:child_process'
import { type IncomingHttpHeaders, request } from 'node:http'
import { connect } from 'node:net'
import { startCli } from './cli.ts'
import { eventually } from './eventually.ts'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

export interface Ask {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

/** What a browser holds after it has opened an address. */
export interface Visitor {
  readonly cookie: string
  readonly key: string
}

export class Page implements AsyncDisposable {
  readonly child: ChildProcess
  readonly #ended: Promise<number | NodeJS.Signals | null>
  #stdout = ''
  stderr = ''
  viewer = ''
  operator: string | undefined

  private constructor(words: readonly string[]) {
    this.child = startCli(['page', '--json', ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.child.stdout!.on('data', chunk => {
      this.#stdout += chunk
    })
    this.child.stderr!.on('data', chunk => {
      this.stderr += chunk
    })
    this.#ended = new Promise(resolve => {
      this.child.once('exit', (status, signal) => resolve(status ?? signal))
    })
  }

  static async start(daemon: string, ...words: string[]): Promise<Page> {
    const page = new Page(['--socket', daemon, ...words])
    await eventually(() => {
      if (page.child.exitCode !== null) throw new Error(`page ended: ${page.stderr}`)
      return page.#stdout.includes('\n}')
    }, 'page prints no address')
    const { viewer, operator } = JSON.parse(page.#stdout)
    page.viewer = viewer
    page.operator = operator
    return page
  }

  /** `127.0.0.1:PORT`. */
  get host(): string {
    return new URL(this.viewer).host
  }

  get port(): number {
    return Number(new URL(this.viewer).port)
  }

  /** One request, with no header that is not named. */
  ask(path: string, { method, headers = {}, body }: Ask = {}): Promise<Answer> {
    return ask({ host: '127.0.0.1', port: this.port }, path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: { host: this.host, ...headers },
      ...(body !== undefined && { body }),
    })
  }

  /** Opens an address. */
  async enter(address: string = this.viewer): Promise<Visitor> {
    const answer = await this.ask(new URL(address).pathname, { headers: { 'sec-fetch-site': 'none' } })
    return visitorOf(answer)
  }

  /** A request as the page's own code makes it. `of` may replace its headers. */
  as({ cookie, key }: Visitor, path: string, of: Ask = {}): Promise<Answer> {
    return this.ask(path, { ...of, headers: { cookie, 'x-bpftoken-key': key, ...of.headers } })
  }

  /** A POST as the page's own code makes it. */
  act(visitor: Visitor, what: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    return this.as(visitor, '/act', {
      body: typeof what === 'string' ? what : JSON.stringify(what),
      headers: { ...this.ours, ...headers },
    })
  }

  get ours(): Record<string, string> {
    return {
      origin: `http://${this.host}`,
      'sec-fetch-site': 'same-origin',
      'content-type': 'application/json',
    }
  }

  /** Sends raw bytes, and gives all that comes back until the other side closes. */
  raw(bytes: string): Promise<string> {
    return new Promise(resolve => {
      let text = ''
      const socket = connect({ host: '127.0.0.1', port: this.port })
      socket.setEncoding('utf8').on('data', chunk => {
        text += chunk
      })
      socket.on('error', () => {}).on('close', () => resolve(text))
      socket.write(bytes)
    })
  }

  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | NodeJS.Signals | null> {
    this.child.kill(signal)
    return this.#ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }
}

export function visitorOf({ status, headers }: Answer): Visitor {
  const [, cookie] = /^([^;]+);/.exec(headers['set-cookie']?.[0] ?? '') ?? []
  const [, key] = /^\/#(.+)$/.exec(headers.location ?? '') ?? []
  if (cookie === undefined || key === undefined) throw new Error(`the address is not good: ${status}`)
  return { cookie, key }
}

export function ask(
  place: { readonly host: string; readonly port: number } | { readonly socketPath: string },
  path: string,
  { method = 'GET', headers = {}, body }: Ask,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }
    const req = request({ ...place, path, method, agent: false, headers: { ...length, ...headers } }, res => {
      let text = ''
      res.setEncoding('utf8').on('data', chunk => {
        text += chunk
      })
      res.on('error', reject)
      res.on('end', () => resolve({ status: res.statusCode!, headers: res.headers, text }))
    })
    req.on('error', reject)
    req.end(body)
  })
}
