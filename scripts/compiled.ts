/** Programs in C that tests run, compiled once: a VM that runs these tests has no compiler. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { CACHE } from './tree.ts'

/** Where Node's own headers are, which an addon needs. */
function nodeHeaders(): string[] {
  const places = [join(dirname(process.execPath), '../include/node'), '/usr/include/node']
  const found = places.find(place => existsSync(join(place, 'node_api.h')))
  return ['-shared', '-fPIC', ...(found === undefined ? [] : [`-I${found}`])]
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
  execFileSync('gcc', ['-O1', '-Wall', '-Werror', ...(isAddon ? nodeHeaders() : []), '-o', partial, source])
  renameSync(partial, program)
  return program
}
