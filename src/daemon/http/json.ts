/**
 * JSON as the daemon takes it. JSON.parse lets pass what two readers can understand in two ways: a
 * name that stands twice, a number that is rounded, half of a surrogate pair. Whoever checks a
 * request before the daemon does could then have seen another one. Pure.
 */

import { quoted } from '../../ebpf/printable.ts'
import { InputError } from '../../errors.ts'

/** Deeper than any request is. */
const MAX_DEPTH = 16

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const BYTE_ORDER_MARK = 0xfeff
const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a]
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]

/** The value that these bytes are. InputError says what is wrong with them, and where. */
export function readJson(bytes: Uint8Array): unknown {
  const text = decoded(bytes)
  if (text.charCodeAt(0) === BYTE_ORDER_MARK) throw wrong('begins with a byte order mark')
  const value = parsed(text)
  requireUnambiguous(text)
  return value
}

function decoded(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes)
  } catch {
    throw wrong('is not UTF-8')
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    // V8 quotes the text in its message; only the place of it is taken.
    const [, at] = /at position (\d+)/.exec((error as Error).message) ?? []
    throw wrong('is not JSON', at === undefined ? undefined : Number(at))
  }
}

/** The names of one object; undefined: it is a list. */
type Level = Set<string> | undefined

/** Walks over text that is JSON: so each token is told by its first character. */
function requireUnambiguous(text: string): void {
  const levels: Level[] = []
  /** Whether the next text is a name. */
  let naming = false
  for (let at = 0; at < text.length; ) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) {
      const end = endOfText(text, at)
      const value = JSON.parse(text.slice(at, end)) as string
      if (!isWellFormed(value)) throw wrong('has half of a surrogate pair', at)
      const names = levels.at(-1)
      if (naming && names !== undefined) {
        if (names.has(value)) throw wrong(`has the name ${quoted(value)} twice in one object`, at)
        names.add(value)
      }
      at = end
      continue
    }
    if (code === OPEN_LIST || code === OPEN_OBJECT) {
      levels.push(code === OPEN_OBJECT ? new Set() : undefined)
      if (levels.length > MAX_DEPTH) throw wrong(`is nested more than ${MAX_DEPTH} deep`, at)
      naming = code === OPEN_OBJECT
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) levels.pop()
    else if (code === COMMA) naming = levels.at(-1) !== undefined
    else if (code === COLON) naming = false
    else if (isNumberStart(code)) {
      const end = endOfNumber(text, at)
      requireWhole(text.slice(at, end), at)
      at = end
      continue
    }
    at++
  }
}

/** Behind the closing quote of the text that opens at `from`. */
function endOfText(text: string, from: number): number {
  let at = from + 1
  for (let code = text.charCodeAt(at); code !== QUOTE; code = text.charCodeAt(at))
    at += code === BACKSLASH ? 2 : 1
  return at + 1
}

function isNumberStart(code: number): boolean {
  return code === 0x2d || (code >= 0x30 && code <= 0x39)
}

function endOfNumber(text: string, from: number): number {
  let at = from + 1
  while (at < text.length && /[0-9.eE+-]/.test(text[at]!)) at++
  return at
}

/** No field takes another kind; and 0.99999999999999999999 would be read as 1. */
function requireWhole(number: string, at: number): void {
  if (!/^-?[0-9]+$/.test(number)) throw wrong('has a number that is not written as a whole one', at)
  if (!Number.isSafeInteger(Number(number))) throw wrong('has a number beyond 2^53 - 1', at)
}

/** Without the flag `v` or a newer Node: a surrogate that is not one of a pair. */
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text)
}

function wrong(what: string, at?: number): InputError {
  return new InputError(`the body ${what}${at === undefined ? '' : ` (at character ${at})`}`, {
    context: { at },
  })
}
