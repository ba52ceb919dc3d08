/**
 * bpftoken confine and unconfine: rights and limits for a service in the host's user namespace, by
 * its cgroup.
 */
import { requireGuard } from '../../delegation/delegate.ts'
import { EXIT, UsageError } from '../../errors.ts'
import { delegationId, Guard } from '../../guard/guard.ts'
import { guardHolds } from '../../guard/terms.ts'
import { type AdmissionOptions, requireNoSubjects } from '../admission.ts'
import { note, print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export interface ConfineOptions extends AdmissionOptions {
  cgroup: string
  policy: string
  json?: boolean
}

export async function confine(options: ConfineOptions): Promise<number> {
  requireRoot('bpftoken confine')
  using guard = Guard.open()
  const policy = await loadPolicy(options.policy, await loadVocabulary())
  requireNoSubjects(policy, 'who comes into a cgroup later is not compared with them', options)
  for (const path of requireGuard(policy, guardHolds)) note(`the guard does not enforce ${path} yet`)
  const id = guard.confine(options.cgroup, policy)
  if (options.json === true) printJson({ id: Number(id), cgroup: options.cgroup, policy: policy.name })
  else
    print(
      `bpf(2) in ${options.cgroup} and below is confined to policy "${policy.name}"`,
      `delegation ${id}: bpftoken unconfine ${id} ends it, bpftoken revoke ${id} leaves it nothing`,
    )
  return EXIT.ok
}

export function unconfine(id: number | undefined, options: { cgroup?: string; json?: boolean }): number {
  requireRoot('bpftoken unconfine')
  if ((id === undefined) === (options.cgroup === undefined))
    throw new UsageError('Name what is confined by its number, or by --cgroup')
  using guard = Guard.open()
  const found = id === undefined ? guard.idOfCgroup(options.cgroup!) : delegationId(id)
  guard.unconfine(found)
  if (options.json === true) printJson({ unconfined: Number(found) })
  else
    print(
      `delegation ${found} has ended: bpf(2) there is what the kernel makes of it; what it loaded goes on`,
    )
  return EXIT.ok
}
