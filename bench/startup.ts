/**
 * `bpftoken run -- true` beside what cannot be saved: starting Node, and making a user namespace.
 */
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { compile } from './c-program.ts'
import { CLI } from './dist.ts'
import { type Summary, summarize } from './stats.ts'

const GOAL_MS = 30
const POLICY = path.resolve(__dirname, '../examples/policies/packet-counter.yaml')
const execute = promisify(execFile)

export interface StartupResult {
  readonly node: Summary
  readonly unshare: Summary
  readonly run: Summary
  /** Median of run, less the medians of the other two. */
  readonly overheadMs: number
  readonly goalMs: number
}

export async function measureStartup(roundCount: number): Promise<StartupResult> {
  const wall = compile('wall')
  const milliseconds = async (...command: string[]): Promise<number> =>
    Number((await execute(wall, command)).stdout) / 1e6
  const commands = {
    node: [process.execPath, '-e', '0'],
    unshare: ['unshare', '--user', '--map-root-user', 'true'],
    run: [process.execPath, CLI, 'run', '--policy', POLICY, '--', 'true'],
  }
  const samples = { node: [] as number[], unshare: [] as number[], run: [] as number[] }
  for (let round = -1; round < roundCount; round++) {
    for (const name of ['node', 'unshare', 'run'] as const) {
      const ms = await milliseconds(...commands[name])
      if (round >= 0) samples[name].push(ms) // the first round warms up
    }
  }
  const [node, unshare, run] = [samples.node, samples.unshare, samples.run].map(summarize) as [
    Summary,
    Summary,
    Summary,
  ]
  return { node, unshare, run, overheadMs: run.median - node.median - unshare.median, goalMs: GOAL_MS }
}
