/**
 * What the process that speaks HTTP may ask of the one that is the daemon's client, and how: lines
 * of JSON over a pair of connected sockets. Whatever a browser sends reaches the daemon as one of
 * these, or not at all.
 */
import type { Readable } from 'node:stream'
import { FormatError } from '../errors.ts'
import type { Listen } from './listen.ts'
import type { Role } from './sessions.ts'

/** The first line, to the child. */
export interface Setup {
  readonly listen: Listen
  /** What a browser says in `Host`, where that is not the address. */
  readonly host?: string | undefined
  /** SHA-256 of the secrets, in hexadecimal. */
  readonly doors: readonly { readonly role: Role; readonly digest: string }[]
  /** Who it becomes before it takes a connection; absent: who it is. */
  readonly ids?: { readonly uid: number; readonly gid: number } | undefined
}

/** The first line, from the child: it listens, and browsers are to say this in `Host`. */
export type Started = { readonly host: string } | { readonly failed: string }

export const ACTS = ['approve', 'deny', 'revoke'] as const
export type Act = (typeof ACTS)[number]

export type Ask = { readonly what: 'look' } | { readonly what: Act; readonly of: string }

/** What the browser gets: a status of HTTP and a document of JSON, as text. */
export interface Told {
  readonly status: number
  readonly body: string
}

/** No loan, request or process has a longer line. */
export const MAX_ASK_CHARS = 256
/** The document for a browser is far below: see look.ts. */
export const MAX_TOLD_CHARS = 32 * 2 ** 20

const NAMES: Readonly<Record<Act, RegExp>> = {
  approve: /^request-[1-9][0-9]{0,9}$/,
  deny: /^request-[1-9][0-9]{0,9}$/,
  revoke: /^loan-[1-9][0-9]{0,9}$/,
}

/** Undefined: it is nothing that may be asked. Pure. */
export function askIn(value: unknown): Ask | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { what, of, ...more } = value as Record<string, unknown>
  if (Object.keys(more).length > 0) return undefined
  if (what === 'look') return of === undefined ? { what } : undefined
  const act = ACTS.find(one => one === what)
  if (act === undefined || typeof of !== 'string' || !NAMES[act].test(of)) return undefined
  return { what: act, of }
}

/** The documents of a stream, a line each. FormatError: a line is longer than that, or is no JSON. */
export async function* documentsIn(stream: Readable, maxChars: number): AsyncGenerator<unknown, void> {
  stream.setEncoding('utf8')
  let parts: string[] = []
  let length = 0
  for await (const chunk of stream as AsyncIterable<string>) {
    const lines = chunk.split('\n')
    for (const [i, line] of lines.entries()) {
      parts.push(line)
      length += line.length
      if (length > maxChars) throw new FormatError('ask', `it has more than ${maxChars} characters`)
      if (i === lines.length - 1) break
      yield parsed(parts.join(''))
      parts = []
      length = 0
    }
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    throw new FormatError('ask', 'it is no JSON')
  }
}

export function lineOf(document: unknown): string {
  return `${JSON.stringify(document)}\n`
}
