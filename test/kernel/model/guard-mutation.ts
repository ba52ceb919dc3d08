/**
 * How well random stories can hold the model of the guard (src/model/guard), on paper: each place of
 * its code is changed once, and the same stories are played by the model and by the changed one, and
 * compared by what a VM compares. What no story tells from the model here, none tells there.
 *
 *   STORIES=300 SEED=1 tsx test/kernel/model/guard-mutation.ts
 */
import { mkdirSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { CACHE, ROOT } from '../../../scripts/tree.ts'
import { knownKernel } from '../../../src/model/machines.ts'
import { story } from '../../vm/story/generate.ts'
import { type Known, Paper } from '../../vm/story/paper.ts'
import {
  BODIES,
  MEMBERS,
  type Said,
  SHAPES,
  type Shape,
  SKIPPED,
  type Step,
  type Story,
} from '../../vm/story/step.ts'
import { Random } from './random.ts'
import { SourceMutants, turnTo } from './source-mutants.ts'

const GUARD = join(ROOT, 'src/model/guard')
const BUNDLE = join(CACHE, 'model/guard-mutants.cjs')
/** Steps after which what is in use is compared. */
const COUNTED: ReadonlySet<Step['do']> = new Set(['create', 'token', 'map', 'prog', 'close'])
/** Stories that are played of one mutant after another, before the next ones. */
const ROUND = 25

const machine = { kernel: knownKernel('7.3'), unprivilegedBpfDisabled: 2 as const }
const tag = (shape: Shape, body: number): string => `tag:${shape}${body}`
/** On paper numbers of members and sizes are any. */
const KNOWN: Known = {
  tag,
  attachType: shape => {
    const of = SHAPES[shape]
    return 'member' in of
      ? MEMBERS.indexOf(shape as (typeof MEMBERS)[number]) + 1
      : machine.kernel.vocabulary.attachs.bitOfName.get(of.attach)!
  },
  controlBytes: 256,
}
const TAGS = Object.keys(SHAPES).flatMap(shape =>
  Array.from({ length: BODIES }, (_, body) => tag(shape as Shape, body)),
)

function randomStory(seed: number): Story {
  return story(new Random(seed), TAGS, bare => {
    const paper = new Paper(machine, bare, KNOWN)
    return step => paper.play(step)
  })
}

/** The program that plays a story on paper, with all mutants of the guard's model in it. */
async function withMutants(mutants: SourceMutants): Promise<typeof Paper> {
  const files = new Map(
    readdirSync(GUARD)
      .filter(name => name.endsWith('.ts'))
      .sort()
      .map(name => [name, mutants.changed(join(GUARD, name), name)]),
  )
  const plugin: Plugin = {
    name: 'mutants',
    setup: ({ onLoad }) =>
      onLoad({ filter: /src\/model\/guard\/[^/]+\.ts$/ }, ({ path }) => ({
        contents: files.get(basename(path))!,
        loader: 'ts',
      })),
  }
  mkdirSync(dirname(BUNDLE), { recursive: true })
  await build({
    entryPoints: [join(ROOT, 'test/vm/story/paper.ts')],
    outfile: BUNDLE,
    bundle: true,
    platform: 'node',
    plugins: [plugin],
    logLevel: 'error',
  })
  turnTo(0)
  return (require(BUNDLE) as { Paper: typeof Paper }).Paper
}

/** What a story came to, step by step. */
interface Told {
  readonly said: Said
  readonly usages?: string
}

function* played(Playing: typeof Paper, { steps, ...bare }: Story): Generator<Told> {
  const paper = new Playing(machine, { ...bare, steps }, KNOWN)
  for (const step of steps) {
    const said = paper.play(step)
    if (!COUNTED.has(step.do)) yield { said }
    else {
      const usages = [...paper.delegations].map(
        ([word, { usage }]) =>
          `${word}: ${usage.tokens} ${usage.programs} ${usage.maps} ${usage.mapBytes} ${usage.children}`,
      )
      yield { said, usages: usages.join('; ') }
    }
  }
}

const words = ({ outcome, notes }: Said): string => [outcome, ...notes].join('; ')

/** Whether a VM whose guard is as `expected` says would differ. */
function differs(expected: readonly Told[], changed: Iterable<Told>): boolean {
  const told = new Set<string>()
  let at = 0
  try {
    for (const { said, usages } of changed) {
      const { said: right, usages: counted } = expected[at++]!
      for (const one of right.capabilities) told.add(one)
      if (said === SKIPPED || said.outcome === SKIPPED.outcome) continue
      if (words(said) !== words(right) || usages !== counted) return true
      if (said.capabilities.some(one => !told.has(one))) return true
    }
  } catch {
    // It cannot even be asked any more.
    return true
  }
  return false
}

async function main(): Promise<void> {
  const stories = Number(process.env['STORIES'] ?? 300)
  const seed = Number(process.env['SEED'] ?? 1)
  const mutants = new SourceMutants()
  const Changed = await withMutants(mutants)
  let left = [...mutants.all]
  console.log(`guard: ${left.length} mutants`)
  for (let done = 0; done < stories && left.length > 0; done += ROUND) {
    const tales = Array.from({ length: Math.min(ROUND, stories - done) }, (_, i) =>
      randomStory(seed + done + i),
    )
    const expected = tales.map(tale => [...played(Paper, tale)])
    turnTo(0)
    for (const [i, tale] of tales.entries())
      if (differs(expected[i]!, played(Changed, tale)))
        throw new Error('the program without a mutant differs')
    left = left.filter(({ id }) => {
      turnTo(id)
      return !tales.some((tale, i) => differs(expected[i]!, played(Changed, tale)))
    })
    console.log(`  ${done + tales.length} stories, ${left.length} mutants left`)
  }
  for (const { text } of left) console.log(`  no story tells: ${text}`)
  const noticed = mutants.all.length - left.length
  const percent = ((noticed / mutants.all.length) * 100).toFixed(1)
  console.log(
    `mutation of the guard's model: ${stories} stories tell ${noticed} of ${mutants.all.length} mutants (${percent}%), SEED=${seed}`,
  )
}

void main()
