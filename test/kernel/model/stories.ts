/**
 * Random stories of how a bpffs is made: fsopen, options, creation and fsmount by several tasks that
 * share the descriptor, and mount(2) at once.
 */

import type { FsContext } from '../../../src/model/bpffs.ts'
import { decideFs, type FsCall, type FsDecision } from '../../../src/model/decide.ts'
import type { Mutation } from '../../../src/model/judge.ts'
import { Batch, MAX_STEPS } from './executor.ts'
import { ALL_CAPABILITIES, ALL_CAPS, CONTEXTS, capsMask, type Lab, taskOf } from './lab.ts'
import { outcomeOf } from './outcome.ts'
import type { Random } from './random.ts'

interface Option {
  readonly key: string
  readonly value?: string
}

export interface Move {
  readonly context: number
  readonly caps: number
  readonly op: FsCall['op']
  readonly option?: Option
  readonly options?: readonly Option[]
}

export type Story = readonly Move[]

const NUMBERS = [
  '0',
  '0x1',
  '0x21',
  '33',
  '017',
  '08',
  '0x',
  '0xffffffffffffffff',
  '18446744073709551616',
  '-1',
]
const ODD = [
  '',
  ':',
  'any:',
  'ANY',
  'map_create,prog_load',
  'map_create ',
  'BPF_MAP_CREATE',
  '+3',
  '0X1F',
  '1x',
]

function value(random: Random, lab: Lab, key: string): string {
  const domain = key.replace('delegate_', '') as 'cmds'
  const words = [...(lab.kernel.vocabulary[domain]?.bitOfName.keys() ?? ['map_create'])]
  const item = (): string => {
    const how = random.below(10)
    if (how < 4) return random.pick(words)
    if (how === 4) return random.pick(words).toUpperCase()
    if (how < 7) return random.pick(NUMBERS)
    return how === 7 ? 'any' : how === 8 ? random.pick(ODD) : 'no_such_word'
  }
  return Array.from({ length: 1 + (random.chance(40) ? random.below(3) : 0) }, item).join(':')
}

const KEYS = ['delegate_cmds', 'delegate_maps', 'delegate_progs', 'delegate_attachs']

function option(random: Random, lab: Lab): Option {
  const how = random.below(20)
  if (how < 13) {
    const key = random.pick(KEYS)
    return random.chance(4) ? { key } : { key, value: value(random, lab, key) }
  }
  if (how < 15)
    return {
      key: random.pick(['uid', 'gid']),
      value: random.pick(['0', '1000', '100000', '101000', '70000', '200000', '4294967295', 'x', '-1']),
    }
  if (how === 15) return { key: 'mode', value: random.pick(['0700', '777', '8', '0x1ff', 'rwx']) }
  if (how === 16) return random.chance(20) ? { key: 'source' } : { key: 'source', value: 'here' }
  if (how === 17) return { key: 'DELEGATE_CMDS', value: 'any' }
  return random.chance(50) ? { key: 'delegate' } : { key: 'abilities', value: 'x' }
}

export function story(random: Random, lab: Lab): Story {
  const who = () => ({
    context: random.chance(50) ? random.pick([0, 2]) : random.below(CONTEXTS.length),
    caps: random.chance(65) ? ALL_CAPS : random.below(ALL_CAPS),
  })
  if (random.chance(25)) {
    const options = Array.from({ length: random.below(3) }, () => option(random, lab))
    return [{ ...who(), op: 'mount', options: options.filter(asData) }]
  }
  const moves: Move[] = [{ ...who(), op: 'fsopen' }]
  for (let i = random.below(4); i > 0; i--)
    moves.push({ ...who(), op: 'fsconfig_set', option: option(random, lab) })
  for (let i = 1 + random.below(3); i > 0; i--)
    moves.push(
      random.pick<Move>([
        { ...who(), op: 'fsconfig_create' },
        { ...who(), op: 'fsconfig_create' },
        { ...who(), op: 'fsmount' },
        { ...who(), op: 'fsconfig_set', option: option(random, lab) },
      ]),
    )
  return moves
}

/** Options that can be written into mount(2)'s one string. */
function asData({ key, value: text }: Option): boolean {
  return text !== undefined && text !== '' && !text.includes(',') && key !== 'source' && !/[A-Z]/.test(key)
}

/** What the model says of each move, up to an fsopen that fails. */
export function tell(lab: Lab, moves: Story, mutation?: Mutation): FsDecision[] {
  const decisions: FsDecision[] = []
  let context: FsContext | undefined
  for (const move of moves) {
    const task = taskOf(move.context, move.caps)
    const call = callOf(move, context)
    const decision = decideFs(lab.machine, task, call, mutation)
    decisions.push(decision)
    if (move.op === 'fsopen' && decision.context === undefined) break
    context = decision.context ?? context
  }
  return decisions
}

function callOf(move: Move, context: FsContext | undefined): FsCall {
  switch (move.op) {
    case 'fsopen':
      return { op: 'fsopen' }
    case 'mount':
      return { op: 'mount', options: move.options ?? [] }
    case 'fsconfig_set':
      return { op: 'fsconfig_set', context: context!, ...move.option! }
    default:
      return { op: move.op, context: context! }
  }
}

const CONTEXT = 1

/** What the kernel says of each move of each story. */
export async function enact(lab: Lab, stories: readonly Story[]): Promise<string[][]> {
  const outcomes: string[][] = []
  const batch = new Batch()
  const places: (string[] | undefined)[] = []
  const finish = async (): Promise<void> => {
    const results = await lab.executor.run(batch)
    for (const [i, place] of places.entries()) place?.push(outcomeOf(results[i]!))
    places.length = 0
    // Values are new with each story: the arena would be full.
    lab.executor.forgetTexts(mark)
  }
  const mark = lab.executor.mark()
  for (const moves of stories) {
    const place: string[] = []
    outcomes.push(place)
    if (batch.count + moves.length + 1 > MAX_STEPS || lab.executor.isNearlyFull) await finish()
    for (const move of moves) {
      addMove(lab, batch, move)
      places.push(place)
    }
    batch.add({ context: 0, op: 'close', capabilities: ALL_CAPABILITIES, in: CONTEXT })
    places.push(undefined)
  }
  await finish()
  return outcomes
}

function addMove(lab: Lab, batch: Batch, move: Move): void {
  const { executor } = lab
  const who = { context: move.context, capabilities: capsMask(move.caps) }
  switch (move.op) {
    case 'fsopen':
      batch.add({ ...who, op: 'fsopen', out: CONTEXT, givesFd: true })
      return
    case 'fsconfig_set': {
      const { key, value: text } = move.option!
      const a = executor.text(key)
      if (text === undefined) batch.add({ ...who, op: 'fsconfigFlag', in: CONTEXT, a })
      else batch.add({ ...who, op: 'fsconfigString', in: CONTEXT, a, b: executor.text(text) })
      return
    }
    case 'fsconfig_create':
      batch.add({ ...who, op: 'fsconfigCreate', in: CONTEXT })
      return
    case 'fsmount':
      batch.add({ ...who, op: 'fsmount', in: CONTEXT, givesFd: true })
      return
    case 'mount': {
      const data = (move.options ?? []).map(({ key, value: text }) => `${key}=${text}`).join(',')
      batch.add({ ...who, op: 'mount', a: executor.text('/mnt'), b: executor.text(data) })
    }
  }
}

export interface StoryDifference {
  readonly story: Story
  readonly kernel: readonly string[]
  readonly model: readonly string[]
}

export const wordsOf = (decisions: readonly FsDecision[]): string[] =>
  decisions.map(({ errno }) => errno ?? 'ok')

export async function storyRound(
  lab: Lab,
  random: Random,
  count: number,
  seen: (what: string) => void = () => {},
): Promise<StoryDifference[]> {
  const stories = Array.from({ length: count }, () => story(random, lab))
  return differing(lab, stories, seen)
}

async function differing(
  lab: Lab,
  stories: readonly Story[],
  seen: (what: string) => void = () => {},
): Promise<StoryDifference[]> {
  const kernel = await enact(lab, stories)
  return stories.flatMap((moves, i) => {
    const model = wordsOf(tell(lab, moves))
    const said = kernel[i]!.slice(0, model.length)
    for (const [at, word] of said.entries()) seen(`${moves[at]!.op} ${word}`)
    return said.join() === model.join() ? [] : [{ story: moves, kernel: said, model }]
  })
}

/** The same difference in fewer moves. */
export async function shrinkStory(lab: Lab, difference: StoryDifference): Promise<StoryDifference> {
  let best = difference
  for (let smaller = true; smaller; ) {
    smaller = false
    for (let i = 1; i < best.story.length && !smaller; i++) {
      const [found] = await differing(lab, [best.story.filter((_, at) => at !== i)])
      if (found === undefined) continue
      best = found
      smaller = true
    }
  }
  return best
}

export function storyText({ story: moves, kernel, model }: StoryDifference): string {
  return moves
    .map((move, i) => `${JSON.stringify(move)}\n  kernel: ${kernel[i]}\n  model:  ${model[i]}`)
    .join('\n')
}
