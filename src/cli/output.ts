/**
 * What the commands print: lines and aligned columns for people, one JSON document for programs.
 *
 * Everything that is printed passes here and is made printable here, because others choose the
 * names of processes, paths, names in object files and messages about them. Line breaks come from
 * `print` alone, between two of its lines; a line break within a line is shown as `\u{a}`. So a
 * forgotten line break shows, and escaping cannot be forgotten.
 */
import { fstatSync, writeSync } from 'node:fs'
import { printable, printableJson } from '../ebpf/printable.ts'
import { SyscallError } from '../errors.ts'
import { MASK_DOMAINS } from '../policy/vocabulary.ts'
import { Interrupted } from './interrupted.ts'

const STDOUT = 1
const STDERR = 2

/** How much is said on stderr, and in which form; see the options that every command takes. */
export interface Manner {
  readonly quiet?: boolean
  readonly verbose?: boolean
  readonly json?: boolean
}

let manner: Manner = {}

/** Sets how everything that follows is told. */
export function speak(of: Manner): void {
  manner = of
}

export function spoken(): Manner {
  return manner
}

/** The styles that we use, by what they stand for. */
const STYLES = {
  good: 'green',
  odd: 'yellow',
  bad: 'red',
  heading: 'bold',
  chosen: 'inverse',
} as const

/** A part of a line, in colour where a terminal shows it. */
export interface Styled {
  readonly style: keyof typeof STYLES
  readonly text: string
}

/** A line, or the parts of one. */
export type Line = string | readonly (string | Styled)[]

export function styled(style: Styled['style'], text: string): Styled {
  return { style, text }
}

const textOf = (part: string | Styled): string => (typeof part === 'string' ? part : part.text)

/** Loads what knows terminals, which is much of Node, only where there may be one. */
function isatty(fd: number): boolean {
  try {
    return fstatSync(fd).isCharacterDevice() && process.getBuiltinModule('node:tty').isatty(fd)
  } catch {
    return false // It is closed.
  }
}

/** See https://no-color.org and Node's FORCE_COLOR; an empty variable is none. */
function showsColor(fd: number): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== '') return !['0', 'false'].includes(FORCE_COLOR)
  return (NO_COLOR ?? '') === '' && TERM !== 'dumb' && isatty(fd)
}

function rendered(lines: readonly Line[], fd: number): string {
  let color: boolean | undefined
  const part = (one: string | Styled): string => {
    const text = printable(textOf(one))
    if (typeof one === 'string') return text
    color ??= showsColor(fd)
    if (!color) return text
    return process.getBuiltinModule('node:util').styleText(STYLES[one.style], text, { validateStream: false })
  }
  return lines.map(line => `${typeof line === 'string' ? part(line) : line.map(part).join('')}\n`).join('')
}

/**
 * How many characters a line of the terminal on standard output has; undefined: it is no terminal.
 * Touches `process.stdout` only for a terminal, since that makes a pipe non-blocking for all
 * processes that have it.
 */
export function terminalWidth(): number | undefined {
  return isatty(STDOUT) ? process.stdout.columns || undefined : undefined
}

/** Whether stderr is a terminal, on which a line can be written anew. */
export function stderrIsTerminal(): boolean {
  return isatty(STDERR)
}

/** The same line of the terminal on stderr again, cut to its width; empty: it is gone. */
export function rewrite(text: string): void {
  try {
    write(STDERR, `\r\x1b[K${cut(printable(text), (process.stderr.columns || 80) - 1)}`)
  } catch {
    // Nobody can be told.
  }
}

/**
 * Lines on standard output. Writes before it returns, so that a failure is thrown where it happens:
 * SyscallError for a full disk and the like, Interrupted (SIGPIPE) if nobody reads any more. What
 * the command did before stays done.
 */
export function print(...lines: readonly Line[]): void {
  writeOut(rendered(lines, STDOUT))
}

/** What is no text, as it is; not for a terminal. */
export function printBytes(bytes: Uint8Array): void {
  writeOut(bytes)
}

/**
 * One JSON document. Masks of 64 bits are hexadecimal text. Other 64-bit numbers are numbers, or
 * decimal text if JSON has no such number. `compact`: in one line.
 */
export function printJson(value: unknown, layout: 'indented' | 'compact' = 'indented'): void {
  writeOut(`${jsonText(value, layout)}\n`)
}

function jsonText(value: unknown, layout: 'indented' | 'compact'): string {
  const withoutBigints = (key: string, v: unknown): unknown => {
    if (typeof v !== 'bigint') return v
    if ((MASK_DOMAINS as readonly string[]).includes(key)) return `0x${v.toString(16)}`
    return v <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(v) : String(v)
  }
  return printableJson(JSON.stringify(value, withoutBigints, layout === 'indented' ? 2 : undefined))
}

/**
 * A note about what is going on. It goes to stderr, because stdout is for the program or the
 * answer. With --quiet it is not told.
 */
export function note(text: string): void {
  if (manner.quiet !== true) warn(text)
}

/** The same about something that went wrong; it is told with --quiet, too. */
export function warn(text: string): void {
  complain(`bpftoken: ${text}`)
}

/** Lines on stderr as they are. If stderr is closed or full, only the exit status can tell. */
export function complain(...lines: readonly Line[]): void {
  try {
    write(STDERR, rendered(lines, STDERR))
  } catch {
    // See above.
  }
}

/** One JSON document in a line on stderr. */
export function complainJson(value: unknown): void {
  try {
    write(STDERR, `${jsonText(value, 'compact')}\n`)
  } catch {
    // As above.
  }
}

function writeOut(text: string | Uint8Array): void {
  try {
    write(STDOUT, text)
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException
    if (code === 'EPIPE') throw new Interrupted('SIGPIPE')
    if (code === undefined || errno === undefined) throw error
    throw new SyscallError(
      { call: 'write', object: 'standard output', errno: Math.abs(errno), errnoName: code },
      { hint: 'What was done before this stays done; only the answer is lost' },
    )
  }
}

const RETRY_MS = 5

function write(fd: number, text: string | Uint8Array): void {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at)
    } catch (error) {
      // Whoever gave us the descriptor may have made it non-blocking; then its reader is behind.
      if (!['EAGAIN', 'EINTR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS)
    }
  }
}

/** Rows in aligned columns, the last one ragged; as lines. No cell looks like two, or like none. */
export function columns(rows: readonly (readonly string[])[], indent = ''): string[] {
  return aligned(rows, indent).map(line => line.map(textOf).join(''))
}

/**
 * The same for many rows of one kind. On a terminal that is too narrow the widest columns are cut,
 * and an ellipsis shows that. In a pipe nothing is cut.
 */
export function table(
  rows: readonly (readonly (string | Styled)[])[],
  { indent = '', width = terminalWidth() }: { indent?: string; width?: number | undefined } = {},
): Line[] {
  return aligned(rows, indent, width)
}

const GAP = '  '
const LEAST_WIDTH = 8

function aligned(
  rows: readonly (readonly (string | Styled)[])[],
  indent: string,
  width = Number.POSITIVE_INFINITY,
): (string | Styled)[][] {
  const texts = rows.map(row => row.map(cell => printableCell(textOf(cell))))
  const widths: number[] = []
  for (const row of texts)
    row.forEach((text, i) => {
      widths[i] = Math.max(widths[i] ?? 0, text.length)
    })
  narrow(widths, width - indent.length - GAP.length * (widths.length - 1))
  return rows.map((row, r) => {
    const cells = texts[r]!.map((text, i) => cut(text, widths[i]!))
    // Without blanks at the end: those of the last cells that have something.
    const last = cells.findLastIndex(cell => cell !== '')
    const parts = row.slice(0, last + 1).flatMap((cell, i) => {
      const text = cells[i]!
      const shown = typeof cell === 'string' ? text : { ...cell, text }
      return i === last ? [shown] : [shown, ' '.repeat(widths[i]! - text.length) + GAP]
    })
    return parts.length === 0 ? [''] : [indent, ...parts]
  })
}

/** Narrows the widest columns until all fit or none can be narrowed. */
function narrow(widths: number[], room: number): void {
  for (let over = widths.reduce((sum, one) => sum + one, 0) - room; over > 0; over--) {
    const widest = widths.indexOf(Math.max(...widths))
    if (widths[widest]! <= LEAST_WIDTH) return
    widths[widest]!--
  }
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}\u2026`
}

/**
 * The name that a process gave itself, within a sentence. One word stays as it is; anything else is
 * put in quotes, so that its end can be seen.
 */
export function word(text: string): string {
  return /^[\w./:@+-]+$/.test(text) ? text : JSON.stringify(text)
}

/**
 * Two spaces separate columns. So within a cell all spaces but the first in a row are escaped, and
 * so are spaces at its ends.
 */
function printableCell(text: string): string {
  return printable(text).replace(/(?<=^| ) | $/g, '\\u{20}')
}

/** Lines on the terminal of standard output that are drawn anew in their place. */
export class Screen {
  #drawn = 0

  /** Lines that have no room on the terminal are cut. */
  draw(lines: readonly string[]): void {
    const { columns: width, rows: height } = process.stdout
    const shown = lines
      .slice(0, Math.max(1, (height || Number.POSITIVE_INFINITY) - 1))
      .map(line => printable(line).slice(0, width || undefined))
    const above = this.#drawn === 0 ? '' : `\x1b[${this.#drawn}A\x1b[J`
    writeOut(above + shown.map(line => `${line}\n`).join(''))
    this.#drawn = shown.length
  }
}

/** Whether standard output is a terminal. */
export function stdoutIsTerminal(): boolean {
  return isatty(STDOUT)
}

/**
 * All of the terminal on standard output, beside what stands there: that is there again once this
 * is left. Each frame is drawn over the one before, and not cleared first: so nothing flickers.
 */
export class FullScreen {
  #entered = false

  enter(): void {
    if (this.#entered) return
    this.#entered = true
    // The other screen; no cursor; a line that is too long does not go on in the next.
    writeOut('\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J')
  }

  /** Can be called at any time, and again; it never throws, for there may be no terminal any more. */
  leave(): void {
    if (!this.#entered) return
    this.#entered = false
    try {
      write(STDOUT, '\x1b[?7h\x1b[?25h\x1b[?1049l')
    } catch {
      // Nobody sees it.
    }
  }

  get size(): { readonly width: number; readonly height: number } {
    const { columns: width, rows: height } = process.stdout
    return { width: width || 80, height: height || 24 }
  }

  draw(lines: readonly Line[]): void {
    if (!this.#entered) return
    const { width, height } = this.size
    const shown = lines.slice(0, height).map(line => rendered([cutLine(line, width)], STDOUT).slice(0, -1))
    writeOut(`\x1b[H${shown.map(line => `${line}\x1b[K`).join('\r\n')}\x1b[J`)
  }
}

/** So much of a line as has room. */
function cutLine(line: Line, width: number): Line {
  let room = width
  return (typeof line === 'string' ? [line] : line).map(part => {
    const text = printable(textOf(part)).slice(0, room)
    room -= text.length
    return typeof part === 'string' ? text : { ...part, text }
  })
}
