/**
 * Values that hold until the next boot: what the kernel's type information says, and parsed
 * policies.
 *
 * Making either takes longer than all the rest of `run`. They are kept in a directory that only
 * root can enter and that the next boot empties. Each is kept together with the text that it was
 * made from: a value counts only for exactly that text, on exactly this kernel, made by exactly
 * this program. The directory holds a bounded number of bytes. A writer that adds an entry removes
 * the oldest ones beyond that, and files that an interrupted writer left.
 */
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { notOwnersAlone } from '../uapi/file-owner.ts'

/** Others may look into the first: the daemon's socket is there. */
const PARENT = '/run/bpftoken'
const DIRECTORY = `${PARENT}/cache`

/** What the directory may hold. */
export const CACHE_BOUNDS = { files: 64, bytes: 4 * 1024 * 1024, entryBytes: 1024 * 1024 } as const

/** Names begin with a dot until the entry is whole. A writer takes milliseconds. */
const ABANDONED_MS = 60_000

interface Entry {
  origin: string
  text: string
  value: unknown
}

/**
 * The value kept for `text`, as JSON, or what `make` gives, which is then kept. Whatever is wrong
 * with the cache (not root, read-only, full, broken), `make` is called: it costs time only.
 */
export async function cached<T>(
  kind: 'policy' | 'vocabulary',
  text: string,
  convert: { fromJSON(value: unknown): T; toJSON(value: T): unknown },
  make: () => T | Promise<T>,
): Promise<T> {
  const origin =
    process.geteuid?.() === 0 && isOurs(PARENT, 0o755) && isOurs(DIRECTORY, 0o700) ? originNow() : undefined
  if (origin === undefined) return make()
  // Of two builds on one machine neither takes the other's place.
  const file = join(DIRECTORY, `${kind}-${shortHash(origin + text)}.json`)
  try {
    const entry = JSON.parse(readEntry(file)) as Entry
    if (entry.origin === origin && entry.text === text) return convert.fromJSON(entry.value)
  } catch {
    // It is not there, or we cannot read it.
  }
  const value = await make()
  try {
    store(file, JSON.stringify({ origin, text, value: convert.toJSON(value) } satisfies Entry))
    prune(DIRECTORY)
  } catch {
    // A full or read-only /run costs time, not correctness.
  }
  return value
}

/**
 * The running kernel (its release, and the build id in its ELF notes) and this very build of the
 * program.
 */
function originNow(): string | undefined {
  try {
    const { mtimeMs, ino } = statSync(__filename)
    return `${release()} ${readFileSync('/sys/kernel/notes').toString('hex')} ${ino} ${mtimeMs}`
  } catch {
    return undefined
  }
}

/**
 * Fail closed: a file that others could have written, or that a link leads to, is not read. The
 * mode is the most that others may do in the directory.
 */
function isOurs(directory: string, mode: number): boolean {
  try {
    const stat = lstatSync(directory, { throwIfNoEntry: false }) ?? made(directory, mode)
    return stat.isDirectory() && stat.uid === 0 && (stat.mode & 0o077 & ~mode) === 0
  } catch {
    return false
  }
}

function made(directory: string, mode: number): Stats {
  mkdirSync(directory, { mode })
  return lstatSync(directory)
}

/**
 * Throws if it is no entry of ours, or if another user than root made it or could have written it.
 */
export function readEntry(file: string): string {
  const stat = lstatSync(file)
  if (!stat.isFile() || notOwnersAlone(stat, 0) !== undefined || stat.size > CACHE_BOUNDS.entryBytes)
    throw new RangeError('no entry of ours')
  return readFileSync(file, 'utf8')
}

/** FNV-1a. Only spreads names over files: the text itself is compared. */
function shortHash(text: string): string {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, '0')
}

/**
 * Writes all of the entry or nothing, whoever else writes it now. Throws if there is no room, and
 * then leaves nothing.
 */
function store(file: string, text: string): void {
  const bytes = Buffer.from(text)
  if (bytes.length > CACHE_BOUNDS.entryBytes) return
  const temporary = join(DIRECTORY, `.${process.pid}-${Math.random().toString(36).slice(2)}`)
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    try {
      if (writeSync(fd, bytes) !== bytes.length) throw new RangeError('no room')
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, file)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

/**
 * Removes the oldest entries beyond the bounds, and what writers left unfinished; a file that is
 * gone already is no failure.
 */
export function prune(directory: string, bounds: { files: number; bytes: number } = CACHE_BOUNDS): void {
  const now = Date.now()
  const entries = readdirSync(directory).flatMap(name => {
    const path = join(directory, name)
    const stat = lstatSync(path, { throwIfNoEntry: false })
    return stat?.isFile() !== true ? [] : [{ path, name, mtimeMs: stat.mtimeMs, bytes: stat.size }]
  })
  let files = 0
  let bytes = 0
  for (const entry of entries.sort((a, b) => b.mtimeMs - a.mtimeMs)) {
    const unfinished = entry.name.startsWith('.')
    files += 1
    bytes += entry.bytes
    const goes = unfinished
      ? Math.abs(now - entry.mtimeMs) > ABANDONED_MS
      : files > bounds.files || bytes > bounds.bytes
    if (!goes) continue
    files -= 1
    bytes -= entry.bytes
    rmSync(entry.path, { force: true })
  }
}
