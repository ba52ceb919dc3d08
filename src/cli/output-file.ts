/** Files that the command line names to be written. */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { NotFoundError } from '../errors.ts'
import { hintFor } from '../uapi/hints.ts'

/** The file that -o names; undefined: none, and the answer goes to standard output, as `-` says. */
export function outputFile({ output }: { readonly output?: string }): string | undefined {
  return output === '-' ? undefined : output
}

/** Writes the whole file anew. */
export function writeOutput(path: string, contents: string | Uint8Array): void {
  using file = new OpenOutput(path)
  file.write(contents)
}

/**
 * A file that is open before there is anything to write: what takes hours does not find out at its
 * end that there is no such directory. One that it has made is removed where nothing was written.
 */
export class OpenOutput implements Disposable {
  readonly #path: string
  readonly #fd: number
  readonly #isNew: boolean
  #isWritten = false

  /** NotFoundError: it cannot be opened. What is in it stays until something is written. */
  constructor(path: string) {
    this.#path = path
    const { O_WRONLY, O_CREAT, O_EXCL } = constants
    const opened = this.#told(() => {
      try {
        return { fd: openSync(path, O_WRONLY | O_CREAT | O_EXCL, 0o666), isNew: true }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
        return { fd: openSync(path, O_WRONLY | O_CREAT, 0o666), isNew: false }
      }
    })
    this.#fd = opened.fd
    this.#isNew = opened.isNew
  }

  /** NotFoundError: it cannot be written. */
  write(contents: string | Uint8Array): void {
    this.#told(() => {
      if (fstatSync(this.#fd).isFile()) ftruncateSync(this.#fd)
      writeFileSync(this.#fd, contents)
    })
    this.#isWritten = true
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
    if (this.#isNew && !this.#isWritten) rmSync(this.#path, { force: true })
  }

  #told<T>(work: () => T): T {
    try {
      return work()
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code === undefined) throw cause
      throw new NotFoundError(`Cannot write "${this.#path}": ${code}`, {
        context: { file: this.#path, errno: code },
        hint: hintFor('open', code) ?? 'Name a file in a directory that is there',
      })
    }
  }
}
