/**
 * Which requests are taken at all: a browser must have come by the address that was printed, and
 * from the page itself. Every user of this machine, and every page in a browser on it, can send any
 * request to the loopback. Pure.
 */
import type { IncomingMessage } from 'node:http'

export type Refusal = 400 | 403 | 404 | 405 | 413 | 415 | 429 | 431

/** What was asked for. */
export type Wanted =
  | { readonly what: 'enter'; readonly secret: string }
  | { readonly what: 'file'; readonly name: string }
  | { readonly what: 'look' }
  | { readonly what: 'act' }

export const MAX_BODY_BYTES = 4096
const MAX_HEADERS = 64
const MAX_TARGET_CHARS = 256

/** Each says one thing: two of them would say which one counts to nobody. */
const ONCE = [
  ...['host', 'origin', 'cookie', 'content-type', 'content-length', 'transfer-encoding'],
  ...['content-encoding', 'sec-fetch-site', 'x-bpftoken-key'],
]

type Head = Pick<IncomingMessage, 'method' | 'url' | 'headers' | 'rawHeaders'>

/**
 * What a request is for, before it is known whose it is. All that a stranger could learn something
 * from is 403. `host` is what a browser says in `Host` that came by our address.
 */
export function wanted(head: Head, host: string): Wanted | Refusal {
  const { headers, rawHeaders, method, url = '' } = head
  if (rawHeaders.length / 2 > MAX_HEADERS) return 431
  const names = rawHeaders.filter((_, i) => i % 2 === 0).map(name => name.toLowerCase())
  if (ONCE.some(name => names.indexOf(name) !== names.lastIndexOf(name))) return 400
  if (url.length > MAX_TARGET_CHARS) return 403
  // A name that some other server gives for this address is not ours: DNS rebinding.
  if (headers.host !== host) return 403
  const target = targetOf(url)
  if (target === undefined) return 403
  if (!comesFromUs(head, host, target)) return 403
  if (target.what === 'act') {
    if (method !== 'POST') return 405
    return isJson(head) ? target : 415
  }
  if (method !== 'GET') return 405
  // A body of a GET would be read as the next request, by whoever understands it so.
  return headers['content-length'] === undefined && headers['transfer-encoding'] === undefined ? target : 400
}

/** Names of files: only those, so that no path leads out of their folder. */
const FILES: Readonly<Record<string, string>> = {
  '/': 'index.html',
  '/page.css': 'page.css',
  '/page.mjs': 'page.mjs',
  '/view.mjs': 'view.mjs',
  '/model.mjs': 'model.mjs',
}
export const FILE_NAMES: readonly string[] = Object.values(FILES)

function targetOf(url: string): Wanted | undefined {
  if (Object.hasOwn(FILES, url)) return { what: 'file', name: FILES[url]! }
  if (url === '/look') return { what: 'look' }
  if (url === '/act') return { what: 'act' }
  const [, secret] = /^\/enter\/([A-Za-z0-9_-]{1,64})$/.exec(url) ?? []
  return secret === undefined ? undefined : { what: 'enter', secret }
}

/** What who types the address, or reloads, asks for. */
const TYPED = ['enter', 'file']

/**
 * Browsers say from where a request comes. Where it acts they must, and what is no browser can: it
 * needs the session besides.
 */
function comesFromUs({ method, headers }: Head, host: string, { what }: Wanted): boolean {
  const { origin } = headers
  const site = headers['sec-fetch-site']
  if (origin !== undefined && origin !== `http://${host}`) return false
  if (method !== 'GET' && (origin === undefined || site === undefined)) return false
  if (site === undefined || site === 'same-origin') return true
  // `none`: no page asked for it. `same-site` is another port of this machine: anybody's.
  return site === 'none' && method === 'GET' && TYPED.includes(what)
}

function isJson({ headers }: Head): boolean {
  const coding = headers['content-encoding']
  return headers['content-type'] === 'application/json' && (coding === undefined || coding === 'identity')
}

/** The name has the port in it: cookies of all ports of a host lie together. */
export function cookieName(host: string): string {
  return `bpftoken-${/:(\d+)$/.exec(host)?.[1] ?? '80'}`
}

/** The value of the cookie. Undefined: there is none, or there are two, of which one is not ours. */
export function cookieIn(header: string | undefined, name: string): string | undefined {
  const values = (header ?? '')
    .split(';')
    .map(part => part.trim())
    .filter(part => part.startsWith(`${name}=`))
    .map(part => part.slice(name.length + 1))
  return values.length === 1 ? values[0] : undefined
}

export const CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'self'",
].join('; ')

/** Of every answer. */
export const HEADERS: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': CSP,
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}
