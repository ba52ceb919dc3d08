/**
 * Whole commands beside what cannot be saved: starting Node and, for `run`, making a user
 * namespace. A policy is parsed once per boot, kernel and build for root, and each time for everybody
 * else.
 */
import path from 'node:path'
import { type Cost, type CostRatio, costsOf, ratioOf } from './cost.ts'
import { CLI } from './dist.ts'

const POLICY = path.resolve(__dirname, '../examples/policies/packet-counter.yaml')
const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
const ours = (...words: string[]): string[] => [process.execPath, CLI, ...words]

const COMMANDS = {
  'node -e 0': [process.execPath, '-e', '0'],
  'unshare true': ['unshare', '--user', '--map-root-user', 'true'],
  '--version': ours('--version'),
  'completion bash': ours('completion', 'bash'),
  'policy check, parsed before': ours('policy', 'check', POLICY),
  'policy check, not by root': [...NOBODY, ...ours('policy', 'check', POLICY)],
  'run -- true': ours('run', '--policy', POLICY, '--', 'true'),
} as const

/** What the ratio should not exceed. */
const GOALS = {
  '--version': 1.15,
  'completion bash': 1.15,
  'policy check, parsed before': 1.8,
  'policy check, not by root': 1.8,
  'run -- true': 1.3,
} as const

export interface StartupResult {
  readonly costs: Readonly<Record<keyof typeof COMMANDS, Cost>>
  /** To Node alone; `run` to Node and unshare, one after the other. */
  readonly ratios: Readonly<Record<keyof typeof GOALS, CostRatio>>
  readonly goals: typeof GOALS
}

export async function measureStartup(roundCount: number): Promise<StartupResult> {
  const costs = await costsOf(COMMANDS, roundCount)
  const { 'node -e 0': node, 'unshare true': unshare } = costs
  const ratios = (Object.keys(GOALS) as (keyof typeof GOALS)[]).map(name => [
    name,
    ratioOf(costs[name], ...(name === 'run -- true' ? [node, unshare] : [node])),
  ])
  return { costs, ratios: Object.fromEntries(ratios), goals: GOALS }
}
