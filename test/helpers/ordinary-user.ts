/** Runs `bpftoken run` as an ordinary user. */
import assert from 'node:assert/strict'
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { frontPath } from '../../src/sys/prebuilt.ts'
import { cli, execute, type Result, type RunOptions } from './cli.ts'
import { ROOT } from './machine.ts'
import { Scratch } from './scratch.ts'

/** Ids that no account of this machine should have. */
export const USER = 4711
export const OTHER_USER = 4712

/** A command line that runs `command` as that user, with no capability. Needs root. */
export function asUser(uid: number, command: readonly string[]): [string, string[]] {
  const ids = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups']
  return ['setpriv', [...ids, ...command]]
}

/** The name and the value of each line of /proc/PID/status. */
export const statusOf = (text: string): Map<string, string> =>
  new Map([...text.matchAll(/^(\w+):\s*(.*)$/gm)].map(([, name, value]) => [name!, value!]))

/** That what has printed `id -u`, its status, its bpffs' type and its uid_map has BPF and NET_ADMIN alone. */
export function hasWhatIsLentAlone(stdout: string): void {
  assert.match(stdout, /^0\n/)
  assert.match(stdout, /^bpf_fs$/m)
  assert.match(stdout, new RegExp(`^ +0 +${USER} +1$`, 'm'))
  const facts = statusOf(stdout)
  const caps = '0000008000001000'
  assert.deepEqual(
    ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map(name => facts.get(name)),
    ['0000000000000000', caps, caps, caps, '0000000000000000'],
  )
  assert.deepEqual([facts.get('NoNewPrivs'), facts.get('Seccomp')], ['1', '2'])
}

/** What a user's policies lend: the least that the program `count` of this object needs. */
export const LENT_OBJECT = 'test/fixtures/network.bpf.o'

/** Makes policies of what `LENT_OBJECT` needs: named so, with those lines at the head of their spec. */
export async function lentObjectPolicies(): Promise<(name: string, spec: string) => string> {
  const planned = await cli(['plan', '--loader', 'bpftoken', '--program', 'count', join(ROOT, LENT_OBJECT)])
  assert.equal(planned.status, 0, planned.stderr)
  return (name, spec) =>
    planned.stdout
      .replace(/^( *name:).*$/m, `$1 ${name}`)
      .replace(/^ *network:.*\n/m, '')
      .replace(/^spec:$/m, `spec:\n${spec.trimEnd()}`)
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
