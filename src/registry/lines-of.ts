/** The lines of a file, read piece by piece, however long it is. */
import type { OpenFile } from './files.ts'
import { MAX_LINE_BYTES } from './line.ts'

export interface RawLine {
  /** Without its end; cut at twice `MAX_LINE_BYTES`. Bytes are characters: it should be ASCII. */
  readonly text: string
  /** Of its first byte, and of the first behind its end. */
  readonly start: number
  readonly end: number
  /** False: the file ends within it. */
  readonly complete: boolean
}

const PIECE_BYTES = 256 * 1024
const NEWLINE = 0x0a

export async function* linesOf(file: OpenFile, from = 0): AsyncGenerator<RawLine> {
  let rest: Buffer = Buffer.alloc(0)
  let start = from
  let cutBytes = 0
  for (let offset = from; ; ) {
    const piece = await file.read(offset, PIECE_BYTES)
    if (piece.length === 0) break
    offset += piece.length
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece])
    let at = 0
    for (let end = bytes.indexOf(NEWLINE, rest.length); end >= 0; end = bytes.indexOf(NEWLINE, at)) {
      const next = start + (end - at) + cutBytes + 1
      yield { text: bytes.toString('latin1', at, end), start, end: next, complete: true }
      start = next
      at = end + 1
      cutBytes = 0
    }
    rest = bytes.subarray(at)
    if (rest.length > 2 * MAX_LINE_BYTES) {
      // No line of ours is so long. What is left out makes it no better.
      cutBytes += rest.length - MAX_LINE_BYTES
      rest = rest.subarray(0, MAX_LINE_BYTES)
    }
  }
  if (rest.length > 0)
    yield { text: rest.toString('latin1'), start, end: start + rest.length + cutBytes, complete: false }
}
