/** bpftoken simulate: plays a scenario with the model of the kernel and of the guard. */
import { EXIT } from '../../errors.ts'
import type { Check } from '../../model/judge.ts'
import { parseScenario } from '../../model/scenario/parse.ts'
import { type Played, playScenario } from '../../model/scenario/play.ts'
import type { ScenarioStep } from '../../model/scenario/schema.ts'
import { readInput } from '../input-file.ts'
import { type Line, print, printJson, table } from '../output.ts'

export interface SimulateOptions {
  checks?: boolean
  json?: boolean
}

const MAX_BYTES = 256 * 1024

/** Exit 0: all that is expected came out; 1: some did not; 2: the file is not a valid scenario. */
export async function simulate(file: string, options: SimulateOptions): Promise<number> {
  const text = readInput(file, {
    what: 'scenario',
    maxBytes: MAX_BYTES,
    hint: 'A scenario is a small YAML file',
  }).toString('utf8')
  const parsed = parseScenario(file, text)
  // Of kernels that are known by name, no BTF is read.
  const { runningKernel } = await import('../../lending/kernel-model.ts')
  const played = playScenario(parsed, runningKernel)
  const unmet = played.filter(({ met }) => met === false)
  if (options.json === true) printJson(documentOf(parsed.document.metadata.name, played))
  else {
    const { name, description } = parsed.document.metadata
    print(description === undefined ? name : `${name}: ${description}`, '')
    print(...describe(played, options.checks === true), '')
    print(verdictLine(played))
  }
  return unmet.length === 0 ? EXIT.ok : EXIT.failed
}

function documentOf(name: string, played: readonly Played[]) {
  return {
    scenario: name,
    met: played.every(({ met }) => met !== false),
    steps: played.map(({ step, line, outcome, why, guard, checks, met }) => ({
      line,
      ...(step.as === undefined ? {} : { as: step.as }),
      do: step.do,
      outcome,
      ...(why === '' ? {} : { why }),
      ...(guard === undefined ? {} : { guard: { point: guard.point, reason: guard.reason } }),
      ...(step.expect === undefined ? {} : { expect: step.expect }),
      ...(met === undefined ? {} : { met }),
      checks: checks.map(({ rule, needed, found, passed }) => ({
        name: rule.name,
        needed,
        found,
        passed,
        source: rule.source,
      })),
    })),
  }
}

function describe(played: readonly Played[], all: boolean): Line[] {
  const rows = played.map(({ line, step, outcome, met }) => [
    String(line),
    step.as ?? '-',
    whatText(step),
    met === false ? `${outcome}, not ${step.expect ?? step.because}` : outcome,
  ])
  const [head, ...rest] = table([['LINE', 'WHO', 'DOES', 'RESULT'], ...rows])
  return [
    head!,
    ...rest.flatMap((line, i): Line[] => {
      const { why, checks } = played[i]!
      return [line, ...(why === '' ? [] : [`      ${why}`]), ...(all ? checks.map(checkLine) : [])]
    }),
  ]
}

function checkLine({ rule, found, passed }: Check): string {
  return `      ${passed ? 'passed' : 'failed'}  ${rule.name} (${rule.source}): ${found}`
}

/** What is done, in the words of the file. */
function whatText(step: ScenarioStep): string {
  const { as: _, do: what, expect: _e, because: _b, lsm, options, ...rest } = step
  const words = Object.entries(rest).map(([key, value]) => `${key}=${value}`)
  const given = Object.entries(options ?? {}).map(([key, value]) => `${key}=${value}`)
  const refused = Object.entries(lsm ?? {}).map(([hook, errno]) => `${hook} refuses ${errno}`)
  return [what, ...words, ...given, ...refused].join(' ')
}

function verdictLine(played: readonly Played[]): string {
  const expected = played.filter(({ met }) => met !== undefined)
  const unmet = expected.filter(({ met }) => met === false)
  if (expected.length === 0) return `${played.length} steps; the scenario expects nothing of them`
  return unmet.length === 0
    ? `all ${expected.length} expectations are met`
    : `${unmet.length} of ${expected.length} expectations are not met`
}
