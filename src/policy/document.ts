/**
 * YAML text to plain data with positions, within bounds that hostile text cannot break.
 *
 * The yaml package recurses over the document and compares map keys pairwise, so its cost is
 * bounded before it composes anything: size of the text, number of lexical tokens, depth. (Without
 * that, a few thousand open brackets end the whole process, not only the parse.) The data is built
 * by our own walk, which counts what aliases expand to, refuses duplicate keys and keeps a position
 * for every path.
 */
import {
  Composer,
  type CST,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  Parser,
} from 'yaml'
import type { PolicyIssue } from '../errors.ts'
import { locate, type Position, type Positions, pathText } from './located.ts'

/** Bounds. A large real policy stays below a tenth of each. */
const MAX_TEXT_KIB = 256
const MAX_LEXEMES = 60_000
const MAX_DEPTH = 32
const MAX_NODES = 20_000

type PathSegment = string | number

/** The data of one document, and where in the text each part stands. */
export interface PlainDocument {
  readonly value: unknown
  readonly issues: readonly PolicyIssue[]
  /** Of all values. */
  readonly positions: Positions
  /** Position of the value at `path`, or of the nearest enclosing value that exists. */
  valueAt(path: readonly PathSegment[]): Position
  /** Position of the key that names the last segment of `path`. */
  keyAt(path: readonly PathSegment[]): Position
}

/**
 * Reads exactly one YAML document. Never throws for what the text says: what is wrong is in
 * `issues`.
 */
export function readDocument(text: string): PlainDocument {
  const start = { line: 1, col: 1 }
  const refusal = (message: string, at: Position = start): PlainDocument => ({
    value: undefined,
    issues: [{ path: '', ...at, message }],
    positions: new Map([['', at]]),
    valueAt: () => at,
    keyAt: () => at,
  })

  // Counts UTF-16 units, of which UTF-8 never has more than bytes: all that is refused is larger.
  if (text.length > MAX_TEXT_KIB * 1024) return refusal(`the text is larger than ${MAX_TEXT_KIB} KiB`)
  if (text.trim() === '') return refusal('the file is empty')

  const lines = new LineCounter()
  const tokens: CST.Token[] = []
  const tooMuch = collectTokens(text, lines, tokens)
  if (tooMuch !== undefined) return refusal(tooMuch.message, position(lines, tooMuch.off))

  // uniqueKeys would compare keys pairwise; the walk finds duplicates with a set.
  const composer = new Composer({
    uniqueKeys: false,
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
  })
  const [document, second] = [...composer.compose(tokens, true, text.length)]
  if (document === undefined) return refusal('the file is empty')
  if (second !== undefined) {
    return refusal('the file holds several documents, and one is expected', position(lines, second.range[0]))
  }

  const walk = new Walk(lines, document.contents?.range?.[0] ?? 0)
  for (const fault of [...document.errors, ...document.warnings])
    walk.report([], fault.pos[0], fault.message.slice(0, 200))
  const syntaxOk = walk.issues.length === 0
  const value = syntaxOk ? walk.plain(document.contents, [], 0) : undefined
  return {
    value,
    issues: walk.issues,
    positions: walk.values,
    valueAt: path => locate(walk.values, path),
    keyAt: path => locate(walk.keys, path),
  }
}

function position(lines: LineCounter, off: number): Position {
  const { line, col } = lines.linePos(off)
  return { line: Math.max(line, 1), col: Math.max(col, 1) }
}

/**
 * Lexes and parses, which is iterative, into `tokens`; stops with the reason as soon as a bound is
 * reached.
 */
function collectTokens(
  text: string,
  lines: LineCounter,
  tokens: CST.Token[],
): { message: string; off: number } | undefined {
  const parser = new Parser(lines.addNewLine)
  lines.addNewLine(0)
  let lexemes = 0
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) tokens.push(token)
    if (++lexemes > MAX_LEXEMES) return { message: 'the document has too many parts', off: parser.offset }
    // The parser's stack holds the document and one or two tokens per level.
    if (parser.stack.length > 2 * MAX_DEPTH) return { message: NESTED, off: parser.offset }
  }
  for (const token of parser.end()) tokens.push(token)
  return undefined
}

const NESTED = `the document is nested deeper than ${MAX_DEPTH} levels`

/** What the schema would take; it refuses other numbers in its own words. */
function isCount(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0
}

/** One pass over the nodes: plain data, positions and issues. */
class Walk {
  readonly issues: PolicyIssue[] = []
  readonly values = new Map<string, Position>()
  readonly keys = new Map<string, Position>()
  readonly #lines: LineCounter
  readonly #anchors = new Map<string, Node>()
  #nodes = 0

  /** `start` is where the whole begins. */
  constructor(lines: LineCounter, start: number) {
    this.#lines = lines
    for (const table of [this.values, this.keys]) table.set('', position(lines, start))
  }

  report(path: readonly PathSegment[], off: number, message: string): void {
    this.issues.push({ path: pathText(path), ...position(this.#lines, off), message })
  }

  plain(node: Node | null | undefined, path: readonly PathSegment[], off: number): unknown {
    // Once over the bound every further node ends here, so that the rest of the walk costs nothing.
    if (this.#nodes > MAX_NODES) return undefined
    const at = node?.range?.[0] ?? off
    if (++this.#nodes > MAX_NODES) {
      this.report(path, at, `the document, with aliases expanded, has more than ${MAX_NODES} values`)
      return undefined
    }
    // An alias of its own parent would go on for ever; depth ends it too.
    if (path.length > MAX_DEPTH) {
      this.report(path, at, NESTED)
      return undefined
    }
    const text = pathText(path)
    if (!this.values.has(text)) this.values.set(text, position(this.#lines, at))
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source)
      if (target !== undefined) return this.plain(target, path, at)
      this.report(path, at, `there is no anchor &${node.source.slice(0, 64)} before this alias`)
      return undefined
    }
    if (node?.anchor !== undefined) this.#anchors.set(node.anchor, node)
    if (isMap(node)) return this.#map(node.items, path, at)
    if (isSeq(node)) {
      return node.items.map((item, index) => this.plain(item as Node | null, [...path, index], at))
    }
    if (!isScalar(node)) return null
    // YAML knows more ways to write one, of which 010 is two numbers in its two versions.
    if (isCount(node.value) && !/^(0|[1-9]\d*|0x[\da-fA-F]+)$/.test(node.source ?? ''))
      this.report(path, at, 'a number is a whole one, decimal without leading zeros or hexadecimal (0x...)')
    // A number that a double cannot hold stays as it was written: masks have 64 bits.
    return typeof node.value === 'number' && !Number.isSafeInteger(node.value) && node.source !== undefined
      ? node.source
      : node.value
  }

  #map(
    pairs: readonly { key: unknown; value: unknown }[],
    path: readonly PathSegment[],
    at: number,
  ): unknown {
    // Entries, not assignment: a key `__proto__` becomes an ordinary own property.
    const entries = new Map<string, unknown>()
    for (const pair of pairs) {
      const key = pair.key as Node | null
      const keyOff = key?.range?.[0] ?? at
      const name = isScalar(key) && key.value !== null ? String(key.value) : undefined
      if (name === undefined) {
        this.report(path, keyOff, 'a key must be a plain word')
        continue
      }
      const inner = [...path, name]
      if (entries.has(name)) {
        this.report(inner, keyOff, 'the same key stands here twice')
        continue
      }
      const text = pathText(inner)
      if (!this.keys.has(text)) this.keys.set(text, position(this.#lines, keyOff))
      entries.set(name, this.plain(pair.value as Node | null, inner, keyOff))
    }
    return Object.fromEntries(entries)
  }
}
