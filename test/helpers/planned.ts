/** What `plan --json` says, as `Plan` describes it as far as a test looks at it. */
import assert from 'node:assert/strict'
import { publicCli } from './cli.ts'

export async function planned<Plan>(...args: string[]): Promise<Plan> {
  const { status, stdout, stderr } = await publicCli(['plan', '--json', ...args])
  assert.equal(status, 0, stderr)
  return JSON.parse(stdout) as Plan
}
