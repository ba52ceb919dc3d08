/**
 * A file of numbered lines that grows at its end. What was written together is on the disk
 * together, or none of it was promised.
 */
import { FormatError } from '../errors.ts'
import type { Files, OpenFile } from './files.ts'
import { decodeLine, encodeLine, type Line } from './line.ts'
import { linesOf } from './lines-of.ts'
import { TailFile } from './tail-file.ts'

/** What stood at the end of the file and was being written when we, or the machine, died. */
export interface Torn {
  readonly offset: number
  readonly bytes: number
}

export class LineLog {
  readonly #tail: TailFile
  #lines: number

  private constructor(tail: TailFile, lines: number) {
    this.#tail = tail
    this.#lines = lines
  }

  /** A new and empty one. EEXIST: there is one. */
  static async create(files: Files, path: string): Promise<LineLog> {
    return new LineLog(await TailFile.create(files, path), 0)
  }

  /**
   * Calls `visit` with each line. FormatError, with its context: a line is damaged that had reached
   * the disk. What had perhaps not is cut off, and told. On a file system that cannot be written
   * the log can be read, and appending fails until it can.
   */
  static async open(
    files: Files,
    path: string,
    visit: (line: Line, offset: number) => void,
  ): Promise<{ log: LineLog; torn: Torn | undefined }> {
    let lines = 0
    let torn: Torn | undefined
    const tail = await TailFile.open(files, path, async file => {
      const read = await readAll(file, path, visit)
      lines = read.lines
      if (read.end > read.size) torn = { offset: read.size, bytes: read.end - read.size }
      return read.size
    })
    return { log: new LineLog(tail, lines), torn }
  }

  get path(): string {
    return this.#tail.path
  }

  get size(): number {
    return this.#tail.size
  }

  get lines(): number {
    return this.#lines
  }

  /** Writes them as one batch; unless `sync` is false they are on the disk when it returns. */
  async append(bodies: readonly string[], options: { sync?: boolean } = {}): Promise<void> {
    const batch = this.#lines + 1
    const text = bodies.map((body, i) => encodeLine({ number: batch + i, batch, body })).join('')
    await this.#tail.append(text, options)
    this.#lines += bodies.length
  }

  sync(): Promise<void> {
    return this.#tail.sync()
  }

  /** Another name for the same file; the directory is the caller's to sync. */
  rename(path: string): Promise<void> {
    return this.#tail.rename(path)
  }

  close(): Promise<void> {
    return this.#tail.close()
  }
}

/**
 * How far the file is good, and where it ends. What is not, at its end, was never promised, unless
 * a line of a later batch follows.
 */
async function readAll(
  file: OpenFile,
  path: string,
  visit: (line: Line, offset: number) => void,
): Promise<{ size: number; lines: number; end: number }> {
  let lines = 0
  let batch = 0
  let size = 0
  let end = 0
  let bad: number | undefined
  for await (const raw of linesOf(file)) {
    end = raw.end
    const line = raw.complete ? decodeLine(raw.text) : undefined
    const follows =
      line?.number === lines + 1 && (line.batch === line.number || (line.batch === batch && batch > 0))
    if (bad === undefined && follows) {
      visit(line, raw.start)
      lines = line.number
      batch = line.batch
      size = raw.end
      continue
    }
    bad ??= raw.start
    // What can be found behind a write that was not finished is of the same batch, and not what
    // should stand where the damage begins.
    const isOfSameBatch = line !== undefined && (line.batch === batch || line.batch === lines + 1)
    if (line !== undefined && (!isOfSameBatch || line.number <= lines + 1))
      throw damaged(path, bad, lines + 1)
  }
  // The first was on the disk before the file had its name.
  if (lines === 0) throw damaged(path, 0, 1)
  return { size, lines, end }
}

export function damaged(path: string, offset: number, line: number, why?: string): FormatError {
  const what = `line ${line} of ${path} is damaged${why === undefined ? '' : `: ${why}`}`
  return new FormatError('state file', what, {
    reason: 'state-damaged',
    context: { path, line, off: offset },
  })
}
