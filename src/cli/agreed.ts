/** Whether a person agrees to what is about to be changed. */
import { createInterface } from 'node:readline/promises'
import { UsageError } from '../errors.ts'

export interface AgreeOptions {
  /** It was said on the command line. */
  yes?: boolean
}

/** UsageError: nobody can be asked, and nobody has said so. */
export function requireAgreement({ yes = false }: AgreeOptions): void {
  if (yes || isTerminal()) return
  throw new UsageError('There is no terminal to ask on whether the change is to be made', {
    hint: 'Say --yes, or leave out --fix to be told what would be changed',
  })
}

/** Asks on the terminal. All but `y` and `yes` is no, and so is the end of the input. */
export async function agreed(question: string, { yes = false }: AgreeOptions): Promise<boolean> {
  if (yes) return true
  if (!isTerminal()) return false
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const ended = new Promise<string>(resolve => {
      for (const event of ['close', 'SIGINT'] as const) terminal.once(event, () => resolve(''))
    })
    const answer = await Promise.race([terminal.question(`${question} [y/N] `), ended])
    return /^y(es)?$/i.test(answer.trim())
  } finally {
    terminal.close()
  }
}

function isTerminal(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true
}
