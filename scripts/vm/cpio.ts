/**
 * Archives of the format `newc` as the kernel unpacks them at boot; several, one after the other,
 * are one file system.
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

const S_IFDIR = 0o040000
const S_IFREG = 0o100000
const S_IFLNK = 0o120000

export class Cpio {
  readonly #parts: Buffer[] = []
  readonly #folders = new Set<string>(['.', '/'])
  #inode = 0

  /** A file; folders above it are made as needed. */
  file(path: string, content: Uint8Array | string, mode = 0o644, mtimeSec = 0): void {
    this.#add(path, S_IFREG | mode, Buffer.from(content as Uint8Array), mtimeSec)
  }

  link(path: string, to: string): void {
    this.#add(path, S_IFLNK | 0o777, Buffer.from(to), 0)
  }

  folder(path: string, mode = 0o755): void {
    if (this.#folders.has(path)) return
    this.#folders.add(path)
    this.#add(path, S_IFDIR | mode, Buffer.alloc(0), 0)
  }

  /**
   * A file, link or whole folder of this machine, as it is there. `wanted` tells which files to
   * take, by path here.
   */
  copy(from: string, to = from, wanted: (path: string) => boolean = () => true): void {
    const stat = lstatSync(from)
    if (stat.isDirectory()) {
      this.folder(to)
      for (const name of readdirSync(from).sort()) this.copy(join(from, name), join(to, name), wanted)
    } else if (!wanted(from)) return
    else if (stat.isSymbolicLink()) this.link(to, readlinkSync(from))
    else if (stat.isFile())
      this.file(to, readFileSync(from), stat.mode & 0o777, Math.floor(stat.mtimeMs / 1000))
  }

  /** The archive, in pieces. */
  finish(): Buffer[] {
    this.#add('TRAILER!!!', 0, Buffer.alloc(0), 0)
    return this.#parts
  }

  #add(path: string, mode: number, content: Buffer, mtimeSec: number): void {
    const name = path.replace(/^\//, '')
    const above = name.slice(0, Math.max(0, name.lastIndexOf('/')))
    if (above !== '') this.folder(`/${above}`)
    // Owner and group are root. One link, no device.
    const links = 1
    const fields = [
      ++this.#inode,
      mode,
      0,
      0,
      links,
      mtimeSec,
      content.length,
      0,
      0,
      0,
      0,
      name.length + 1,
      0,
    ]
    const header = `070701${fields.map(field => field.toString(16).padStart(8, '0')).join('')}${name}\0`
    this.#parts.push(padded(Buffer.from(header, 'latin1')), padded(content))
  }
}

/** To a multiple of four bytes. */
function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % 4
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)])
}
