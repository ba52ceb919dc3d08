/** Programs in C that tests run, compiled once: a VM that runs these tests has no compiler. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, renameSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { CACHE } from './machine.ts'

/** The program that `source` makes, in .cache; compiled again when the source is newer. */
export function compiled(source: string): string {
  const program = join(CACHE, 'compiled', basename(source, '.c'))
  const made = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0
  if (made > statSync(source).mtimeMs) return program
  mkdirSync(join(CACHE, 'compiled'), { recursive: true })
  const partial = `${program}.${process.pid}`
  execFileSync('gcc', ['-O1', '-Wall', '-Werror', '-o', partial, source])
  renameSync(partial, program)
  return program
}
