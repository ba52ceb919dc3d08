/**
 * The words that a policy is read in, where it need not be for the kernel that runs here: those of
 * a kernel that the model knows. Laptops and build machines check policies for others.
 */
import { NotSupportedError } from '../errors.ts'
import { type MachineName, NEWEST_MACHINE } from '../model/machine-names.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { note } from './output.ts'
import { loadVocabulary } from './policy-file.ts'

export type KernelName = MachineName | 'running'

/** With no name those of the running kernel, or of the newest one known where that cannot be asked. */
export async function policyWords(kernel: KernelName | undefined): Promise<Vocabulary> {
  if (kernel === 'running') return loadVocabulary()
  if (kernel !== undefined) return wordsOf(kernel)
  try {
    return await loadVocabulary()
  } catch (error) {
    if (!(error instanceof NotSupportedError)) throw error
    note(`no kernel can be asked for its words here: they are those of Linux ${NEWEST_MACHINE}`)
    return wordsOf(NEWEST_MACHINE)
  }
}

async function wordsOf(kernel: MachineName): Promise<Vocabulary> {
  const { knownKernel } = await import('../model/machines.ts')
  const { hasTokens, vocabulary } = knownKernel(kernel)
  if (!hasTokens) note(`Linux ${kernel} has no BPF tokens: nothing can be lent on it`)
  return vocabulary
}
