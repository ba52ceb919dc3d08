/**
 * bpftoken confine and unconfine: rights and limits for a service in the host's user namespace, by
 * its cgroup.
 */
import { EXIT, UsageError } from '../../errors.ts'
import { delegationId } from '../../guard/guard.ts'
import { confine as confineCgroup, unconfine as freeCgroup } from '../../lending/confine.ts'
import { type AdmissionOptions, tellSubjectsIgnored } from '../admission.ts'
import { requiredGuard } from '../installed-guard.ts'
import { print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export interface ConfineOptions extends AdmissionOptions {
  cgroup: string
  policy: string
  json?: boolean
}

export async function confine(options: ConfineOptions): Promise<number> {
  requireRoot('bpftoken confine')
  using guard = await requiredGuard()
  const policy = await loadPolicy(options.policy, await loadVocabulary())
  const { cgroup, anySubject } = options
  const { id, subjectsIgnored } = await confineCgroup({ guard, policy, cgroup, anySubject })
  if (subjectsIgnored) tellSubjectsIgnored(policy.name)
  if (options.json === true) printJson({ id: Number(id), cgroup, policy: policy.name })
  else
    print(
      `bpf(2) in ${cgroup} and below is confined to policy "${policy.name}"`,
      `delegation ${id}: bpftoken unconfine ${id} ends it, bpftoken revoke ${id} leaves it nothing`,
    )
  return EXIT.ok
}

export async function unconfine(
  id: number | undefined,
  { cgroup, json }: { cgroup?: string; json?: boolean },
): Promise<number> {
  requireRoot('bpftoken unconfine')
  if ((id === undefined) === (cgroup === undefined))
    throw new UsageError('Name what is confined by its number, or by --cgroup')
  using guard = await requiredGuard()
  const found = await freeCgroup(guard, cgroup === undefined ? delegationId(id!) : { cgroup })
  if (json === true) printJson({ unconfined: Number(found) })
  else
    print(
      `delegation ${found} has ended: bpf(2) there is what the kernel makes of it; what it loaded goes on`,
    )
  return EXIT.ok
}
