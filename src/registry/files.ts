/**
 * The few things that are done to files here. None of them holds up the event loop. What cannot be
 * done throws Node's own error, with its `code`. Tests put faults in its place.
 */
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { lockFile } from '../sys/file-lock.ts'
import { writeSynced } from '../sys/synced-write.ts'

export interface OpenFile {
  size(): Promise<number>
  /** Fewer bytes at the end of the file. */
  read(offset: number, length: number): Promise<Buffer>
  /** How many bytes were written: perhaps not all. */
  write(bytes: Uint8Array, offset: number): Promise<number>
  /** The same, and then all of the file is on the disk. */
  writeSynced(bytes: Uint8Array, offset: number): Promise<number>
  datasync(): Promise<void>
  truncate(size: number): Promise<void>
  close(): Promise<void>
}

export interface Facts {
  readonly uid: number
  /** Of its kind and of who may what, as stat(2) says. */
  readonly mode: number
}

export interface Files {
  /** `create`: it must not be there yet. Opened files are for root alone. */
  open(path: string, how: 'read' | 'write' | 'create'): Promise<OpenFile>
  rename(from: string, to: string): Promise<void>
  /** Does nothing where there is none. */
  remove(path: string): Promise<void>
  /** Makes names in the directory last. */
  syncDirectory(path: string): Promise<void>
  list(directory: string): Promise<readonly string[]>
  /** Does nothing where there is one; those above it must exist. */
  makeDirectory(path: string): Promise<void>
  facts(path: string): Promise<Facts>
  /** Until it is closed, or we die. Undefined: somebody else has it. */
  lock(path: string): Promise<{ close(): Promise<void> } | undefined>
}

const FLAGS = {
  read: constants.O_RDONLY,
  write: constants.O_RDWR,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
} as const

class RealFile implements OpenFile {
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length)
    let read = 0
    while (read < length) {
      const { bytesRead } = await this.#handle.read(bytes, read, length - read, offset + read)
      if (bytesRead === 0) break
      read += bytesRead
    }
    return bytes.subarray(0, read)
  }

  async write(bytes: Uint8Array, offset: number): Promise<number> {
    return (await this.#handle.write(bytes, 0, bytes.length, offset)).bytesWritten
  }

  writeSynced(bytes: Uint8Array, offset: number): Promise<number> {
    return writeSynced(this.#handle.fd, bytes, offset)
  }

  datasync(): Promise<void> {
    return this.#handle.datasync()
  }

  truncate(size: number): Promise<void> {
    return this.#handle.truncate(size)
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

export const REAL_FILES: Files = {
  async open(path, how) {
    return new RealFile(await open(path, FLAGS[how] | constants.O_NOFOLLOW, 0o600))
  },
  rename: (from, to) => rename(from, to),
  remove: path => rm(path, { force: true }),
  async syncDirectory(path) {
    const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
  list: path => readdir(path),
  async makeDirectory(path) {
    try {
      await mkdir(path, 0o700)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  },
  async facts(path) {
    const { uid, mode } = await stat(path)
    return { uid, mode }
  },
  async lock(path) {
    const handle = await open(path, constants.O_RDONLY)
    try {
      if (lockFile(handle.fd, path)) return handle
    } catch (error) {
      await handle.close()
      throw error
    }
    await handle.close()
    return undefined
  },
}

/** Of Node's errors: `ENOENT`, and undefined of others. */
export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code
}
