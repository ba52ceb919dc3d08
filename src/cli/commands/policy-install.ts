/** bpftoken policy install: makes policies known to the guard, as abilities. */
import { EXIT, UsageError } from '../../errors.ts'
import { Guard } from '../../guard/guard.ts'
import { requireNoApproval } from '../../lending/admission.ts'
import { type AdmissionOptions, requireNoSubjects } from '../admission.ts'
import { print, printJson } from '../output.ts'
import { loadVocabulary, policyFilesAt, policyIn } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export interface InstallOptions extends AdmissionOptions {
  json?: boolean
}

export async function policyInstall(paths: string[], options: InstallOptions): Promise<number> {
  requireRoot('bpftoken policy install')
  using guard = Guard.open()
  const vocabulary = await loadVocabulary()
  const files = paths.flatMap(policyFilesAt)
  // All are read before any is installed, so that either all or none are.
  const policies = await Promise.all(files.map(file => policyIn(file, vocabulary)))
  const names = policies.map(({ name }) => name)
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new UsageError(`Two of these policies are called "${twice}"`)
  for (const policy of policies) {
    requireNoApproval(policy, 'any delegator may name it once it is installed')
    requireNoSubjects(policy, 'the guard does not compare them: any delegator may name it', options)
  }
  for (const policy of policies) guard.installPolicy(policy.name, policy)
  if (options.json === true) printJson({ installed: names })
  else print(`installed as abilities: ${names.join(', ')}`)
  return EXIT.ok
}
