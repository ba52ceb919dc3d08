/** Which policy is meant: one of the daemon's, or, of root alone, the text of one. */
import { DeniedError, NotFoundError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { Parts } from './parts.ts'

export type PolicyChoice = { readonly name: string } | { readonly document: string }

/** With the names that it mentions looked up. NotFoundError, DeniedError, PolicyError. */
export async function chosenPolicy(
  { policies, names, vocabulary }: Parts,
  choice: PolicyChoice,
  isRoot: boolean,
): Promise<Policy> {
  const policy = 'name' in choice ? named(policies, choice.name) : await written(choice.document)
  await names.refresh([policy])
  return policy

  async function written(document: string): Promise<Policy> {
    if (!isRoot)
      throw new DeniedError('Only root may bring a policy of its own', {
        hint: 'Name one of those that there are',
      })
    const { parsePolicy } = await import('../policy/parse.ts')
    return parsePolicy(document, { source: 'request', vocabulary })
  }
}

function named(policies: Parts['policies'], name: string): Policy {
  const found = policies.get(name)
  if (found !== undefined) return found.policy
  const fault = policies.faults.length > 0 ? '; some files of policies could not be taken' : ''
  throw new NotFoundError(`There is no policy "${name}"${fault}`, { context: { policy: name } })
}
