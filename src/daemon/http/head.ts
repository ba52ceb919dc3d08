/**
 * What a request says before its body: target and headers. Node's parser has refused by now what is
 * no HTTP; here is refused what the daemon does not speak, and whatever could be understood in two
 * ways. Pure.
 */
import type { IncomingMessage } from 'node:http'
import { DeniedError, RequestError } from '../../errors.ts'
import { decode } from './percent.ts'

export const MAX_HEADERS = 64
export const MAX_TARGET_CHARS = 2048
/** The largest body is a policy's document of 256 KiB, as text of JSON. */
export const MAX_BODY_BYTES = 300 * 1024

/** Each says one thing: two of them would say which one counts to nobody. */
const ONCE = new Set([
  ...['host', 'content-type', 'content-length', 'content-encoding', 'transfer-encoding', 'accept'],
  ...['expect', 'origin', 'idempotency-key', 'last-event-id'],
])

export interface Target {
  readonly path: string
  readonly query: Readonly<Record<string, string>>
}

/** RequestError, DeniedError: the daemon does not take it, whatever its path is. */
export function readTarget(req: IncomingMessage): Target {
  requirePlain(req)
  const target = req.url ?? ''
  if (target.length > MAX_TARGET_CHARS)
    throw new RequestError(414, `the address has more than ${MAX_TARGET_CHARS} characters`)
  if (!target.startsWith('/')) throw new RequestError(400, 'the address is no path')
  if (target.includes('#')) throw new RequestError(400, 'the address has a fragment')
  const [, path, query] = /^([^?]*)\??(.*)$/s.exec(target) as unknown as [string, string, string]
  return { path, query: readQuery(query) }
}

function requirePlain({ httpVersion, headers, rawHeaders }: IncomingMessage): void {
  if (httpVersion !== '1.1' && httpVersion !== '1.0')
    throw new RequestError(505, `this is HTTP ${httpVersion}; the daemon speaks 1.1 and 1.0`)
  if (rawHeaders.length / 2 > MAX_HEADERS)
    throw new RequestError(431, `the request has more than ${MAX_HEADERS} headers`)
  const seen = new Set<string>()
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (ONCE.has(name) && seen.has(name)) throw new RequestError(400, `the header ${name} is there twice`)
    seen.add(name)
  }
  // No page in a browser reaches the socket by itself: whatever carries its requests here does so
  // for strangers.
  if (headers.origin !== undefined || headers['sec-fetch-site'] !== undefined)
    throw new DeniedError('the request comes from a page in a browser', {
      hint: 'Let the program that serves the page ask, and leave out the header Origin',
    })
  if (headers.upgrade !== undefined) throw new RequestError(400, 'the daemon speaks no other protocol')
  const coding = headers['transfer-encoding']
  if (coding !== undefined && coding.toLowerCase() !== 'chunked')
    throw new RequestError(501, 'the daemon knows no transfer coding but chunked')
}

/** As forms write it. A name stands once. */
function readQuery(text: string): Record<string, string> {
  const query = new Map<string, string>()
  for (const part of text === '' ? [] : text.split('&')) {
    const [, name, value] = /^([^=]*)=?(.*)$/s.exec(part.replaceAll('+', ' ')) as unknown as string[]
    const key = decode(name!)
    if (query.has(key)) throw new RequestError(400, 'a parameter of the query is there twice')
    query.set(key, decode(value!))
  }
  return Object.fromEntries(query)
}

/**
 * Whether there is a body, which then is JSON and not too long, as far as it says. RequestError:
 * 413, 415.
 */
export function requireJson({ headers }: IncomingMessage): void {
  if (!isJson(headers['content-type']))
    throw new RequestError(415, 'the body is to be of Content-Type: application/json')
  const coding = headers['content-encoding']
  if (coding !== undefined && coding.toLowerCase() !== 'identity')
    throw new RequestError(415, 'the body is to have no Content-Encoding')
  if (Number(headers['content-length'] ?? 0) > MAX_BODY_BYTES) throw tooLong()
}

function isJson(type: string | undefined): boolean {
  return /^application\/json *(; *charset=("utf-8"|utf-8) *)?$/i.test(type ?? '')
}

export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

export function tooLong(): RequestError {
  return new RequestError(413, `the body has more than ${MAX_BODY_BYTES} bytes`)
}

/** Up to 128 printable characters of ASCII. RequestError: it is none. */
export function idempotencyKey(req: IncomingMessage, taken: boolean): string | undefined {
  const key = req.headers['idempotency-key'] as string | undefined
  if (key === undefined) return undefined
  if (!taken) throw new RequestError(400, 'this route takes no Idempotency-Key')
  if (!/^[\x21-\x7e]{1,128}$/.test(key))
    throw new RequestError(400, 'Idempotency-Key is to be of 1 to 128 printable characters of ASCII')
  return key
}
