/**
 * How well random cases hold the model: every rule of it is turned round once, and the cases must
 * notice. `make mutate-model`
 *
 *   CASES=60000 SEED=1 tsx test/kernel/model/mutate.ts [--out FILE] [--only FILE]
 *
 * A mutant is one rule inverted, one rule that always passes, one rule with another errno, or one
 * word on a list or off it. The kernel is asked once, and each mutant is compared with its answers.
 * With --only the mutants are those that a FILE names, one a line; with --out those that are left go
 * to a file. So one kernel can go on where another one stopped: rules about security modules and of
 * kernels without tokens need others than this.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { decide } from '../../../src/model/decide.ts'
import type { Mutation } from '../../../src/model/judge.ts'
import { KERNEL_LISTS, KERNEL_RULES } from '../../../src/model/rules.ts'
import { onKernel } from './differ.ts'
import { generate } from './generate.ts'
import { Lab, taskOf } from './lab.ts'
import { Random } from './random.ts'
import { callOf } from './spec.ts'
import { enact, type Story, story, tell, wordsOf } from './stories.ts'

interface Case {
  readonly kernel: string
  readonly model: (mutation?: Mutation) => string
}

const ROUND = 10_000

async function recorded(cases: number, seed: number): Promise<Case[]> {
  const random = new Random(seed)
  const lab = await Lab.open()
  const all: Case[] = []
  try {
    while (all.length < cases) {
      await lab.renew(random)
      const specs = Array.from({ length: ROUND }, () => generate(random, lab))
      const outcomes = await onKernel(lab, specs)
      const { machine } = lab
      for (const [i, spec] of specs.entries()) {
        const [task, call] = [taskOf(spec.context, spec.caps), callOf(lab, spec)]
        all.push({
          kernel: outcomes[i]!,
          model: mutation => decide(machine, task, call, mutation).errno ?? 'ok',
        })
      }
      const stories: Story[] = Array.from({ length: ROUND / 10 }, () => story(random, lab))
      const told = await enact(lab, stories)
      for (const [i, moves] of stories.entries()) {
        const length = tell(lab, moves).length
        all.push({
          kernel: told[i]!.slice(0, length).join(),
          model: mutation =>
            wordsOf(tell(lab, moves, mutation))
              .slice(0, length)
              .join(),
        })
      }
    }
  } finally {
    await lab.close()
  }
  return all
}

export function mutants(): Mutation[] {
  const rules = KERNEL_RULES.flatMap(({ name, errno, needs }) =>
    (['invert', 'pass', 'errno'] as const)
      // A rule without an errno lets the call go on, or takes that of whoever refuses.
      .filter(kind => kind !== 'errno' || errno !== undefined)
      .map(kind => ({ kind, rule: name, needs }))
      .map(({ kind, rule }) => ({ kind, rule })),
  )
  const words = KERNEL_LISTS.flatMap(list =>
    [...list.words].map(word => ({ kind: 'member' as const, list: list.name, word })),
  )
  return [...rules, ...words]
}

/** Mutants that no call can tell from the model, and why. They count neither way. */
const ALIKE: Readonly<Record<string, string>> = {
  'pass PROG_ATTACH: program of the attach type': 'every later check fails with the same EINVAL',
  'program types with a program as target: tracing':
    'the verifier says the same EINVAL of a program without BTF',
  'program types with a program as target: ext': 'the verifier says the same EINVAL of a program without BTF',
  'program types with a target: ext': 'the verifier says the same EINVAL of a target in the kernel',
}

const nameOf = (mutation: Mutation): string =>
  mutation.kind === 'member' ? `${mutation.list}: ${mutation.word}` : `${mutation.kind} ${mutation.rule}`

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { out: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(process.env['SEED'] ?? 1)
  const cases = await recorded(Number(process.env['CASES'] ?? 60_000), seed)
  const wrong = cases.filter(one => one.kernel !== one.model())
  if (wrong.length > 0) throw new Error(`${wrong.length} cases differ without any mutation`)
  const all = mutants().filter(mutation => ALIKE[nameOf(mutation)] === undefined)
  const only = values.only === undefined ? undefined : readFileSync(values.only, 'utf8').split('\n')
  const tried = all.filter(mutation => only === undefined || only.includes(nameOf(mutation)))
  const left = tried.filter(mutation => !cases.some(one => one.kernel !== one.model(mutation)))
  for (const mutation of left) console.log(`  not noticed: ${nameOf(mutation)}`)
  if (values.out !== undefined) writeFileSync(values.out, left.map(nameOf).join('\n'))
  for (const [name, why] of Object.entries(ALIKE)) console.log(`  not told apart: ${name}: ${why}`)
  const score = ((all.length - left.length) / all.length) * 100
  const before = all.length - tried.length
  console.log(
    `mutation: ${all.length - left.length} of ${all.length} mutants noticed (${score.toFixed(1)}%)` +
      `${before > 0 ? `, ${before} of them before` : ''}, by ${cases.length} cases, SEED=${seed}`,
  )
}

void main()
