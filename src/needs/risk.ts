/** How dangerous a plan is. Pure. */
import { DEFAULT_TERMS } from '../policy/policy.ts'
import { assessRisk, type RiskAssessment } from '../policy/risk.ts'
import { headerVocabulary } from './header-words.ts'
import type { RightsPlan } from './plan.ts'

/** How dangerous the plan is, in a network namespace of the workload's own. */
export function riskOf(plan: RightsPlan): RiskAssessment {
  const rights = { masks: plan.masks, capabilities: plan.capabilities.map(({ name }) => name) }
  return assessRisk({ ...DEFAULT_TERMS, rights }, headerVocabulary())
}
