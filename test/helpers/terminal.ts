/** A terminal on which a test types commands and reads what they print. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { eventually } from './eventually.ts'

/** Runs `command` on a new terminal. */
export class Terminal implements Disposable {
  seen = ''
  readonly #child: ChildProcess

  constructor(command: string, env: NodeJS.ProcessEnv = process.env) {
    // No shell in between, since Ctrl-C would reach that, too.
    this.#child = spawn('script', ['-qefc', `exec ${command}`, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
      env: { ...env, TERM: 'dumb' },
    })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.seen += text
    })
  }

  type(text: string): void {
    this.#child.stdin!.write(text)
  }

  /** Waits for the pattern in what was printed since the last call, and gives all up to its end. */
  async see(pattern: RegExp): Promise<string> {
    let found: RegExpExecArray | null = null
    await eventually(
      () => {
        found = pattern.exec(this.seen)
        return found !== null
      },
      `never: ${pattern} in ${JSON.stringify(this.seen)}`,
    )
    const end = found!.index + found![0].length
    const text = this.seen.slice(0, end)
    this.seen = this.seen.slice(end)
    return text
  }

  async ended(): Promise<number> {
    const { exitCode } = this.#child
    return exitCode ?? ((await once(this.#child, 'exit')) as [number])[0]
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }
}

/** A program to stop and to continue: it says when it is there, and when it goes on. */
export const STOPPABLE = 'trap "echo resu\\med" CONT; echo rea""dy; while :; do sleep 0.1; done'

/**
 * Runs `command`, which says what STOPPABLE says, in an interactive shell: stops it by Ctrl-Z,
 * brings it back by `fg`, then Ctrl-C ends it. `says`: what it says to that. Its status must be
 * `status`.
 */
export async function stopsAndResumes(
  shell: { readonly terminal: Terminal; readonly prompt: RegExp },
  command: string,
  { status, says }: { readonly status: number; readonly says?: RegExp },
): Promise<void> {
  const { terminal, prompt } = shell
  await terminal.see(prompt)
  terminal.type(`${command}\n`)
  await terminal.see(/^ready/m)
  terminal.type('\x1a')
  await terminal.see(/Stopped/)
  terminal.type('fg > /dev/null\n')
  await terminal.see(/^resumed/m)
  terminal.type('\x03')
  if (says !== undefined) await terminal.see(says)
  await terminal.see(prompt)
  terminal.type('echo status=$?\n')
  await terminal.see(new RegExp(`status=${status}\\b`))
  terminal.type('exit\n')
  await terminal.ended()
}

/** Quotes words for a shell. */
export const quote = (words: readonly string[]): string =>
  words.map(word => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
