/** What the guard has to say to an attachment, by its records of the delegation; see guard.ts. Pure. */
import { GUARD_LISTS } from '../../guard/layout.ts'
import type { Finding } from './finding.ts'
import { endedFinding, type GuardFacts, type Whereabouts } from './guard.ts'

/**
 * Of attaching a program that was loaded under it, by what is known before: not what it is attached
 * to. Undefined: nothing is against it. Pure.
 */
export function guardOnAttach(
  facts: GuardFacts,
  { inHostNetwork }: Whereabouts,
  cmd: string,
  attachType: number,
): Finding | undefined {
  const { delegation, enforces } = facts
  if (!enforces || delegation === undefined || cmd === 'prog_query' || cmd === 'prog_detach') return undefined
  const ended = endedFinding(facts, delegation)
  if (ended !== undefined) return ended
  const { id, terms } = delegation
  const of = (list: 'networkTypes' | 'mapTypes'): boolean =>
    ((GUARD_LISTS[list] >> BigInt(attachType)) & 1n) === 1n
  const reaches = attachType > GUARD_LISTS.lastType || of('networkTypes')
  if (terms.network === 'own' && reaches && inHostNetwork)
    return {
      ...{ cause: 'guard-network', errno: 'EACCES' },
      needed: `a task in another network than the host's, under delegation ${id}`,
      found: "spec.network: own, and the task is in the host's network",
      edit: { path: 'spec.network', value: 'host' },
    }
  if (cmd === 'prog_attach' && terms.revocable && !of('mapTypes'))
    return {
      ...{ cause: 'guard-outlives', errno: 'EACCES' },
      needed: 'a link, which ends with the process: link_create',
      found: 'spec.revocable: true, and nothing of ours would undo that attachment',
      edit: { path: 'spec.revocable', value: false },
    }
  return undefined
}
