/**
 * `bpftoken run` of an ordinary user: all of it is done by native/run, which asks the daemon. Most
 * often that is the command's front and this is not reached; here is who calls it for a command
 * line that the front does not know.
 */
import { constants } from 'node:os'
import { DeniedError, NotSupportedError } from '../../errors.ts'
import { startFront } from '../../lending/front.ts'
import { isPolicyFile } from '../daemon/policy-choice.ts'
import { refuseLost } from '../environment.ts'
import { spoken } from '../output.ts'
import type { RunOptions } from '../run-options.ts'

/** What the terminal sends, it sends to the program as well. */
const TYPED = ['SIGINT', 'SIGQUIT', 'SIGWINCH'] as const
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'] as const

/** The status of the program, or of what keeps it from being run. */
export async function runAsUser(command: readonly string[], options: RunOptions): Promise<number> {
  refuseWhatIsForRoot(options)
  for (const word of command) refuseLost(word, 'an argument of the program')
  for (const [name, value] of Object.entries(process.env))
    refuseLost(`${name}=${value}`, `the variable ${name}`)
  const front = startFront(frontWords(command, options))
  for (const signal of TYPED) process.on(signal, () => {})
  for (const signal of FORWARDED) process.on(signal, () => front.child.kill(signal))
  const { code, signal } = await front.ended
  return code ?? 128 + constants.signals[signal!]
}

/** Fail closed: what is asked for is done or refused. */
function refuseWhatIsForRoot({ policy, user, anySubject, killRest, dryRun }: RunOptions): void {
  if (isPolicyFile(policy))
    throw new DeniedError('A policy of your own needs root', {
      hint: 'Give the name of a policy that the daemon has: bpftoken policy list; or run it with sudo',
    })
  if (user !== undefined)
    throw new DeniedError('Only root runs a program as another user', {
      hint: 'Leave out --user: it runs as you',
    })
  if (anySubject === true)
    throw new DeniedError('Only root lends to whom a policy does not name', {
      hint: 'Leave out --any-subject',
    })
  if (killRest === true)
    throw new NotSupportedError(
      'What a program of your own leaves behind, it could move out of the cgroup that is to be killed',
      { hint: 'Leave out --kill-rest, or run it in a unit: systemd-run --user --scope' },
    )
  if (dryRun === true)
    throw new NotSupportedError('What the daemon would do is not shown for a run of your own', {
      hint: 'As root: bpftoken run --user NAME --dry-run',
    })
}

function frontWords(command: readonly string[], options: RunOptions): string[] {
  const { policy, path, hostNet, identity, apart, keepEnv, json, socket, env = [], cap = [] } = options
  const flag = (given: boolean | undefined, word: string): string[] => (given === true ? [word] : [])
  return [
    ...['--strict', 'run', `--policy=${policy}`, `--path=${path}`],
    ...flag(hostNet, '--host-net'),
    ...flag(identity, '--identity'),
    ...flag(apart, '--apart'),
    ...flag(keepEnv, '--keep-env'),
    ...flag(json, '--json'),
    ...flag(spoken().quiet, '--quiet'),
    ...(socket === undefined ? [] : [`--socket=${socket}`]),
    ...env.map(word => `--env=${word}`),
    ...cap.map(name => `--cap=${name}`),
    ...['--', ...command],
  ]
}
