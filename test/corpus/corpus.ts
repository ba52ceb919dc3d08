/**
 * The corpus: BPF objects of Debian packages, by content, in .cache/corpus (see scan.ts, which
 * fills it). With BPFTOKEN_TEST_CORPUS=selftests it is another one: the kernel's own programs, by
 * the names of their files, in .cache/selftests (see scripts/fetch-selftests.sh).
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { CACHE } from '../helpers/machine.ts'

export const CORPUS = join(CACHE, 'corpus')
export const CORPUS_INDEX = join(CORPUS, 'index.json')
const SELFTESTS = join(CACHE, 'selftests')
const ofSelftests = process.env['BPFTOKEN_TEST_CORPUS'] === 'selftests'

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
  return join(ofSelftests ? join(SELFTESTS, 'objects') : CORPUS, `${object.hash}.o`)
}

/** All objects, in the order of their names; empty where the corpus was not fetched. */
export function corpusObjects(): CorpusObject[] {
  if (needsCorpus().skip !== undefined) return []
  return ofSelftests ? selftests() : (JSON.parse(readFileSync(CORPUS_INDEX, 'utf8')) as CorpusObject[])
}

function selftests(): CorpusObject[] {
  return readdirSync(join(SELFTESTS, 'objects'))
    .filter(file => file.endsWith('.o'))
    .sort()
    .map(file => {
      const hash = basename(file, '.o')
      const size = statSync(corpusFile({ hash })).size
      return { hash, name: hash, size, endian: 'little' as const, sections: [], found: [] }
    })
}

/** `{ skip: reason }` where there is no corpus, for the options of `test()`. */
export function needsCorpus(): { skip?: string } {
  if (!ofSelftests)
    return existsSync(CORPUS_INDEX) ? {} : { skip: '.cache/corpus/index.json is missing: run make corpus' }
  const whyNot = join(SELFTESTS, 'why-not')
  if (existsSync(whyNot))
    return { skip: `no selftests of the kernel: ${readFileSync(whyNot, 'utf8').trim()}` }
  return existsSync(join(SELFTESTS, 'objects'))
    ? {}
    : { skip: '.cache/selftests is missing: run make selftests' }
}
