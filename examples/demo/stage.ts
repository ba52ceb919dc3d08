/** What the story is told with: commands that are shown and run, and an end when one does not say what it should. */
import { spawnSync } from 'node:child_process'
import path from 'node:path'

export const ROOT = path.resolve(__dirname, '../..')
export const BPFTOKEN = [process.execPath, path.join(ROOT, 'dist/cli/main.js')]

export interface Outcome {
  status: number
  output: string
}

export function tell(text: string): void {
  console.log(`${text}\n`)
}

/** What a command said, indented. */
export function said(output: string): void {
  for (const line of output.trimEnd().split('\n')) console.log(`    ${line}`)
  console.log()
}

/** Shows a command, runs it, and shows what it said. */
export function show(directory: string, shown: string, argv: string[]): Outcome {
  console.log(`  $ ${shown}`)
  const done = spawnSync(argv[0]!, argv.slice(1), {
    cwd: directory,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (done.error) throw done.error
  const output = done.stdout + done.stderr
  said(output)
  return { status: done.status ?? 1, output }
}

/** The story is only told when it is true. */
export function expect(outcome: Outcome, status: number, said: RegExp): void {
  if (outcome.status === status && said.test(outcome.output)) return
  throw new Error(`expected exit ${status} and ${said}, got exit ${outcome.status}`)
}
