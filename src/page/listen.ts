/** Where the page listens, and by which name a browser comes there. Pure. */
import { isIPv4 } from 'node:net'
import { InputError } from '../errors.ts'

export type Listen =
  | { readonly host: string; readonly port: number }
  /** A Unix socket. */
  | { readonly path: string }

/** The longest path that sockaddr_un of unix(7) holds, in bytes. */
const MAX_PATH_BYTES = 107
const MAX_PORT = 65_535

/**
 * `127.0.0.1:0`, `[::1]:8080` or `unix:/run/x.sock`. InputError: it is none, or other machines would
 * reach it: what goes over a network needs more than this page has.
 */
export function parseListen(text: string): Listen {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length)
    if (!path.startsWith('/') || path.includes('\0') || Buffer.byteLength(path) > MAX_PATH_BYTES)
      throw wrong(text, `a Unix socket has an absolute path of at most ${MAX_PATH_BYTES} bytes`)
    return { path }
  }
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:]+)\]|([0-9.]+)):(0|[1-9][0-9]{0,4})$/.exec(text) ?? []
  const host = bracketed ?? plain
  const port = Number(digits)
  if (host === undefined || port > MAX_PORT) throw wrong(text, 'it is no address of the loopback with a port')
  if (!isLoopback(host)) throw wrong(text, 'other machines could reach it')
  return { host, port }
}

/** Every address of 127.0.0.0/8 is this machine. */
function isLoopback(host: string): boolean {
  return host === '::1' || (isIPv4(host) && host.startsWith('127.'))
}

/**
 * The name that a browser uses, where that is another one, such as behind `ssh -L`. InputError: it
 * is not one of this machine.
 */
export function parseHost(text: string): string {
  const [, name, digits] =
    /^((?:[a-z0-9-]{1,63}\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::([1-9][0-9]{0,4}))?$/.exec(text) ??
    []
  if (name === undefined || Number(digits ?? 1) > MAX_PORT)
    throw new InputError(`"${text}" is no name of this machine's loopback`, {
      hint: 'Give localhost:PORT, where PORT is the one that the browser connects to',
    })
  return text
}

/** What a browser says in `Host`: it leaves the port of HTTP out. */
export function hostOf({ host, port }: { readonly host: string; readonly port: number }): string {
  const name = host.includes(':') ? `[${host}]` : host
  return port === 80 ? name : `${name}:${port}`
}

function wrong(text: string, why: string): InputError {
  return new InputError(`The page cannot listen at "${text}": ${why}`, {
    hint: 'Give 127.0.0.1:PORT, [::1]:PORT or unix:PATH; port 0 is any that is free',
  })
}
