/**
 * One delegation into an existing namespace, ours beside C, step by step.
 *
 * C twice: `checked` makes the same system calls as we do; `bare` leaves out those by which we make sure of
 * the target before and of the mount after, and so is the least that any delegator must do.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { CProgram } from './c-program.ts'
import { delegation, masks, mounts, policies, sandboxes, targets, vocabularies, within } from './dist.ts'
import { type Comparison, compare, interleave, summarize } from './stats.ts'

const GOAL_RATIO = 1.25
const PER_ROUND = 10
const PATH = '/sys/fs/bpf'
const NOBODY = 65534
const POLICY = path.resolve(__dirname, '../examples/policies/packet-counter.yaml')

/** As in bench/c/delegate.c. */
export const STEPS = [
  'identify',
  'directory',
  'context',
  'options',
  'create',
  'mount',
  'attach',
  'verify',
  'close',
] as const

export interface StepTimes {
  readonly step: string
  readonly oursUs: number
  readonly checkedUs: number
  readonly bareUs: number
}

export interface DelegationResult {
  readonly comparisons: Comparison[]
  /** Median of each step. */
  readonly steps: StepTimes[]
  /** The first one of the process: code that is not compiled yet. */
  readonly firstUs: number
}

const nowUs = (): number => performance.now() * 1000

/** When the calls between the steps began and ended: their module exports are replaced by ones that note it. */
function markCalls(): number[] {
  const marks: number[] = []
  mark(within, 'fsopenWithin')
  mark(mounts, 'fsconfigCreate')
  mark(mounts, 'fsmount')
  mark(within, 'moveMountWithin')
  return marks

  function mark<M extends object>(module: M, name: keyof M & string): void {
    const call = module[name] as (...args: unknown[]) => unknown
    const marked = (...args: unknown[]): unknown => {
      marks.push(nowUs())
      const result = call(...args)
      marks.push(nowUs())
      return result
    }
    Object.assign(module, { [name]: marked })
  }
}

function stepsBetween(times: readonly number[]): number[] {
  return times.slice(1).map((time, i) => time - times[i]!)
}

/** Microseconds of each step, for each delegation. */
type Times = number[][]

export async function measureDelegation(roundCount: number): Promise<DelegationResult> {
  const vocabulary = vocabularies.runningVocabulary()
  const policy = policies.parsePolicy(readFileSync(POLICY, 'utf8'), { source: POLICY, vocabulary })
  const marks = markCalls()
  using sandbox = await sandboxes.Sandbox.start({
    command: ['true'], // never released
    uid: NOBODY,
    gid: NOBODY,
    network: 'own',
    capabilities: [],
  })

  async function delegateOnce(): Promise<number[]> {
    marks.length = 0
    const start = nowUs()
    let identified: number
    let verified: number
    {
      using target = targets.openTarget(sandbox.pid)
      identified = nowUs()
      await delegation.delegate(policy, target, vocabulary, { path: PATH })
      verified = nowUs()
    }
    const closed = nowUs()
    using target = targets.openTarget(sandbox.pid)
    await delegation.undelegate(target, vocabulary, { path: PATH })
    const [openStart, openEnd, createStart, createEnd, , mountEnd, , attachEnd] = marks
    const bounds = [start, identified, openStart, openEnd, createStart, createEnd, mountEnd, attachEnd]
    return stepsBetween([...(bounds as number[]), verified, closed])
  }
  async function ours(): Promise<Times> {
    const times: Times = []
    for (let i = 0; i < PER_ROUND; i++) times.push(await delegateOnce())
    return times
  }

  const hex = (['cmds', 'maps', 'progs', 'attachs'] as const).map(d => masks.hexMask(policy.rights.masks[d]))
  using program = new CProgram('delegate', [`${sandbox.pid}`, PATH, `${NOBODY}`, `${NOBODY}`, ...hex])
  async function c(kind: 'bare' | 'checked'): Promise<Times> {
    const times = JSON.parse(await program.ask(`${kind} ${PER_ROUND}`)) as Times
    return times.map(steps => steps.map(ns => ns / 1000))
  }

  const firstUs = total(await delegateOnce())
  await ours() // warm up
  await c('checked')
  const checked = await interleave(roundCount, ours, () => c('checked'))
  const bare = await interleave(roundCount, ours, () => c('bare'))
  const toRound = (round: { ours: Times; c: Times }) => ({
    ours: round.ours.map(total),
    c: round.c.map(total),
  })
  const oursUs = mediansByStep(checked.map(round => round.ours))
  const checkedUs = mediansByStep(checked.map(round => round.c))
  const bareUs = mediansByStep(bare.map(round => round.c))
  return {
    comparisons: [
      compare('delegation, same system calls', 'us', checked.map(toRound), GOAL_RATIO),
      compare('delegation, C without checks', 'us', bare.map(toRound)),
    ],
    steps: STEPS.map((step, i) => ({
      step,
      oursUs: oursUs[i]!,
      checkedUs: checkedUs[i]!,
      bareUs: bareUs[i]!,
    })),
    firstUs,
  }
}

function mediansByStep(rounds: readonly Times[]): number[] {
  return STEPS.map((_, i) => summarize(rounds.flat().map(steps => steps[i]!)).median)
}

function total(steps: readonly number[]): number {
  return steps.reduce((sum, time) => sum + time, 0)
}
