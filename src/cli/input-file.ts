/**
 * Files that the command line names, read within bounds: they may be devices without an end,
 * pipes that nobody writes to, or larger than memory.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { FormatError, NotFoundError, TimeoutError } from '../errors.ts'
import { formatSize } from '../policy/quantity.ts'
import { hintFor } from '../uapi/hints.ts'

export interface InputBounds {
  /** What it is, for messages: `policy`. */
  readonly what: string
  /** One more byte than this is refused, and no more than that is read. */
  readonly maxBytes: number
  readonly hint: string
  /** How long a file that is not ready, a pipe, may stay silent. */
  readonly silenceMs?: number
  /** Links are not followed, and what is no plain file is refused. */
  readonly plainOnly?: boolean
}

const SILENCE_MS = 10_000
const RETRY_MS = 10
const FIRST_CHUNK_BYTES = 64 * 1024
const STDIN = 0

/**
 * The bytes of the file; `-` is standard input, which may take its time. NotFoundError: it cannot
 * be read; FormatError: it is too large; TimeoutError: a pipe that nobody writes to.
 */
export function readInput(file: string, bounds: InputBounds): Buffer {
  try {
    if (file === '-') return readWithin(STDIN, 'standard input', bounds, Number.POSITIVE_INFINITY)
    // A FIFO without a writer would keep open(2) waiting for ever.
    const links = bounds.plainOnly === true ? constants.O_NOFOLLOW : 0
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY | links)
    try {
      if (bounds.plainOnly === true && !fstatSync(fd).isFile())
        throw new FormatError(bounds.what, `"${file}" is no plain file`, {
          context: { file },
          hint: bounds.hint,
        })
      return readWithin(fd, file, bounds, bounds.silenceMs ?? SILENCE_MS)
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === undefined || code.startsWith('BPFTOKEN_')) throw cause
    throw new NotFoundError(`Cannot read ${bounds.what} "${file}": ${code}`, {
      context: { file, errno: code },
      hint: hintFor('open', code) ?? bounds.hint,
    })
  }
}

function readWithin(fd: number, name: string, bounds: InputBounds, silenceMs: number): Buffer {
  const stat = fstatSync(fd)
  if (stat.isFile() && stat.size > bounds.maxBytes) throw tooLarge(name, bounds)
  const chunks: Buffer[] = []
  let total = 0
  let silentSince = Date.now()
  while (total <= bounds.maxBytes) {
    const chunk = Buffer.allocUnsafe(
      Math.min(
        Math.max(FIRST_CHUNK_BYTES, total, stat.isFile() ? stat.size + 1 : 0),
        bounds.maxBytes + 1 - total,
      ),
    )
    const count = readOrWait(fd, chunk)
    // A FIFO looks ended before its first writer comes, too.
    const early = count === 0 && total === 0 && stat.isFIFO() && fd !== STDIN
    if (count === 0 && !early) return Buffer.concat(chunks, total)
    if (count === undefined || early) {
      if (Date.now() - silentSince > silenceMs) throw silent(name, bounds, silenceMs)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS)
      continue
    }
    chunks.push(chunk.subarray(0, count))
    total += count
    silentSince = Date.now()
  }
  throw tooLarge(name, bounds)
}

/** Undefined: nothing is there yet. */
function readOrWait(fd: number, into: Buffer): number | undefined {
  try {
    return readSync(fd, into)
  } catch (error) {
    if (['EAGAIN', 'EINTR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

function tooLarge(file: string, { what, maxBytes, hint }: InputBounds): FormatError {
  return new FormatError(what, `"${file}" is larger than ${formatSize(BigInt(maxBytes))}`, {
    context: { file, maxBytes },
    hint,
  })
}

function silent(file: string, { what }: InputBounds, silenceMs: number): TimeoutError {
  return new TimeoutError(`Nothing came from ${what} "${file}" for ${silenceMs / 1000} s`, {
    context: { file, silenceMs },
    hint: 'Nobody writes to this pipe: write to it, or give a plain file',
  })
}
