/**
 * bpftoken init: a directory to start from, with a BPF program, its policy, a client and a
 * Makefile. The files are those of examples/starter.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { quoted } from '../../ebpf/printable.ts'
import { BpftokenError, ConflictError, EXIT } from '../../errors.ts'
import { hintFor } from '../../uapi/hints.ts'
import { print, printJson } from '../output.ts'

const TEMPLATES = path.resolve(__dirname, '../../../examples/starter')
const FILES = ['counter.bpf.c', 'policy.yaml', 'client.mjs', 'Makefile', 'README.md'] as const

export interface InitOptions {
  force?: boolean
  json?: boolean
}

/** Overwrites nothing. ConflictError: a file is there already, and nothing was written. */
export function init(directory: string, options: InitOptions): number {
  const taken = FILES.filter(name => existsSync(path.join(directory, name)))
  if (taken.length > 0 && options.force !== true)
    throw new ConflictError(`${quoted(directory)} has ${taken.join(', ')} already`, {
      context: { directory, files: taken.join(',') },
      hint: 'Name another directory, or say --force to write only the files that are missing',
    })
  const wrote = FILES.filter(name => !taken.includes(name)).map(name => path.join(directory, name))
  try {
    mkdirSync(directory, { recursive: true })
    for (const file of wrote)
      writeFileSync(file, readFileSync(path.join(TEMPLATES, path.basename(file))), { flag: 'wx' })
  } catch (error) {
    throw cannotWrite(error, directory)
  }
  const kept = taken.map(name => path.join(directory, name))
  if (options.json === true) printJson({ directory, wrote, kept })
  else
    print(
      ...wrote.map(file => `wrote ${file}`),
      ...kept.map(file => `left ${file} as it is`),
      ...(directory === '.' ? ['next: make try'] : [`next: cd ${directory} && make try`]),
    )
  return EXIT.ok
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
