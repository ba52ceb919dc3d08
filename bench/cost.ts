/** What whole commands cost, in turn, so that noise of the machine meets all of them. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { compile } from './c-program.ts'
import { type Summary, summarize } from './stats.ts'

const execute = promisify(execFile)

/** Milliseconds, of which those on processors are less at the mercy of others on the machine. */
export interface Cost {
  readonly wall: Summary
  readonly cpu: Summary
}

/** Each must succeed. The first round warms up. */
export async function costsOf<Name extends string>(
  commands: Readonly<Record<Name, readonly string[]>>,
  roundCount: number,
): Promise<Record<Name, Cost>> {
  const program = compile('cost')
  const names = Object.keys(commands) as Name[]
  const samples = new Map(names.map(name => [name, { wall: [] as number[], cpu: [] as number[] }]))
  for (let round = -1; round < roundCount; round++)
    for (const name of names) {
      const [wall, cpu] = (await execute(program, commands[name])).stdout.split(' ').map(Number)
      if (round < 0) continue
      samples.get(name)!.wall.push(wall! / 1e6)
      samples.get(name)!.cpu.push(cpu! / 1e6)
    }
  const costs = [...samples].map(([name, { wall, cpu }]) => [
    name,
    { wall: summarize(wall), cpu: summarize(cpu) },
  ])
  return Object.fromEntries(costs) as Record<Name, Cost>
}

/** Ratios of the medians of one cost to those of others, one after the other. */
export interface CostRatio {
  readonly wall: number
  readonly cpu: number
}

export function ratioOf(cost: Cost, ...others: readonly Cost[]): CostRatio {
  const sum = (of: 'wall' | 'cpu') => others.reduce((all, one) => all + one[of].median, 0)
  return { wall: cost.wall.median / sum('wall'), cpu: cost.cpu.median / sum('cpu') }
}
