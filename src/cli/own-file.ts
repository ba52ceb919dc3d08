/**
 * A file that decides something, and that one user alone may write to: read, and replaced as a
 * whole, with its owner and mode.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { ConflictError, DeniedError, FormatError, NotFoundError } from '../errors.ts'
import { notOwnersAlone, othersMayExchange } from '../uapi/file-owner.ts'
import { hintFor } from '../uapi/hints.ts'

export interface OwnFile {
  /** Without symbolic links. */
  readonly path: string
  readonly bytes: Buffer
  readonly facts: Stats
}

/**
 * Reads it. NotFoundError: it cannot be read. DeniedError: it is not a plain file with one name that
 * this user owns and nobody else may write to, or somebody else may exchange it, by a directory on
 * the way. FormatError: it is larger.
 */
export function readOwnFile(name: string, maxBytes: number): OwnFile {
  try {
    const path = realpathSync(name)
    requireOwnWay(dirname(path))
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)
    try {
      const facts = fstatSync(fd)
      const fault = faultOf(facts)
      if (fault !== undefined) throw refused(path, fault)
      return { path, bytes: contentsOf(fd, path, maxBytes), facts }
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    throw readable(cause, name)
  }
}

/** ConflictError: it is not as it was read any more. Errors are also those of `readOwnFile`. */
export function replaceOwnFile(file: OwnFile, bytes: Uint8Array): void {
  const { path, facts } = file
  const directory = dirname(path)
  const temporary = join(directory, `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
  try {
    const fd = openSync(temporary, 'wx', 0o600)
    try {
      writeFileSync(fd, bytes)
      fchownSync(fd, facts.uid, facts.gid)
      fchmodSync(fd, facts.mode & 0o7777)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    const { ino, size } = lstatSync(path)
    const isSame = ino === facts.ino && size === facts.size
    if (!isSame || !readOwnFile(path, size).bytes.equals(file.bytes))
      throw new ConflictError(`"${path}" was changed by somebody else meanwhile`, {
        context: { file: path },
        hint: 'Look at it, and try again',
      })
    renameSync(temporary, path)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw readable(cause, path)
  }
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function contentsOf(fd: number, path: string, maxBytes: number): Buffer {
  const bytes = Buffer.alloc(maxBytes + 1)
  let length = 0
  for (;;) {
    const count = readSync(fd, bytes, length, bytes.length - length, length)
    length += count
    if (length > maxBytes) throw new FormatError('file', `"${path}" is longer than ${maxBytes} bytes`)
    if (count === 0) return bytes.subarray(0, length)
  }
}

/** Why it is not this user's alone. */
function faultOf(facts: Stats): string | undefined {
  if (!facts.isFile()) return 'it is no plain file'
  const why = notOwnersAlone(facts, process.geteuid!())
  if (why !== undefined || facts.nlink === 1) return why
  return `it has ${facts.nlink} names, of which one alone would be replaced`
}

/** Whoever may write to a directory on the way may put another file there. */
function requireOwnWay(directory: string): void {
  const why = othersMayExchange(lstatSync(directory), process.geteuid!())
  if (why !== undefined) throw refused(directory, why)
  if (directory !== '/') requireOwnWay(dirname(directory))
}

function refused(path: string, why: string): DeniedError {
  return new DeniedError(`"${path}" is not changed: ${why}`, {
    context: { file: path },
    hint: 'Let it, and the directories on the way, belong to whoever changes it alone',
  })
}

function readable(cause: unknown, file: string): unknown {
  const { code } = cause as NodeJS.ErrnoException
  if (code === undefined || code.startsWith('BPFTOKEN_')) return cause
  return new NotFoundError(`Cannot change "${file}": ${code}`, {
    cause,
    context: { file, errno: code },
    hint: hintFor('open', code) ?? 'Name a file that is there, in a directory that can be written to',
  })
}
