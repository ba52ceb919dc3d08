/**
 * `bpftoken ls` of a thousand delegations among ten thousand mounts, beside the least that finds
 * them: a C program that reads one mountinfo file of each mount namespace.
 */
import { execFileSync } from 'node:child_process'
import { CProgram, compile } from './c-program.ts'
import { type Cost, type CostRatio, costsOf, ratioOf } from './cost.ts'
import { CLI } from './dist.ts'

const NAMESPACES = 1000
const MOUNTS = 10
const GOAL = 3

export interface ListingResult {
  readonly ours: Cost
  readonly c: Cost
  readonly ratio: CostRatio
  readonly goal: number
}

export async function measureListing(roundCount: number): Promise<ListingResult> {
  const ls = [process.execPath, CLI, 'ls']
  const search = [compile('mountinfo')]
  using lent = new CProgram('lent', [String(NAMESPACES), String(MOUNTS)])
  await lent.said()
  // Of what others lend at the same time both tell.
  const lines = ([program, ...args]: string[]): number =>
    execFileSync(program!, args, { encoding: 'utf8' }).split('\n').length - 1
  for (const count of [lines(ls) - 1, lines(search)])
    if (count < NAMESPACES) throw new Error(`Only ${count} of ${NAMESPACES} delegations were found`)
  const costs = await costsOf({ ours: ls, c: search }, roundCount)
  return { ...costs, ratio: ratioOf(costs.ours, costs.c), goal: GOAL }
}
