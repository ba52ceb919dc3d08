/**
 * The vocabulary of this kernel, and policies that are read in it. Both are kept until the next
 * boot: see boot-cache.ts.
 */
import { type LocatedPolicy, locatedPolicyFromJSON, locatedPolicyToJSON } from '../policy/located.ts'
import type { Policy } from '../policy/policy.ts'
import { type KernelEnums, type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'
import { cached } from './boot-cache.ts'

/** What is kept of policies is kept in the words of this kernel alone. */
const ofThisKernel = new WeakSet<Vocabulary>()

/** NotSupportedError: the kernel has no type information. */
export async function loadVocabulary(): Promise<Vocabulary> {
  const asIs = { fromJSON: (value: unknown) => value as KernelEnums, toJSON: (value: KernelEnums) => value }
  const read = async (): Promise<KernelEnums> => {
    const { readKernelEnums } = await import('../delegation/vocabulary.ts')
    return readKernelEnums(VMLINUX_BTF)
  }
  const vocabulary = vocabularyFrom(await cached('vocabulary', VMLINUX_BTF, asIs, read))
  ofThisKernel.add(vocabulary)
  return vocabulary
}

/** `source` names the text in messages. PolicyError: every issue found. */
export async function policyFromText(text: string, source: string, vocabulary: Vocabulary): Promise<Policy> {
  return (await locatedPolicyFromText(text, source, vocabulary)).policy
}

/**
 * The same with its positions. With `keep: false`, and in words of another kernel, it is neither
 * kept nor taken from what is.
 */
export async function locatedPolicyFromText(
  text: string,
  source: string,
  vocabulary: Vocabulary,
  { keep = true }: { keep?: boolean } = {},
): Promise<LocatedPolicy> {
  const parse = async (): Promise<LocatedPolicy> => {
    const { parseLocatedPolicy } = await import('../policy/parse.ts')
    return parseLocatedPolicy(text, { source, vocabulary })
  }
  if (!keep || !ofThisKernel.has(vocabulary)) return parse()
  return cached('policy', text, { fromJSON: locatedPolicyFromJSON, toJSON: locatedPolicyToJSON }, parse)
}
