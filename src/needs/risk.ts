/** How dangerous a plan is. Pure. */
import type { Terms } from '../policy/policy.ts'
import { assessRisk, type RiskAssessment } from '../policy/risk.ts'
import { headerVocabulary } from './header-words.ts'
import type { RightsPlan } from './plan.ts'

/** How dangerous the plan is, in a network namespace of the workload's own. */
export function riskOf(plan: RightsPlan): RiskAssessment {
  const terms: Terms = {
    rights: { masks: plan.masks, capabilities: plan.capabilities.map(({ name }) => name) },
    limits: {},
    programs: { digests: 'any' },
    targets: { functions: 'any' },
    sharing: { bindMount: false, passToken: false },
    revocable: true,
    network: 'own',
    cgroups: 'own',
    guard: 'required',
    derive: { allowed: false, maxDepth: 1 },
    mode: 'enforce',
    events: 'refused',
  }
  return assessRisk(terms, headerVocabulary())
}
