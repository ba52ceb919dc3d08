/**
 * What libbpf says of objects: runs .cache/oracle/oracle (see oracle.c, which oracle.sh builds).
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CACHE } from '../helpers/machine.ts'
import { needsCorpus } from './corpus.ts'

export const ORACLE = join(CACHE, 'oracle/oracle')
const FOREIGN = join(CACHE, 'btf')

export interface OracleMap {
  readonly name: string
  readonly type: number
  readonly keyBytes: number
  readonly valueBytes: number
  readonly maxEntries: number
  readonly flags: number
  readonly extra: string
  readonly numaNode: number
  readonly pinned: boolean
  readonly autocreate: boolean
  /** Of global data or struct_ops. */
  readonly internal: boolean
  readonly inner: OracleMap | null
}

export interface OracleProgram {
  readonly name: string
  readonly section: string
  readonly type: number
  readonly attachType: number
  readonly autoload: boolean
  /** Hexadecimal, with every function that it calls; of `relocate` only. */
  readonly code?: string
  /** Hexadecimal; of `load` only, where it was loaded. */
  readonly tag?: string
}

export interface OracleAnswer {
  readonly path: string
  /** How far it came, or where it failed. */
  readonly stage: 'open' | 'externs' | 'core' | 'relocate' | 'prepare' | 'load'
  /** errno, or 0. */
  readonly error: number
  /** Not there for what could not be opened. */
  readonly maps?: readonly OracleMap[]
  readonly programs?: readonly OracleProgram[]
  /** What libbpf printed. */
  readonly warnings: readonly string[]
}

/**
 * Asks about each file, in order. All but `open` need root. `btf`: a kernel's types, else those of
 * this one.
 */
export function askOracle(
  mode: 'open' | 'relocate' | 'load',
  files: readonly string[],
  btf?: string,
): OracleAnswer[] {
  const { stdout, stderr, status } = spawnSync(ORACLE, btf === undefined ? [mode] : [mode, btf], {
    input: `${files.join('\n')}\n`,
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
  })
  const lines = stdout.trim().split('\n')
  if (status !== 0 || lines.length !== files.length)
    throw new Error(`The oracle ended with ${status} after ${lines.length} files: ${stderr.slice(-500)}`)
  const warnings = stderr.split(/^## .*\n/m).slice(1)
  return lines.map((line, i) => {
    const answer = JSON.parse(line) as Omit<OracleAnswer, 'warnings'>
    return { ...answer, warnings: warnings[i]!.split('\n').filter(text => text !== '') }
  })
}

/** Types of kernels that do not run here, by version. */
export function foreignKernels(): { name: string; path: string }[] {
  if (!existsSync(join(FOREIGN, 'complete'))) return []
  return readdirSync(FOREIGN)
    .filter(file => file.endsWith('.btf'))
    .map(file => ({ name: file.slice(0, -'.btf'.length), path: join(FOREIGN, file) }))
}

/** `{ skip: reason }` where there is no corpus or no oracle, for the options of `test()`. */
export function needsOracle(): { skip?: string } {
  const corpus = needsCorpus()
  if (corpus.skip !== undefined) return corpus
  if (!existsSync(ORACLE)) return { skip: '.cache/oracle/oracle is missing: run test/corpus/oracle.sh' }
  return {}
}
