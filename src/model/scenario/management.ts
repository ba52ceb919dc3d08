/** Steps of whoever manages the guard, and of the clock. */
import { OK, type Outcome } from './outcome.ts'
import type { ScenarioStep } from './schema.ts'
import type { Stage } from './stage.ts'

export function wait(stage: Stage, step: ScenarioStep, i: number): Outcome {
  const seconds = stage.seconds(step, i)
  if (stage.guard !== undefined) stage.guard.now += seconds
  return OK
}

export function derive(stage: Stage, step: ScenarioStep, i: number): Outcome {
  const delegator = step.delegator ?? stage.wrong(['spec', 'story', i], 'this needs a field "delegator"')
  const { guard, delegation } = stage.lent(step, i, 'derived from')
  guard.deriveBy(delegator, delegation)
  return OK
}

export function revoke(stage: Stage, step: ScenarioStep, i: number): Outcome {
  const { guard, delegation } = stage.lent(step, i, 'revoked')
  guard.revoke(delegation, stage.delegations)
  return OK
}

/** To live so long from now on. */
export function renew(stage: Stage, step: ScenarioStep, i: number): Outcome {
  const { guard, delegation } = stage.lent(step, i, 'renewed')
  const end = guard.renew(delegation, guard.now + stage.seconds(step, i))
  return typeof end === 'number' ? OK : { outcome: 'refused', note: `it cannot be renewed: ${end}` }
}
