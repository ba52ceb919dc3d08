/** Which fields of a policy only the guard (BPF-LSM) can enforce. */
import { LIMIT_PATHS, type Limits, type Terms } from './policy.ts'

/** A field in use that the kernel's masks and namespaces cannot hold to. */
export interface GuardNeed {
  readonly path: string
  /** Why the kernel alone does not do it. */
  readonly reason: string
}

/**
 * The fields in use whose enforcement needs the guard. Without a guard, a policy with any of them
 * is to be refused, unless it says `guard: optional`: then they are declared, not enforced, and
 * that is to be said to the user.
 *
 * Not listed: masks (the kernel), capabilities (`run` keeps only these in the namespace), `network`
 * and subjects (the delegator). `sharing: false`, `revocable: true`, `cgroups: own`, `events:
 * refused` and the default limits are defaults and not uses, so a policy does not need the guard
 * for them; where there is none, nothing is prevented or recorded.
 */
export function guardNeeds(terms: Terms): GuardNeed[] {
  const needs: GuardNeed[] = []
  for (const [field, path] of Object.entries(LIMIT_PATHS) as [keyof Limits, string][]) {
    if (terms.limits[field] === undefined) continue
    const reason =
      field === 'lifetimeSec'
        ? 'a token goes on working after its bpffs is unmounted'
        : 'the kernel counts nothing per token'
    needs.push({ path, reason })
  }
  if (terms.programs.digests !== 'any') {
    needs.push({ path: 'spec.programs.digests', reason: 'the kernel does not compare digests' })
  }
  if (terms.targets.functions !== 'any') {
    needs.push({ path: 'spec.targets.functions', reason: 'the kernel has no mask of attach targets' })
  }
  if (terms.derive.allowed) {
    needs.push({
      path: 'spec.derive.allowed',
      reason: 'the kernel does not tie what was derived to its origin: it would outlive its revocation',
    })
  }
  if (terms.mode === 'permissive') {
    needs.push({ path: 'spec.mode', reason: 'only the guard can record what it would have refused' })
  }
  if (terms.events === 'all') {
    needs.push({ path: 'spec.events', reason: 'the kernel records no use of a token' })
  }
  return needs
}
