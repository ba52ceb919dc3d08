/**
 * The vocabulary of this kernel, and policies that are read in it. Both are kept until the next
 * boot: see boot-cache.ts.
 */
import { readKernelEnums } from '../delegation/vocabulary.ts'
import { type Policy, policyFromJSON, policyToJSON } from '../policy/policy.ts'
import { type KernelEnums, type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'
import { cached } from './boot-cache.ts'

/** NotSupportedError: the kernel has no type information. */
export async function loadVocabulary(): Promise<Vocabulary> {
  const asIs = { fromJSON: (value: unknown) => value as KernelEnums, toJSON: (value: KernelEnums) => value }
  return vocabularyFrom(await cached('vocabulary', VMLINUX_BTF, asIs, () => readKernelEnums(VMLINUX_BTF)))
}

/** `source` names the text in messages. PolicyError: every issue found. */
export function policyFromText(text: string, source: string, vocabulary: Vocabulary): Promise<Policy> {
  return cached('policy', text, { fromJSON: policyFromJSON, toJSON: policyToJSON }, async () => {
    const { parsePolicy } = await import('../policy/parse.ts')
    return parsePolicy(text, { source, vocabulary })
  })
}
