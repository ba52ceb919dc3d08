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
import { describe, onKernel, predict, question } from './differ.ts'
import { generate } from './generate.ts'
import { Lab } from './lab.ts'
import { Random } from './random.ts'
import { enact, type Story, story, storyText, tell, wordsOf } from './stories.ts'

/** What came of some mutants, by their names. */
export interface MutationResult {
  /** The cases that were tried, and those that differed without a mutation, which are left out. */
  readonly cases: number
  readonly wrong: number
  readonly noticed: readonly string[]
  readonly left: readonly string[]
  /** Neighbours that no case can tell apart in the other order, since they fail with the same errno. */
  readonly sameErrno: readonly string[]
  /** Neighbours of which the second one is not asked where the first one fails. */
  readonly dependent: readonly string[]
}

interface Case {
  readonly kernel: string
  readonly model: (mutation?: Mutation) => readonly Decision[]
}

const ROUND = 10_000
/** More differences than that need not be told. */
const TOLD = 5

const asked =
  (ask: (mutation?: Mutation) => Decision): Case['model'] =>
  mutation => [ask(mutation)]

const saidBy = (decisions: readonly Decision[]): string => decisions.map(({ errno }) => errno ?? 'ok').join()

async function recorded(cases: number, seed: number): Promise<{ cases: Case[]; wrong: number }> {
  const random = new Random(seed)
  const lab = await Lab.open()
  const all: Case[] = []
  let wrong = 0
  const add = (one: Case, text: () => string): void => {
    if (one.kernel === saidBy(one.model())) all.push(one)
    else if (wrong++ < TOLD) console.log(`\n${text()}`)
  }
  try {
    while (all.length < cases) {
      await lab.renew(random)
      const specs = Array.from({ length: ROUND }, () => generate(random, lab))
      const outcomes = await onKernel(lab, specs)
      for (const [i, spec] of specs.entries())
        add({ kernel: outcomes[i]!, model: asked(question(lab, spec)) }, () =>
          describe(lab, { spec, kernel: outcomes[i]!, model: predict(lab, spec) }),
        )
      const stories: Story[] = Array.from({ length: ROUND / 10 }, () => story(random, lab))
      const told = await enact(lab, stories)
      for (const [i, moves] of stories.entries()) {
        const model = tell(lab, moves)
        const kernel = told[i]!.slice(0, model.length)
        add(
          {
            kernel: kernel.join(),
            model: mutation => tell(lab, moves, mutation).slice(0, model.length),
          },
          () => storyText({ story: moves, kernel, model: wordsOf(model) }),
        )
      }
    }
  } finally {
    await lab.close()
  }
  return { cases: all, wrong }
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

/** What the model does in the cases as it is. */
class Trace {
  /** The cases in which a rule is asked by itself. */
  readonly #askedIn = new Map<string, Case[]>()
  /** Those that end with it. */
  readonly #endedBy = new Map<string, Case[]>()
  readonly #followers = new Map<string, Set<string>>()
  readonly #all: readonly Case[]

  constructor(cases: readonly Case[]) {
    this.#all = cases
    for (const one of cases)
      for (const { checks, verdict } of one.model()) {
        if (verdict === 'refused') listOf(this.#endedBy, checks.at(-1)!.rule.name).push(one)
        for (const [i, { rule }] of checks.entries()) {
          listOf(this.#askedIn, rule.name).push(one)
          if (i === 0) continue
          const before = checks[i - 1]!.rule.name
          this.#followers.set(before, (this.#followers.get(before) ?? new Set()).add(rule.name))
        }
      }
  }

  /** Rules that follow each other in some case, where both can end a call. */
  neighbours(): (Mutation & { kind: 'swap' })[] {
    return [...this.#followers].flatMap(([first, seconds]) =>
      [...seconds]
        .filter(second => second !== first && this.#endedBy.has(first) && this.#endedBy.has(second))
        .map(second => ({ kind: 'swap' as const, first, second })),
    )
  }

  /** The cases that a mutation can change. */
  casesOf(mutation: Mutation): readonly Case[] {
    if (mutation.kind === 'member') return this.#all
    if (mutation.kind === 'swap') return this.#endedBy.get(mutation.first) ?? []
    // Parts of a test are told by no check.
    return this.#askedIn.get(mutation.rule) ?? this.#all
  }
}

function listOf<T>(map: Map<string, T[]>, key: string): T[] {
  let list = map.get(key)
  if (list === undefined) {
    list = []
    map.set(key, list)
  }
  return list
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

/** Whether some case differs; `dependent`: where the first of two rules fails, the second is not asked. */
function tried(cases: readonly Case[], mutation: Mutation): 'noticed' | 'left' | 'dependent' {
  let isAsked = mutation.kind !== 'swap'
  for (const one of cases) {
    const decisions = one.model(mutation)
    if (one.kernel !== saidBy(decisions)) return 'noticed'
    isAsked ||= decisions.some(
      ({ verdict, checks }) =>
        mutation.kind === 'swap' &&
        verdict === 'refused' &&
        checks.at(-1)!.rule.name === mutation.second &&
        checks.at(-2)?.rule.name === mutation.first,
    )
  }
  return isAsked ? 'left' : 'dependent'
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { out: { type: 'string' }, only: { type: 'string' } } })
  const seed = Number(process.env['SEED'] ?? 1)
  const { cases, wrong } = await recorded(Number(process.env['CASES'] ?? 60_000), seed)
  const before =
    values.only === undefined
      ? undefined
      : new Set((JSON.parse(readFileSync(values.only, 'utf8')) as MutationResult).noticed)
  const result = { cases: cases.length, wrong, noticed: [], left: [], sameErrno: [], dependent: [] }
  const lists: {
    -readonly [K in keyof MutationResult]: MutationResult[K] extends readonly string[] ? string[] : number
  } = result
  const trace = new Trace(cases)
  for (const mutation of [...ofRules(), ...trace.neighbours()]) {
    const name = nameOf(mutation)
    if (before?.has(name)) continue
    lists[isSameErrno(mutation) ? 'sameErrno' : tried(trace.casesOf(mutation), mutation)].push(name)
  }
  if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(result))
  const { noticed, left, sameErrno, dependent } = lists
  for (const name of left) console.log(`  not noticed here: ${name}`)
  console.log(
    `mutation: ${noticed.length} noticed, ${left.length} not, by ${cases.length} cases, SEED=${seed}; ${wrong} cases differ without a mutation; ` +
      `left out: ${sameErrno.length} swaps of the same errno, ${dependent.length} of dependent rules`,
  )
}

if (require.main === module) void main()
