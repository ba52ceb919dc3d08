/** A plan as flags of `podman run`. Pure. */
import type { RightsPlan } from '../plan.ts'
import { containerRemarks, type FormatFacts, mountedBy } from './container.ts'
import { runCommand } from './run-flags.ts'

export function podmanText(plan: RightsPlan, facts: FormatFacts): string[] {
  return [
    ...runCommand(plan, facts, 'podman', ['--userns=auto']),
    ...containerRemarks(plan, facts, {
      own: ['Without root, leave --userns out: such a container has a user namespace of its user.'],
      mount: mountedBy(facts.words, { container: 'NAME' }),
    }),
  ]
}
