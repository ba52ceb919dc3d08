/** bpftoken policy install: makes policies known to the guard, as abilities. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { EXIT, UsageError } from '../../errors.ts'
import { Guard } from '../../guard/guard.ts'
import { type AdmissionOptions, requireNoSubjects } from '../admission.ts'
import { print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export interface InstallOptions extends AdmissionOptions {
  json?: boolean
}

export async function policyInstall(paths: string[], options: InstallOptions): Promise<number> {
  requireRoot('bpftoken policy install')
  using guard = Guard.open()
  const vocabulary = await loadVocabulary()
  const files = paths.flatMap(filesAt)
  // All are read before any is installed: half a set of policies is none.
  const policies = await Promise.all(files.map(file => loadPolicy(file, vocabulary)))
  const names = policies.map(({ name }) => name)
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new UsageError(`Two of these policies are called "${twice}"`)
  for (const policy of policies)
    requireNoSubjects(policy, 'the guard does not compare them: any delegator may name it', options)
  for (const policy of policies) guard.installPolicy(policy.name, policy)
  if (options.json === true) printJson({ installed: names })
  else print(`installed as abilities: ${names.join(', ')}`)
  return EXIT.ok
}

function filesAt(path: string): string[] {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return [path]
  const files = readdirSync(path)
    .filter(name => /\.ya?ml$/.test(name))
    .sort()
    .map(name => join(path, name))
  if (files.length === 0) throw new UsageError(`There is no policy (*.yaml) in ${path}`)
  return files
}
