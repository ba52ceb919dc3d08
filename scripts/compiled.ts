/** Programs in C that tests run, compiled once: a VM that runs these tests has no compiler. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { CACHE, ROOT } from './tree.ts'

/** What makes it an addon of Node. */
function addonFlags(): string[] {
  const headers = execFileSync(process.execPath, [join(ROOT, 'native/node-headers.cjs')], {
    encoding: 'utf8',
  })
  return ['-shared', '-fPIC', `-I${headers.trim()}`]
}

/**
 * The program, or the addon of Node, that `source` makes, in .cache; compiled again when the source
 * is newer.
 */
export function compiled(source: string): string {
  const program = join(CACHE, 'compiled', basename(source, '.c'))
  const made = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0
  if (made > statSync(source).mtimeMs) return program
  mkdirSync(join(CACHE, 'compiled'), { recursive: true })
  const partial = `${program}.${process.pid}`
  const isAddon = readFileSync(source, 'utf8').includes('NAPI_MODULE_INIT')
  execFileSync('gcc', ['-O1', '-Wall', '-Werror', ...(isAddon ? addonFlags() : []), '-o', partial, source])
  renameSync(partial, program)
  return program
}
