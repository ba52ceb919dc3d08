/**
 * How well random cases on this kernel hold the model: each change to it must make some case differ.
 * `make mutate-model` runs this on several kernels (mutate.ts).
 *
 *   CASES=300000 SEED=1 tsx test/kernel/model/mutation.ts [--only FILE] [--out FILE]
 *
 * A mutant is looked for on paper: among all cases those are picked in which it says something else
 * than the model. The kernel is asked about these, and must say what the model says. With --only
 * those that a result names as noticed are not tried again; --out takes the result, as JSON.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Decision, Mutation } from '../../../src/model/judge.ts'
import { describe, onKernel, predict, question } from './differ.ts'
import { generate } from './generate.ts'
import { Lab } from './lab.ts'
import { type Fates, type Mutant, Mutants } from './mutants.ts'
import { Random } from './random.ts'
import { enact, story, storyText, tell, wordsOf } from './stories.ts'

export interface MutationResult extends Fates {
  /** The cases that were looked at, those of which the kernel was asked, and which differed from the model. */
  readonly cases: number
  readonly asked: number
  readonly wrong: number
}

/** Cases under the same tokens; of a hundred, so many are stories of how a bpffs is made. */
const ROUND = 5000
const STORIES = 5
/** More differences than that need not be told. */
const TOLD = 5
const PROGRESS_MS = 20_000

/** How cases of one kind are asked about, on paper and of the kernel. */
interface Kind<T> {
  readonly model: (one: T) => (mutation?: Mutation) => readonly Decision[]
  readonly kernel: (these: readonly T[]) => Promise<readonly (readonly string[])[]>
  readonly text: (one: T, kernel: readonly string[]) => string
}

class Search {
  readonly mutants: Mutants
  cases = 0
  asked = 0
  wrong = 0

  constructor(mutants: Mutants) {
    this.mutants = mutants
  }

  async look<T>(all: readonly T[], { model, kernel, text }: Kind<T>): Promise<void> {
    this.cases += all.length
    const found = new Map<T, Mutant[]>()
    const pending = new Set<Mutant>()
    for (const one of all) {
      const told = this.mutants.toldBy(model(one), pending)
      if (told.length === 0) continue
      found.set(one, told)
      for (const mutant of told) pending.add(mutant)
    }
    const outcomes = await kernel([...found.keys()])
    this.asked += found.size
    for (const [i, [one, told]] of [...found].entries()) {
      const expected = wordsOf(model(one)())
      const said = outcomes[i]!.slice(0, expected.length)
      if (said.join() === expected.join()) for (const mutant of told) this.mutants.notice(mutant)
      else if (this.wrong++ < TOLD) console.log(`\n${text(one, said)}`)
    }
  }

  get result(): MutationResult {
    const { cases, asked, wrong } = this
    return { cases, asked, wrong, ...this.mutants.fates }
  }
}

async function search(cases: number, seed: number, before: ReadonlySet<string>): Promise<MutationResult> {
  const random = new Random(seed)
  const lab = await Lab.open()
  const found = new Search(new Mutants(lab.kernel, before))
  try {
    let told = Date.now()
    while (found.cases < cases) {
      await lab.renew(random)
      const stories = Math.floor((ROUND * STORIES) / 100)
      await found.look(
        Array.from({ length: ROUND - stories }, () => generate(random, lab)),
        {
          model: spec => {
            const ask = question(lab, spec)
            return mutation => [ask(mutation)]
          },
          kernel: async specs => (await onKernel(lab, specs)).map(outcome => [outcome]),
          text: (spec, [kernel]) => describe(lab, { spec, kernel: kernel!, model: predict(lab, spec) }),
        },
      )
      await found.look(
        Array.from({ length: stories }, () => story(random, lab)),
        {
          model: moves => mutation => tell(lab, moves, mutation),
          kernel: moves => enact(lab, moves),
          text: (moves, kernel) => storyText({ story: moves, kernel, model: wordsOf(tell(lab, moves)) }),
        },
      )
      if (Date.now() - told < PROGRESS_MS) continue
      told = Date.now()
      console.log(`  ${found.cases} cases, ${found.mutants.openCount} mutants left`)
    }
  } finally {
    await lab.close()
  }
  return found.result
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { out: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(process.env['SEED'] ?? 1)
  const before =
    values.only === undefined ? [] : (JSON.parse(readFileSync(values.only, 'utf8')) as MutationResult).noticed
  const result = await search(Number(process.env['CASES'] ?? 300_000), seed, new Set(before))
  if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(result))
  const { noticed, left, sameErrno, dependent } = result
  for (const name of left) console.log(`  not noticed here: ${name}`)
  console.log(
    `mutation: ${noticed.length} noticed, ${left.length} not, in ${result.cases} cases, SEED=${seed}; ` +
      `the kernel was asked about ${result.asked}, ${result.wrong} differ; ` +
      `left out: ${sameErrno.length} swaps of the same errno, ${dependent.length} of dependent rules`,
  )
}

void main()
