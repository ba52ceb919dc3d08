/** What a step comes to, and why, in words. */
import type { Asked } from '../guard/ask.ts'
import type { GuardNote, GuardVerdict } from '../guard/guard.ts'
import type { Check } from '../judge.ts'

export interface Outcome {
  readonly outcome: string
  readonly checks?: readonly Check[]
  readonly guard?: GuardVerdict
  /** Why, where it is neither the kernel's nor a hook's answer. */
  readonly note?: string
}

export const OK: Outcome = { outcome: 'ok' }

export function refusedBy(said: GuardVerdict): Outcome {
  return said.refused ? { outcome: said.errno, guard: said } : OK
}

export function outcomeOf({ decision: { errno, checks }, said }: Asked<unknown>): Outcome {
  return { outcome: errno ?? 'ok', checks, ...(said === undefined ? {} : { guard: said }) }
}

/** What the guard said, where it decided. */
export type Refusal = GuardVerdict & { readonly refused: true }

/** The deciding check of a refusal; of what went well, why a token that was named was not used. */
export function whyText(
  outcome: string,
  checks: readonly Check[],
  guard: Refusal | undefined,
  watched: readonly GuardNote[],
): string {
  const dropped = checks.find(
    ({ rule, passed }) => !passed && rule.errno === undefined && !rule.name.startsWith('LSM bpf_prog'),
  )
  const last = checks.at(-1)
  const failed = outcome === 'ok' || last === undefined || last.passed ? undefined : last
  const parts = [
    ...watched.map(({ point, reason }) => `the guard would refuse at ${point}: ${reason}`),
    ...(guard === undefined ? [] : [`the guard refuses at ${guard.point}: ${guard.reason}`]),
    ...(dropped === undefined || dropped === failed
      ? []
      : [`the token is ignored: ${dropped.rule.needs}; there: ${dropped.found}`]),
    ...(failed === undefined ? [] : [`needs ${failed.needed}; there: ${failed.found}`]),
  ]
  return parts.join('; ')
}
