/** Runs `bpftoken run` as an ordinary user. */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { frontPath } from '../../src/sys/prebuilt.ts'
import { execute, type Result, type RunOptions } from './cli.ts'
import { Scratch } from './scratch.ts'

/** Ids that no account of this machine should have. */
export const USER = 4711
export const OTHER_USER = 4712

/** A command line that runs `command` as that user, with no capability. Needs root. */
export function asUser(uid: number, command: readonly string[]): [string, string[]] {
  const ids = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups']
  return ['setpriv', [...ids, ...command]]
}

/** A copy of the command's front that every user may run. There is no Node that it could start. */
export class Front implements Disposable {
  readonly program: string
  readonly #scratch = new Scratch()

  constructor() {
    this.program = join(this.#scratch.path, 'bpftoken-run')
    copyFileSync(frontPath(), this.program)
  }

  /** The words of `bpftoken run`. */
  words(policy: string, ...more: readonly string[]): string[] {
    return [this.program, '--strict', 'run', '--policy', policy, ...more]
  }

  /** Runs it to its end. */
  run(
    socket: string,
    words: readonly string[],
    { uid = USER, env, ...options }: RunOptions & { uid?: number } = {},
  ): Promise<Result> {
    const variables = { ...process.env, ...env, BPFTOKEN_SOCKET: socket }
    return execute(...asUser(uid, words), { cwd: '/', ...options, env: variables })
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]()
  }
}
