/** A plan as flags of `docker run`. Pure. */
import type { RightsPlan } from '../plan.ts'
import { containerRemarks, type FormatFacts, mountedBy } from './container.ts'
import { runCommand } from './run-flags.ts'

/** Docker has no flag for it. */
export const DOCKER_USER_NAMESPACE =
  'Docker gives containers a user namespace by its daemon alone: "userns-remap": "default" in /etc/docker/daemon.json.'

export function dockerText(plan: RightsPlan, facts: FormatFacts): string[] {
  return [
    ...runCommand(plan, facts, 'docker', []),
    ...containerRemarks(plan, facts, {
      own: [DOCKER_USER_NAMESPACE],
      mount: mountedBy(facts.words, { container: 'NAME' }),
    }),
  ]
}
