/**
 * `explain` of one call of a running process to which a bpffs is lent, over what cannot be saved:
 * starting Node.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { type Cost, costsOf } from './cost.ts'
import { CLI } from './dist.ts'

const POLICY = path.resolve(__dirname, '../examples/policies/packet-counter.yaml')
const GOAL_MS = 150

export interface ExplainResult {
  readonly costs: Readonly<Record<'node -e 0' | 'explain', Cost>>
  /** Medians, of time on processors and by the clock. */
  readonly overMs: { readonly cpu: number; readonly wall: number }
  readonly goalMs: number
}

export async function measureExplain(roundCount: number): Promise<ExplainResult> {
  const lent = spawn(
    process.execPath,
    [CLI, 'run', '--policy', POLICY, '--', 'sh', '-c', 'echo $$; read line'],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  try {
    const call = ['--', 'prog_load', 'xdp', 'xdp']
    const costs = await costsOf(
      {
        'node -e 0': [process.execPath, '-e', '0'],
        explain: [process.execPath, CLI, 'explain', '--pid', await numberFrom(lent), ...call],
      },
      roundCount,
    )
    const { 'node -e 0': node, explain } = costs
    const over = (of: 'cpu' | 'wall'): number => explain[of].median - node[of].median
    return { costs, overMs: { cpu: over('cpu'), wall: over('wall') }, goalMs: GOAL_MS }
  } finally {
    lent.stdin!.end('\n')
    await once(lent, 'exit')
  }
}

async function numberFrom(child: ChildProcess): Promise<string> {
  for await (const line of createInterface(child.stdout!)) return line
  throw new Error('the process that is lent to said nothing')
}
