/**
 * Where a program or library is whose name has no slash: `libc.so.6`, `bash`.
 *
 * Libraries are looked for as the dynamic loader does for a program of this machine's own kind: in
 * its cache, /etc/ld.so.cache, or where musl's path file says, and then in the usual directories.
 * Programs are looked for in the directories of the usual PATH. The environment is not asked: it
 * would let whoever starts us choose what is probed. Layout of the cache: glibc,
 * sysdeps/generic/dl-cache.h.
 */
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { NotFoundError } from '../../errors.ts'
import { Executable } from '../elf/executable.ts'

const CACHE = '/etc/ld.so.cache'
const MAGIC = 'glibc-ld.so.cache1.1'
/** Magic, two counts, flags, extension offset, and room. */
const HEADER_BYTES = 48
/** flags, two string offsets, os version, hardware capabilities. */
const ENTRY_BYTES = 24
/** Upper byte: which machine; lower byte: 3 for libraries of glibc. */
const KINDS: Readonly<Record<string, number>> = { x64: 0x0303, arm64: 0x0a03 }
const TRIPLETS: Readonly<Record<string, string>> = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }
const MUSL: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' }
const PROGRAM_DIRECTORIES = [
  ...['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'],
]
const MAX_CACHE_BYTES = 64 * 1024 * 1024

/**
 * The file of that name; a path stays as it is. NotFoundError: nothing is called so where it was
 * looked for.
 */
export function programFile(name: string): string {
  if (name.includes('/')) return name
  const isLibrary = name.endsWith('.so') || name.includes('.so.')
  const found = isLibrary ? libraryFile(name) : inDirectories(PROGRAM_DIRECTORIES, name, constants.X_OK)
  if (found !== undefined) return found
  throw new NotFoundError(
    `There is no ${isLibrary ? 'library' : 'program'} "${name}" where they are looked for`,
    {
      context: { name },
      hint: 'Name it by its whole path',
    },
  )
}

/** NotFoundError: it cannot be read, or is no file. FormatError: it is not ELF of 64 bits. */
export function openExecutable(path: string): Executable {
  return new Executable(readWhole(path), path)
}

function readWhole(path: string): Uint8Array {
  let reason = 'is no file'
  let cause: unknown
  try {
    // A pipe would never end.
    if (statSync(path).isFile()) return readFileSync(path)
  } catch (error) {
    reason = `cannot be read: ${(error as NodeJS.ErrnoException).code ?? 'failed'}`
    cause = error
  }
  throw new NotFoundError(`${path} ${reason}`, {
    cause,
    context: { path },
    hint: 'Name a program or library that is there and that we may read',
  })
}

function libraryFile(name: string): string | undefined {
  const cached = inCache(readOrEmpty(CACHE), name, KINDS[process.arch] ?? 0)
  if (cached !== undefined && isReadable(cached)) return cached
  return inDirectories(libraryDirectories(), name, constants.R_OK)
}

function libraryDirectories(): string[] {
  const triplet = TRIPLETS[process.arch]
  const musl = readOrEmpty(`/etc/ld-musl-${MUSL[process.arch] ?? process.arch}.path`)
  return [
    ...musl.toString('utf8').split(/[:\n]/),
    ...(triplet === undefined ? [] : [`/lib/${triplet}`, `/usr/lib/${triplet}`]),
    ...['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib'],
  ].filter(directory => directory.startsWith('/'))
}

/** What the loader's cache says of a library; undefined: nothing, or it is no cache. Pure. */
export function inCache(bytes: Buffer, name: string, kind: number): string | undefined {
  // Old caches have another one in front, which ends on a boundary of 8 bytes.
  const start = bytes.indexOf(MAGIC)
  if (start === -1 || start + HEADER_BYTES > bytes.length) return undefined
  const count = bytes.readUInt32LE(start + 20)
  const text = (off: number): string | undefined => {
    const from = start + off
    const end = from < bytes.length ? bytes.indexOf(0, from) : -1
    return end === -1 ? undefined : bytes.toString('utf8', from, end)
  }
  for (let i = 0; i < count; i++) {
    const at = start + HEADER_BYTES + i * ENTRY_BYTES
    if (at + ENTRY_BYTES > bytes.length) return undefined
    // Variants for newer CPUs are of no use to those processes that do not run them.
    const plain = bytes.readBigUInt64LE(at + 16) === 0n
    if (!plain || bytes.readInt32LE(at) !== kind) continue
    if (text(bytes.readUInt32LE(at + 4)) === name) return text(bytes.readUInt32LE(at + 8))
  }
  return undefined
}

function inDirectories(directories: readonly string[], name: string, mode: number): string | undefined {
  return directories.map(directory => `${directory}/${name}`).find(path => isReadable(path, mode))
}

function isReadable(path: string, mode: number = constants.R_OK): boolean {
  try {
    accessSync(path, mode | constants.R_OK)
    return true
  } catch {
    return false
  }
}

function readOrEmpty(path: string): Buffer {
  try {
    const bytes = readFileSync(path)
    return bytes.length > MAX_CACHE_BYTES ? Buffer.alloc(0) : bytes
  } catch {
    return Buffer.alloc(0)
  }
}
