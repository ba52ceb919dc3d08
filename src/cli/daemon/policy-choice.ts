/** The option --policy, where the daemon lends: the name of one that it has, or a file for root. */
import { UsageError } from '../../errors.ts'
import { readPolicyText } from '../policy-file.ts'

export type PolicyChoice = { readonly name: string } | { readonly document: string }

/** Whether a word is a file: `policy.yaml`, `./policy`, or `-` for standard input. Pure. */
export function isPolicyFile(word: string): boolean {
  return word === '-' || word.includes('/') || /\.ya?ml$/.test(word)
}

export function policyChoice(word: string): PolicyChoice {
  return isPolicyFile(word) ? { document: readPolicyText(word) } : { name: policyName(word) }
}

/** UsageError: no policy can be called so. */
export function policyName(word: string): string {
  if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(word)) return word
  throw new UsageError(`${JSON.stringify(word)} is no name of a policy`, {
    hint: 'A name has small letters, digits and hyphens; a file has a / or .yaml in its name',
  })
}
