/**
 * bpftoken init: a directory to start from, with a BPF program, its policy, a client and a
 * Makefile. The files are those of examples/starter.
 */
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { quoted, shellPath } from '../../ebpf/printable.ts'
import { BpftokenError, ConflictError, EXIT } from '../../errors.ts'
import { hintFor } from '../../uapi/hints.ts'
import { print, printJson } from '../output.ts'

const TEMPLATES = path.resolve(__dirname, '../../../examples/starter')
const FILES = ['counter.bpf.c', 'policy.yaml', 'client.mjs', 'Makefile', 'README.md'] as const

export interface InitOptions {
  force?: boolean
  json?: boolean
}

/** Overwrites nothing. ConflictError: a file is there already, or cannot be
 * written, and nothing was written. */
export function init(directory: string, options: InitOptions): number {
  // A link to nothing is there, too.
  const taken = FILES.filter(name => isThere(path.join(directory, name)))
  if (taken.length > 0 && options.force !== true)
    throw new ConflictError(`${quoted(directory)} has ${taken.join(', ')} already`, {
      context: { directory, files: taken.join(',') },
      hint: 'Name another directory, or say --force to write only the files that are missing',
    })
  const wrote = FILES.filter(name => !taken.includes(name)).map(name => path.join(directory, name))
  try {
    writeAll(directory, wrote)
  } catch (error) {
    throw cannotWrite(error, directory)
  }
  const kept = taken.map(name => path.join(directory, name))
  if (options.json === true) printJson({ directory, wrote, kept })
  else
    print(
      ...wrote.map(file => `wrote ${file}`),
      ...kept.map(file => `left ${file} as it is`),
      ...(directory === '.' ? ['next: make try'] : [`next: cd ${shellPath(directory)} && make try`]),
    )
  return EXIT.ok
}

function isThere(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false }) !== undefined
}

/** All or none. */
function writeAll(directory: string, files: readonly string[]): void {
  const contents = files.map(file => readFileSync(path.join(TEMPLATES, path.basename(file))))
  const first = mkdirSync(directory, { recursive: true })
  const made: string[] = []
  try {
    for (const [i, file] of files.entries()) {
      const fd = openSync(file, 'wx')
      made.push(file)
      try {
        writeFileSync(fd, contents[i]!)
      } finally {
        closeSync(fd)
      }
    }
  } catch (error) {
    for (const file of made) rmSync(file, { force: true })
    if (first !== undefined) removeEmpty(directory, first)
    throw error
  }
}

/** `directory` and those above it, up to `first`. */
function removeEmpty(directory: string, first: string): void {
  const last = path.dirname(path.resolve(first))
  try {
    for (let one = path.resolve(directory); one !== last; one = path.dirname(one)) rmdirSync(one)
  } catch {
    // Somebody else has put something there: it stays.
  }
}

function cannotWrite(error: unknown, directory: string): unknown {
  const { code } = error as NodeJS.ErrnoException
  if (error instanceof BpftokenError || code === undefined) return error
  return new ConflictError(`Cannot write to ${quoted(directory)}: ${code}`, {
    cause: error,
    context: { directory, errno: code },
    hint: hintFor('open', code) ?? 'Name a directory that you may write to',
  })
}
