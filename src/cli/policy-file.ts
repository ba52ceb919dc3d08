/** A policy from a file, and the vocabulary of this kernel that it is read in; see boot-cache.ts. */
import { readFileSync } from 'node:fs'
import { readKernelEnums, VMLINUX_BTF } from '../delegation/vocabulary.ts'
import { NotFoundError } from '../errors.ts'
import { type Policy, policyFromJSON, policyToJSON } from '../policy/policy.ts'
import { type KernelEnums, type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'
import { cached } from './boot-cache.ts'

/** The text of a policy file (`-`: standard input); NotFoundError says what was wrong with the path. */
export function readPolicyText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code
    throw new NotFoundError(`Cannot read policy "${file}": ${code}`, {
      context: { file, errno: code },
      hint: 'Give the path of a policy file; see docs/policy.md for its form',
    })
  }
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
