/**
 * The corpus: BPF objects of Debian packages, by content, in .cache/corpus (see scan.ts, which
 * fills it).
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CACHE } from '../helpers/machine.ts'

export const CORPUS = join(CACHE, 'corpus')
export const CORPUS_INDEX = join(CORPUS, 'index.json')

/** Where one object was found. */
export interface Occurrence {
  readonly package: string
  readonly version: string
  readonly suites: readonly string[]
  readonly path: string
  /** Byte offset when it was carved out of an executable or library. */
  readonly off?: number
}

export interface CorpusObject {
  /** First 16 hex digits of the SHA-256 of its bytes; the file is `<hash>.o`. */
  readonly hash: string
  /**
   * `package_version/file` or `package_version/file@offset` of the first occurrence, for people.
   */
  readonly name: string
  readonly size: number
  readonly endian: 'little' | 'big'
  readonly sections: readonly string[]
  readonly found: readonly Occurrence[]
}

export function corpusFile(object: Pick<CorpusObject, 'hash'>): string {
  return join(CORPUS, `${object.hash}.o`)
}

/** All objects, in the order of their names; empty where the corpus was not fetched. */
export function corpusObjects(): CorpusObject[] {
  return existsSync(CORPUS_INDEX) ? (JSON.parse(readFileSync(CORPUS_INDEX, 'utf8')) as CorpusObject[]) : []
}

/** `{ skip: reason }` where there is no corpus, for the options of `test()`. */
export function needsCorpus(): { skip?: string } {
  return existsSync(CORPUS_INDEX) ? {} : { skip: '.cache/corpus/index.json is missing: run make corpus' }
}
