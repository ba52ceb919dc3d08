/**
 * A policy from a file, and the vocabulary of this kernel that it is read in; see boot-cache.ts.
 */
import { readKernelEnums } from '../delegation/vocabulary.ts'
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
