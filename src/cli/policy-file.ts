/**
 * A policy from a file, and the vocabulary of this kernel that it is read in; see boot-cache.ts.
 */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { readKernelEnums } from '../delegation/vocabulary.ts'
import { UsageError } from '../errors.ts'
import { type Policy, policyFromJSON, policyToJSON } from '../policy/policy.ts'
import { type KernelEnums, type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'
import { cached } from './boot-cache.ts'
import { readInput } from './input-file.ts'

/** What the parser takes at most; see src/policy/document.ts. */
const MAX_POLICY_BYTES = 256 * 1024

/** The text of a policy file (`-`: standard input). Errors are those of `readInput`. */
export function readPolicyText(file: string): string {
  const hint = 'Give the path of a policy file; see docs/policy.md for its form'
  return readInput(file, { what: 'policy', maxBytes: MAX_POLICY_BYTES, hint }).toString('utf8')
}

/** No more files than this are taken from one directory: it is not one of policies. */
const MAX_FILES = 10_000

/**
 * The path itself, or the policies (`*.yaml`, `*.yml`) in the directory that it is, and in those
 * below it, in order. Links are not followed. UsageError: there is none, or too many.
 */
export function policyFilesAt(path: string): string[] {
  if (path === '-' || !statSync(path, { throwIfNoEntry: false })?.isDirectory()) return [path]
  const files: string[] = []
  const visit = (directory: string): void => {
    for (const entry of readdirSync(directory, { withFileTypes: true }).sort(byName)) {
      const inside = join(directory, entry.name)
      if (entry.isDirectory()) visit(inside)
      else if (/\.ya?ml$/.test(entry.name)) files.push(inside)
      if (files.length > MAX_FILES)
        throw new UsageError(`There are more than ${MAX_FILES} policies in ${path}`)
    }
  }
  visit(path)
  if (files.length === 0) throw new UsageError(`There is no policy (*.yaml) in ${path}`)
  return files
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1
}

export async function loadVocabulary(): Promise<Vocabulary> {
  const asIs = { fromJSON: (value: unknown) => value as KernelEnums, toJSON: (value: KernelEnums) => value }
  return vocabularyFrom(await cached('vocabulary', VMLINUX_BTF, asIs, () => readKernelEnums(VMLINUX_BTF)))
}

export function loadPolicy(file: string, vocabulary: Vocabulary): Promise<Policy> {
  const text = readPolicyText(file)
  return cached('policy', text, { fromJSON: policyFromJSON, toJSON: policyToJSON }, async () => {
    const { parsePolicy } = await import('../policy/parse.ts')
    return parsePolicy(text, { source: file, vocabulary })
  })
}
