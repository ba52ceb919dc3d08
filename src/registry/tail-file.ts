/**
 * A file that grows at its end, and of which we know how far it is good.
 *
 * A write that fails is cut off again, at once or, where that fails too, before the next write: so
 * the file never holds what a caller was told is not there, except over a crash in between. The
 * same holds for what the kernel could not bring to the disk: after a failed fdatasync(2) it takes
 * the pages for clean, and calling it again would say that all is well.
 */
import { codeOf, type Files, type OpenFile } from './files.ts'
import { storageError } from './storage-error.ts'

export class TailFile {
  readonly #files: Files
  #path: string
  #file: OpenFile
  #writable: boolean
  /** All before is good. */
  #size: number
  /** Behind `#size` may be something. */
  #dirty: boolean

  private constructor(
    files: Files,
    path: string,
    file: OpenFile,
    state: { size: number; writable: boolean; dirty: boolean },
  ) {
    this.#files = files
    this.#path = path
    this.#file = file
    this.#size = state.size
    this.#writable = state.writable
    this.#dirty = state.dirty
  }

  /** A new and empty one. EEXIST: there is one. */
  static async create(files: Files, path: string): Promise<TailFile> {
    const file = await files.open(path, 'create')
    return new TailFile(files, path, file, { size: 0, writable: true, dirty: false })
  }

  /**
   * `read` says how far it is good; what is behind is cut off. Where the file system cannot be
   * written, that is done before the first write that succeeds.
   */
  static async open(
    files: Files,
    path: string,
    read: (file: OpenFile) => Promise<number>,
  ): Promise<TailFile> {
    const { file, writable } = await openForWriting(files, path)
    try {
      const size = await read(file)
      const tail = new TailFile(files, path, file, { size, writable, dirty: true })
      // Whatever is written next says that all before it is on the disk.
      if (writable) await tail.#clean().catch(() => {})
      return tail
    } catch (error) {
      await file.close()
      throw error
    }
  }

  get path(): string {
    return this.#path
  }

  get size(): number {
    return this.#size
  }

  /** Text in ASCII. Unless `sync` is false it is on the disk when it returns. */
  async append(text: string, { sync = true } = {}): Promise<void> {
    const bytes = Buffer.from(text, 'latin1')
    try {
      await this.#clean()
      this.#dirty = true
      for (let done = 0; done < bytes.length; ) {
        const rest = bytes.subarray(done)
        const at = this.#size + done
        const written = await (sync ? this.#file.writeSynced(rest, at) : this.#file.write(rest, at))
        if (written === 0) throw new Error(`${this.#path} takes no more bytes`)
        done += written
      }
      this.#dirty = false
      this.#size += bytes.length
    } catch (error) {
      await this.#clean().catch(() => {})
      throw storageError(error, this.#path)
    }
  }

  sync(): Promise<void> {
    return this.#file.datasync()
  }

  /** Another name for the same file; the directory is the caller's to sync. */
  async rename(path: string): Promise<void> {
    await this.#files.rename(this.#path, path)
    this.#path = path
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async #clean(): Promise<void> {
    if (!this.#dirty) return
    if (!this.#writable) {
      const file = await this.#files.open(this.#path, 'write')
      await this.#file.close()
      this.#file = file
      this.#writable = true
    }
    await this.#file.truncate(this.#size)
    await this.#file.datasync()
    this.#dirty = false
  }
}

async function openForWriting(files: Files, path: string): Promise<{ file: OpenFile; writable: boolean }> {
  try {
    return { file: await files.open(path, 'write'), writable: true }
  } catch (error) {
    if (codeOf(error) !== 'EROFS') throw error
    return { file: await files.open(path, 'read'), writable: false }
  }
}
