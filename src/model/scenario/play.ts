/** Plays a scenario: what each step comes to, by the kernel's checks and the guard's. */
import type { GuardNote } from '../guard/guard.ts'
import type { Check } from '../judge.ts'
import type { KernelFacts } from '../kernel.ts'
import { makeToken, passToken, reopenToken, useBpf } from './calls.ts'
import { derive, renew, revoke, wait } from './management.ts'
import { configureContext, mountBpffs, placeMount } from './mounts.ts'
import { type Outcome, type Refusal, whyText } from './outcome.ts'
import type { ParsedScenario } from './parse.ts'
import type { ScenarioStep } from './schema.ts'
import { Missing, Stage } from './stage.ts'

/** One step, as it went. */
export interface Played {
  readonly step: ScenarioStep
  readonly line: number
  /** `ok`, or an errno. */
  readonly outcome: string
  readonly checks: readonly Check[]
  /** What the guard said, where it decided. */
  readonly guard?: Refusal
  /** What the guard would have refused, were the policy not permissive. */
  readonly watched: readonly GuardNote[]
  /** Why it came out so: the check that decided, in a sentence. */
  readonly why: string
  /** Whether it is what the scenario expects; absent: it expects nothing. */
  readonly met?: boolean
}

/** `running`: the facts of the kernel that runs here, where somebody can give them. */
export function playScenario(parsed: ParsedScenario, running?: () => KernelFacts): Played[] {
  const stage = new Stage(parsed, running)
  return parsed.document.spec.story.map((step, i) => {
    const { outcome, checks = [], guard, note } = played(stage, step, i)
    const said = guard?.refused === true ? guard : undefined
    const watched = stage.watched()
    const why = note ?? whyText(outcome, checks, said, watched)
    const right = step.expect === undefined ? undefined : step.expect === outcome
    const because = step.because === undefined || `${why}`.includes(step.because)
    return {
      step,
      line: parsed.plain.valueAt(['spec', 'story', i]).line,
      outcome,
      checks,
      ...(said === undefined ? {} : { guard: said }),
      watched,
      why,
      ...(right === undefined && step.because === undefined ? {} : { met: right !== false && because }),
    }
  })
}

function played(stage: Stage, step: ScenarioStep, i: number): Outcome {
  try {
    return play(stage, step, i)
  } catch (error) {
    if (error instanceof Missing) return { outcome: error.errno, note: error.message }
    throw error
  }
}

function play(stage: Stage, step: ScenarioStep, i: number): Outcome {
  if (step.do === 'wait') return wait(stage, step, i)
  const task = stage.found(stage.tasks, step.as, 'as', i)
  switch (step.do) {
    case 'fsopen':
    case 'set':
    case 'create':
    case 'fsmount':
      return configureContext(stage, step, task, i)
    case 'mount':
      return mountBpffs(stage, step, task, i)
    case 'bind':
    case 'move':
      return placeMount(stage, step, task, i)
    case 'token':
      return makeToken(stage, step, task, i)
    case 'pass':
      return passToken(stage, step, i)
    case 'reopen':
      return reopenToken(stage, step, i)
    case 'renew':
      return renew(stage, step, i)
    case 'derive':
      return derive(stage, step, i)
    case 'revoke':
      return revoke(stage, step, i)
    default:
      return useBpf(stage, step, task, i)
  }
}
