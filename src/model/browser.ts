/** What the page of docs/simulator calls: the text of a scenario in, what each step came to out. */
import { parseScenario } from './scenario/parse.ts'
import { playScenario } from './scenario/play.ts'

export interface Line {
  readonly line: number
  readonly who: string
  readonly does: string
  readonly outcome: string
  readonly why: string
  readonly met?: boolean
  readonly checks: readonly string[]
}

export type Result =
  | { readonly ok: true; readonly name: string; readonly lines: readonly Line[] }
  /** What is wrong with the text, with lines and columns. */
  | { readonly ok: false; readonly message: string }

/** Never throws for what the text says. */
export function simulate(text: string): Result {
  try {
    const parsed = parseScenario('scenario', text)
    const lines = playScenario(parsed).map(({ step, line, outcome, why, met, checks }): Line => {
      const { as: who = '', do: verb, expect: _e, because: _b, ...rest } = step
      const words = Object.entries(rest).map(([key, value]) =>
        typeof value === 'object' ? `${key}=${JSON.stringify(value)}` : `${key}=${value}`,
      )
      return {
        line,
        who,
        does: [verb, ...words].join(' '),
        outcome,
        why,
        ...(met === undefined ? {} : { met }),
        checks: checks.map(
          ({ rule, passed, found }) => `${passed ? 'passed' : 'failed'} ${rule.name}: ${found}`,
        ),
      }
    })
    return { ok: true, name: parsed.document.metadata.name, lines }
  } catch (error) {
    return { ok: false, message: (error as Error).message }
  }
}
