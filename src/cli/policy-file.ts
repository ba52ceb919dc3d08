/**
 * A policy from a file, and the vocabulary of this kernel that it is read in.
 */
import { type Dirent, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { NotFoundError, UsageError } from '../errors.ts'
import { locatedPolicyFromText, policyFromText } from '../lending/policy-text.ts'
import type { LocatedPolicy } from '../policy/located.ts'
import type { Policy } from '../policy/policy.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { hintFor } from '../uapi/hints.ts'
import { readInput } from './input-file.ts'
import { note } from './output.ts'

export { loadVocabulary } from '../lending/policy-text.ts'

/** What the parser takes at most; see src/policy/document.ts. */
export const MAX_POLICY_BYTES = 256 * 1024

/** The text of a policy file (`-`: standard input). Errors are those of `readInput`. */
export function readPolicyText(file: string): string {
  return textOf(file, false)
}

function textOf(file: string, plainOnly: boolean): string {
  const hint = 'Give the path of a policy file; see docs/policy.md for its form'
  return readInput(file, { what: 'policy', maxBytes: MAX_POLICY_BYTES, hint, plainOnly }).toString('utf8')
}

/** A file that the command line names, or that lies in a directory that it names. */
export interface PolicyFile {
  readonly path: string
  /** Errors are those of `readInput`. */
  readonly text: () => string
}

/**
 * No more files than this are taken from one directory: a larger one is hardly a directory of
 * policies.
 */
const MAX_FILES = 10_000

/**
 * The path itself, or if it is a directory the policies (`*.yaml`, `*.yml`) in it and below it, in
 * order. The path may be a link. In a directory only plain files are taken; links and pipes are
 * skipped with a note. A directory that cannot be read is listed itself, and reading it throws the
 * error. UsageError: there is no policy, or there are too many.
 */
export function policyFilesAt(path: string): PolicyFile[] {
  if (path === '-' || !isDirectory(path)) return [{ path, text: () => textOf(path, false) }]
  const files: PolicyFile[] = []
  const visit = (directory: string): void => {
    const entries = entriesOf(directory)
    if ('text' in entries) files.push(entries)
    else
      for (const entry of entries.list) {
        const inside = join(directory, entry.name)
        if (entry.isDirectory()) visit(inside)
        else if (!/\.ya?ml$/.test(entry.name)) continue
        else if (entry.isFile()) files.push({ path: inside, text: () => textOf(inside, true) })
        else note(`${inside} is left out: it is no plain file`)
        if (files.length > MAX_FILES)
          throw new UsageError(`There are more than ${MAX_FILES} policies in ${path}`)
      }
  }
  visit(path)
  if (files.length === 0) throw new UsageError(`There is no policy (*.yaml) in ${path}`)
  return files
}

/** False if this cannot be told; reading it then says why. */
function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

function entriesOf(directory: string): { readonly list: Dirent[] } | PolicyFile {
  try {
    return { list: readdirSync(directory, { withFileTypes: true }).sort(byName) }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === undefined) throw cause
    const error = new NotFoundError(`Cannot read the directory "${directory}": ${code}`, {
      context: { file: directory, errno: code },
      hint: hintFor('open', code) ?? 'Name the policies in it that you may read',
    })
    return {
      path: directory,
      text: () => {
        throw error
      },
    }
  }
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1
}

export function loadPolicy(file: string, vocabulary: Vocabulary): Promise<Policy> {
  return policyIn({ path: file, text: () => readPolicyText(file) }, vocabulary)
}

export async function policyIn({ path, text }: PolicyFile, vocabulary: Vocabulary): Promise<Policy> {
  return policyFromText(text(), path, vocabulary)
}

/** The same with its positions; see `locatedPolicyFromText`. */
export async function locatedPolicyIn(
  { path, text }: PolicyFile,
  vocabulary: Vocabulary,
  options: { keep?: boolean },
): Promise<LocatedPolicy> {
  return locatedPolicyFromText(text(), path, vocabulary, options)
}
