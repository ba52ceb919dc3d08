/**
 * A disk in memory that knows what was synced and what was not, and that fails, fills up or stops
 * where a test says. Not a file system: just what `Files` asks for.
 */
import { basename, dirname } from 'node:path'
import type { Facts, Files, OpenFile } from '../../../src/registry/files.ts'

/** What stays of what was not synced: none of it, half of what was appended, half as zeros, all. */
export const LEFTOVERS = ['none', 'half', 'zeros', 'all'] as const
export type Leftover = (typeof LEFTOVERS)[number]

/** Thrown by everything from the crash on. */
export class Crash extends Error {}

export function errnoError(code: string, syscall: string): NodeJS.ErrnoException {
  const errnos: Record<string, number> = { ENOENT: -2, EIO: -5, EEXIST: -17, ENOSPC: -28, EROFS: -30 }
  return Object.assign(new Error(`${code}: ${syscall}`), { code, syscall, errno: errnos[code]! })
}

class Inode {
  synced: Buffer = Buffer.alloc(0)
  now: Buffer = Buffer.alloc(0)

  after(left: Leftover): Inode {
    const inode = new Inode()
    inode.now = inode.synced = Buffer.from(this.#left(left))
    return inode
  }

  #left(left: Leftover): Buffer {
    const { synced, now } = this
    if (left === 'none') return synced
    if (left === 'all' || now.length <= synced.length) return now
    const middle = synced.length + Math.ceil((now.length - synced.length) / 2)
    if (left === 'half') return now.subarray(0, middle)
    return Buffer.concat([synced, Buffer.alloc(middle - synced.length), now.subarray(middle)])
  }
}

export class MemoryDisk implements Files {
  #names = new Map<string, Inode>()
  #syncedNames = new Map<string, Inode>()
  readonly #directories = new Set<string>()
  readonly #locked = new Set<string>()
  readonly opened = new Set<object>()
  /** How many operations that change something were begun. */
  operations = 0
  /** Called before each of them; what it throws is how it fails. */
  before: (operation: string, path: string, number: number) => void = () => {}
  /** Bytes that may still be written. */
  free = Infinity
  /** At most so many are written by one call. */
  maxWrite = Infinity
  readOnly = false
  #stopped = false

  /** All that is done from now on fails, and so it is seen from outside. */
  stop(): never {
    this.#stopped = true
    throw new Crash('the machine stopped')
  }

  /** What the next start finds. `names`: whether changed names that were not synced are there. */
  crashed(left: Leftover, names: 'old' | 'new'): MemoryDisk {
    const disk = new MemoryDisk()
    const inodes = new Map<Inode, Inode>()
    for (const [path, inode] of names === 'old' ? this.#syncedNames : this.#names) {
      const after = inodes.get(inode) ?? inode.after(left)
      inodes.set(inode, after)
      disk.#names.set(path, after)
    }
    disk.#syncedNames = new Map(disk.#names)
    for (const directory of this.#directories) disk.#directories.add(directory)
    return disk
  }

  content(path: string): Buffer {
    return this.#inode(path).now
  }

  setContent(path: string, bytes: Uint8Array): void {
    const inode = new Inode()
    inode.now = inode.synced = Buffer.from(bytes)
    this.#names.set(path, inode)
    this.#syncedNames.set(path, inode)
  }

  names(): string[] {
    return [...this.#names.keys()].map(path => basename(path)).sort()
  }

  async open(path: string, how: 'read' | 'write' | 'create'): Promise<OpenFile> {
    if (how === 'create') {
      this.#change('create', path)
      if (this.#names.has(path)) throw errnoError('EEXIST', 'open')
      this.#names.set(path, new Inode())
    } else this.#alive()
    if (how === 'write' && this.readOnly) throw errnoError('EROFS', 'open')
    const inode = this.#inode(path)
    const file: OpenFile = {
      size: async () => {
        this.#alive()
        return inode.now.length
      },
      read: async (offset, length) => {
        this.#alive()
        return Buffer.from(inode.now.subarray(offset, offset + length))
      },
      write: async (bytes, offset) => {
        this.#alive()
        if (offset !== inode.now.length) throw new Error(`${path}: written at ${offset}, not at its end`)
        if (this.free === 0) throw errnoError('ENOSPC', 'write')
        const taken = Math.min(bytes.length, this.maxWrite, this.free)
        const before = inode.now
        // A write that is cut off by a stop may have begun.
        inode.now = Buffer.concat([before, bytes.subarray(0, Math.ceil(taken / 2))])
        this.#change('write', path)
        inode.now = Buffer.concat([before, bytes.subarray(0, taken)])
        this.free -= taken
        return taken
      },
      writeSynced: async (bytes, offset) => {
        const written = await file.write(bytes, offset)
        await file.datasync()
        return written
      },
      datasync: async () => {
        this.#change('datasync', path)
        inode.synced = inode.now
      },
      truncate: async size => {
        this.#change('truncate', path)
        if (size < inode.now.length) this.free += inode.now.length - size
        inode.now = inode.now.subarray(0, size)
      },
      close: async () => {
        if (!this.opened.delete(file)) throw new Error(`${path} was closed twice`)
      },
    }
    this.opened.add(file)
    return file
  }

  async rename(from: string, to: string): Promise<void> {
    this.#change('rename', from)
    const inode = this.#inode(from)
    this.#names.delete(from)
    this.#names.set(to, inode)
  }

  async remove(path: string): Promise<void> {
    if (!this.#names.has(path)) return
    this.#change('remove', path)
    this.#names.delete(path)
  }

  async syncDirectory(path: string): Promise<void> {
    this.#change('sync', path)
    for (const known of [...this.#syncedNames.keys()])
      if (dirname(known) === path && !this.#names.has(known)) this.#syncedNames.delete(known)
    for (const [name, inode] of this.#names) if (dirname(name) === path) this.#syncedNames.set(name, inode)
  }

  async list(directory: string): Promise<readonly string[]> {
    this.#alive()
    return [...this.#names.keys()].filter(path => dirname(path) === directory).map(path => basename(path))
  }

  async makeDirectory(path: string): Promise<void> {
    if (this.#directories.has(path)) return
    this.#change('mkdir', path)
    this.#directories.add(path)
  }

  async facts(): Promise<Facts> {
    this.#alive()
    return { uid: process.geteuid!(), mode: 0o40700 }
  }

  async lock(path: string): Promise<{ close(): Promise<void> } | undefined> {
    this.#alive()
    if (this.#locked.has(path)) return undefined
    this.#locked.add(path)
    return {
      close: async () => {
        this.#locked.delete(path)
      },
    }
  }

  #alive(): void {
    if (this.#stopped) throw new Crash('the machine has stopped')
  }

  #change(operation: string, path: string): void {
    this.#alive()
    this.before(operation, path, this.operations++)
    if (this.readOnly) throw errnoError('EROFS', operation)
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path)
    if (inode === undefined) throw errnoError('ENOENT', 'open')
    return inode
  }
}
