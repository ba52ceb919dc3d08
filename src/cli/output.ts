/**
 * What the commands print: lines and aligned columns for people, one JSON document for programs.
 *
 * Whatever is printed passes here and is made printable here: names of processes, paths, names in
 * object files and messages about them are chosen by others. A line break comes from `print` alone,
 * between two of its lines; one within a line is shown as `\u{a}`. So a forgotten line break is
 * seen, and a forgotten escape cannot be.
 */
import { writeSync } from 'node:fs'
import { printable, printableJson } from '../ebpf/printable.ts'
import { SyscallError } from '../errors.ts'
import { Interrupted } from './interrupted.ts'

const STDOUT = 1
const STDERR = 2

/**
 * Lines on standard output. Writes before it returns, so that a failure has a place to be told:
 * SyscallError for a full disk and the like, Interrupted (SIGPIPE) when nobody reads any more. What
 * was done before stays done.
 */
export function print(...lines: readonly string[]): void {
  writeOut(lines.map(line => `${printable(line)}\n`).join(''))
}

/** One JSON document, in which 64-bit numbers are hexadecimal text. `compact`: in one line. */
export function printJson(value: unknown, layout: 'indented' | 'compact' = 'indented'): void {
  writeOut(`${jsonText(value, layout)}\n`)
}

function jsonText(value: unknown, layout: 'indented' | 'compact'): string {
  const withoutBigints = (_: string, v: unknown): unknown =>
    typeof v === 'bigint' ? `0x${v.toString(16)}` : v
  return printableJson(JSON.stringify(value, withoutBigints, layout === 'indented' ? 2 : undefined))
}

/** About what is going on: on stderr, so that stdout stays the program's or the answer's. */
export function note(text: string): void {
  complain(`bpftoken: ${text}`)
}

/**
 * Lines on stderr as they are. Where that is closed or full, nobody can be told: the exit status
 * says it.
 */
export function complain(...lines: readonly string[]): void {
  try {
    write(STDERR, lines.map(line => `${printable(line)}\n`).join(''))
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

function writeOut(text: string): void {
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

function write(fd: number, text: string): void {
  const bytes = Buffer.from(text)
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
  const cells = rows.map(row => row.map(printableCell))
  const widths: number[] = []
  for (const row of cells)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  return cells.map(row => {
    const line = row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  ')
    return `${indent}${line}`.trimEnd()
  })
}

/**
 * What a process calls itself, within a sentence: one word as it is, anything else in quotes, so
 * that it ends where it ends.
 */
export function word(text: string): string {
  return /^[\w./:@+-]+$/.test(text) ? text : JSON.stringify(text)
}

/**
 * Two spaces part columns: within a cell all but the first of them are escaped, and so are those at
 * its ends.
 */
function printableCell(text: string): string {
  return printable(text).replace(/(?<=^| ) | $/g, '\\u{20}')
}

/** Lines on the terminal of standard output that are drawn anew in their place. */
export class Screen {
  #drawn = 0

  /** What has no room on the terminal is cut. */
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
