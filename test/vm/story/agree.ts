/** Stories on both sides, compared step by step; what differs is made small. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Guard } from '../../../src/guard/guard.ts'
import { Random } from '../../kernel/model/random.ts'
import { story as randomStory } from './generate.ts'
import { Paper } from './paper.ts'
import { Scene } from './scene.ts'
import { Stage } from './stage.ts'
import { type Said, SKIPPED, type Step, type Story } from './step.ts'

/** For what the kernel frees in its own time. */
const SETTLE_MS = 5000
/** Steps that no count depends on. */
const COUNTS_NOTHING: ReadonlySet<Step['do']> = new Set([
  ...(['fsopen', 'set', 'fsmount', 'move', 'copy', 'pass', 'open', 'run'] as const),
  ...(['fill', 'register', 'iterate', 'bind', 'freeze'] as const),
  ...(['revoke', 'expire', 'renew', 'derive', 'enter'] as const),
])
/** More differences than that need not be told. */
const TOLD = 5

interface Difference {
  readonly story: Story
  /** The step that differs, and what was before. */
  readonly at: number
  readonly kernel: string
  readonly model: string
}

export interface Agreement {
  readonly stories: number
  /** That were played: those that name what is not there are left out. */
  readonly steps: number
  readonly differences: readonly string[]
  /** Steps by verb and outcome, and by what the guard told. */
  readonly counts: ReadonlyMap<string, number>
}

export async function agree(
  guard: Guard,
  stories: number,
  seed: number,
  progress: (done: number, steps: number) => void = () => {},
  /** Told before a difference is made small, which takes a while. */
  found: (difference: string) => void = () => {},
): Promise<Agreement> {
  const stage = await Stage.open(guard)
  const counts = new Map<string, number>()
  const count = (what: string): void => void counts.set(what, (counts.get(what) ?? 0) + 1)
  const differences: string[] = []
  let steps = 0
  try {
    for (let done = 0; done < stories && differences.length < TOLD; done++) {
      const story = randomStory(new Random(seed + done), stage.tags, bare => {
        const paper = onPaper(stage, bare)
        return step => paper.play(step)
      })
      const differs = await compare(stage, story, (step, said) => {
        steps++
        count(`${step.do} ${said.outcome}`)
        for (const note of said.notes) count(`told ${note.split(' ').slice(0, 3).join(' ')}`)
      })
      if (differs !== undefined) {
        found(`SEED=${seed + done}\n${text(differs)}`)
        differences.push(`SEED=${seed + done}\n${text(await shrink(stage, differs))}`)
      }
      progress(done + 1, steps)
    }
  } finally {
    await stage.close()
  }
  return { stories, steps, differences, counts }
}

function onPaper(stage: Stage, story: Story): Paper {
  const machine = { kernel: stage.kernel, unprivilegedBpfDisabled: 2 as const }
  return new Paper(machine, story, stage)
}

const words = ({ outcome, notes }: Said): string => [outcome, ...notes].join('; ')

async function compare(
  stage: Stage,
  story: Story,
  seen: (step: Step, said: Said) => void = () => {},
): Promise<Difference | undefined> {
  const paper = onPaper(stage, story)
  const scene = await Scene.begin(stage, story)
  const told = new Set<string>()
  try {
    for (const [at, step] of story.steps.entries()) {
      const model = paper.play(step)
      if (model === SKIPPED) continue
      const kernel = await scene.play(step)
      seen(step, kernel)
      const differs = (one: string, other: string): Difference => ({ story, at, kernel: one, model: other })
      if (words(kernel) !== words(model)) return differs(words(kernel), words(model))
      // The verifier asks for capabilities, too: it may have told first, and of others.
      for (const one of kernel.capabilities) told.add(one)
      const untold = model.capabilities.filter(one => !told.has(one))
      if (untold.length > 0) return differs('no such event', `token_capable ${untold.join('; ')}`)
      if (COUNTS_NOTHING.has(step.do)) continue
      const [used, counted] = await usages(scene, paper)
      if (used !== counted) return differs(used, counted)
    }
  } finally {
    await scene.end()
  }
  return undefined
}

/** What all delegations have in use, on both sides. */
async function usages(scene: Scene, paper: Paper): Promise<[string, string]> {
  const line = (of: { tokens: number; programs: number; maps: number; mapBytes: bigint; children: number }) =>
    `${of.tokens} tokens, ${of.programs} programs, ${of.maps} maps, ${of.mapBytes} bytes, ${of.children} derived`
  const all = [...paper.delegations]
  const model = all.map(([word, { usage }]) => `${word}: ${line(usage)}`).join('; ')
  for (const deadline = Date.now() + SETTLE_MS; ; await sleep(5)) {
    const kernel = all.map(([word]) => `${word}: ${line(scene.usage(word))}`).join('; ')
    if (kernel === model || Date.now() > deadline) return [kernel, model]
  }
}

/** The same difference in fewer steps. */
async function shrink(stage: Stage, found: Difference): Promise<Difference> {
  let best: Difference = {
    ...found,
    story: { ...found.story, steps: found.story.steps.slice(0, found.at + 1) },
  }
  for (let size = Math.ceil(best.story.steps.length / 2); size > 0; size = Math.floor(size / 2))
    for (let from = 0; from < best.story.steps.length; ) {
      const steps = best.story.steps.filter((_, i) => i < from || i >= from + size)
      const smaller = await compare(stage, { ...best.story, steps })
      if (smaller === undefined) from += size
      else best = { ...smaller, story: { ...smaller.story, steps: steps.slice(0, smaller.at + 1) } }
    }
  return best
}

function text({ story, at, kernel, model }: Difference): string {
  const json = (value: unknown): string =>
    JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? `0x${one.toString(16)}` : one))
  return [
    `mode ${story.mode}; delegators ${json(story.delegators)}`,
    ...story.policies.map((policy, i) => {
      const { name: _n, description: _d, subjects: _s, approval: _a, guard: _g, ...terms } = policy
      return `p${i}: ${json(terms)}`
    }),
    ...story.steps.slice(0, at + 1).map(step => `  ${json(step)}`),
    `  kernel: ${kernel}`,
    `  model:  ${model}`,
  ].join('\n')
}
