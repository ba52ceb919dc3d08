/**
 * What the story is told with: commands that are shown and run, and an end when one does not say
 * what it should.
 */
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

/**
 * What a command said, indented; of lines that differ in their times only the first, and how many
 * follow.
 */
export function said(output: string): void {
  let last: string | undefined
  let more = 0
  const endOfSame = (): void => {
    if (more > 0) console.log(`    ... and ${more} more of these`)
    more = 0
  }
  for (const line of output.trimEnd().split('\n')) {
    const timeless = line.replace(/^\d{4}-\d\d-\d\dT[\d:.]+Z /, '')
    if (timeless === last && timeless !== line) {
      more++
      continue
    }
    endOfSame()
    console.log(`    ${line}`)
    last = timeless
  }
  endOfSame()
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
