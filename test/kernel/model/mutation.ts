/**
 * How well random cases on this kernel hold the model: each change to it must make some case differ.
 * `make mutate-model` runs this on several kernels (mutate.ts).
 *
 *   CASES=60000 SEED=1 tsx test/kernel/model/mutation.ts [--only FILE] [--out FILE]
 *
 * A mutant is one rule inverted, one rule that always passes, one rule with another errno, one word
 * on a list or off it, or two rules that are neighbours in some case and change places. The kernel is
 * asked once, and each mutant is compared with its answers. With --only those that a result names
 * as noticed are not tried again; --out takes the result, as JSON.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Decision, Mutation } from '../../../src/model/judge.ts'
import { KERNEL_LISTS, KERNEL_RULES } from '../../../src/model/rules.ts'
import { onKernel, question } from './differ.ts'
import { generate } from './generate.ts'
import { Lab } from './lab.ts'
import { Random } from './random.ts'
import { enact, type Story, story, tell } from './stories.ts'

/** What came of some mutants, by their names. */
export interface MutationResult {
  /** The cases that were tried. */
  readonly cases: number
  readonly noticed: readonly string[]
  readonly left: readonly string[]
  /** Neighbours that no case can tell apart in the other order, since they fail with the same errno. */
  readonly sameErrno: readonly string[]
  /** Neighbours of which the second cannot be asked where the first one fails. */
  readonly dependent: readonly string[]
}

interface Case {
  readonly kernel: string
  readonly model: (mutation?: Mutation) => readonly Decision[]
}

const ROUND = 10_000

const asked =
  (ask: (mutation?: Mutation) => Decision): Case['model'] =>
  mutation => [ask(mutation)]

const saidBy = (one: Case, mutation?: Mutation): string =>
  one
    .model(mutation)
    .map(({ errno }) => errno ?? 'ok')
    .join()

async function recorded(cases: number, seed: number): Promise<Case[]> {
  const random = new Random(seed)
  const lab = await Lab.open()
  const all: Case[] = []
  try {
    while (all.length < cases) {
      await lab.renew(random)
      const specs = Array.from({ length: ROUND }, () => generate(random, lab))
      const outcomes = await onKernel(lab, specs)
      for (const [i, spec] of specs.entries())
        all.push({ kernel: outcomes[i]!, model: asked(question(lab, spec)) })
      const stories: Story[] = Array.from({ length: ROUND / 10 }, () => story(random, lab))
      const told = await enact(lab, stories)
      for (const [i, moves] of stories.entries()) {
        const { length } = tell(lab, moves)
        all.push({
          kernel: told[i]!.slice(0, length).join(),
          model: mutation => tell(lab, moves, mutation).slice(0, length),
        })
      }
    }
  } finally {
    await lab.close()
  }
  return all
}

function ofRules(): Mutation[] {
  const rules = KERNEL_RULES.flatMap(({ name, errno }) =>
    (['invert', 'pass', 'errno'] as const)
      // A rule without an errno lets the call go on, or takes that of whoever refuses.
      .filter(kind => kind !== 'errno' || errno !== undefined)
      .map(kind => ({ kind, rule: name })),
  )
  const words = KERNEL_LISTS.flatMap(list =>
    [...list.words].map(word => ({ kind: 'member' as const, list: list.name, word })),
  )
  return [...rules, ...words]
}

/** Rules that follow each other in some case, where both can end a call. */
function neighbours(cases: readonly Case[]): (Mutation & { kind: 'swap' })[] {
  const pairs = new Map<string, Set<string>>()
  const ends = new Set<string>()
  for (const one of cases)
    for (const { checks, verdict } of one.model()) {
      if (verdict === 'refused') ends.add(checks.at(-1)!.rule.name)
      for (let i = 1; i < checks.length; i++) {
        const [first, second] = [checks[i - 1]!.rule.name, checks[i]!.rule.name]
        const seconds = pairs.get(first) ?? new Set()
        pairs.set(first, seconds.add(second))
      }
    }
  return [...pairs].flatMap(([first, seconds]) =>
    [...seconds]
      .filter(second => second !== first && ends.has(first) && ends.has(second))
      .map(second => ({ kind: 'swap' as const, first, second })),
  )
}

export function nameOf(mutation: Mutation): string {
  if (mutation.kind === 'member') return `${mutation.list}: ${mutation.word}`
  if (mutation.kind === 'swap') return `swap ${mutation.first} / ${mutation.second}`
  return `${mutation.kind} ${mutation.rule}`
}

const ERRNO_OF = new Map(KERNEL_RULES.map(({ name, errno }) => [name, errno]))

function isSameErrno(mutation: Mutation): boolean {
  if (mutation.kind !== 'swap') return false
  const errno = ERRNO_OF.get(mutation.first)
  return errno !== undefined && errno === ERRNO_OF.get(mutation.second)
}

/** Whether some case differs; `dependent`: the model cannot be asked so. */
function tried(cases: readonly Case[], mutation: Mutation): 'noticed' | 'left' | 'dependent' {
  try {
    return cases.some(one => one.kernel !== saidBy(one, mutation)) ? 'noticed' : 'left'
  } catch (error) {
    if (mutation.kind === 'swap' && error instanceof TypeError) return 'dependent'
    throw error
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { out: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(process.env['SEED'] ?? 1)
  const cases = await recorded(Number(process.env['CASES'] ?? 60_000), seed)
  const wrong = cases.filter(one => one.kernel !== saidBy(one))
  if (wrong.length > 0) throw new Error(`${wrong.length} cases differ without any mutation`)
  const before =
    values.only === undefined
      ? undefined
      : new Set((JSON.parse(readFileSync(values.only, 'utf8')) as MutationResult).noticed)
  const result = { cases: cases.length, noticed: [], left: [], sameErrno: [], dependent: [] }
  const lists: {
    -readonly [K in keyof MutationResult]: MutationResult[K] extends readonly string[] ? string[] : number
  } = result
  for (const mutation of [...ofRules(), ...neighbours(cases)]) {
    const name = nameOf(mutation)
    if (before?.has(name)) continue
    lists[isSameErrno(mutation) ? 'sameErrno' : tried(cases, mutation)].push(name)
  }
  if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(result))
  const { noticed, left, sameErrno, dependent } = lists
  for (const name of left) console.log(`  not noticed here: ${name}`)
  for (const name of dependent) console.log(`  dependent: ${name}`)
  console.log(
    `mutation: ${noticed.length} noticed, ${left.length} not, by ${cases.length} cases, SEED=${seed}; ` +
      `left out: ${sameErrno.length} swaps of the same errno, ${dependent.length} of dependent rules`,
  )
}

if (require.main === module) void main()
