/**
 * The tree of commands: what each is called, takes and is for. The help, the man pages and the
 * completions are made from it. Its parts, in tree/, are by topic.
 *
 * It loads no command: the module of one is loaded when it is chosen, since start-up is felt on
 * each `run`.
 */
import { Command } from './command.ts'
import { containerCommands } from './tree/containers.ts'
import { daemonCommands } from './tree/daemon.ts'
import { guardCommands } from './tree/guard.ts'
import { lendingCommands } from './tree/lending.ts'
import { objectCommands } from './tree/objects.ts'
import { common } from './tree/options.ts'
import type { Act, Part } from './tree/part.ts'
import { policyCommands } from './tree/policy.ts'
import { shellCommands } from './tree/shells.ts'
import { systemdCommands } from './tree/systemd.ts'

/** Takes the exit status of the command that was chosen. */
export type Finish = (status: number) => void

/** In the order in which the help names their commands. */
const PARTS: readonly Part[] = [
  lendingCommands,
  daemonCommands,
  containerCommands,
  systemdCommands,
  policyCommands,
  guardCommands,
  objectCommands,
  shellCommands,
]

/** The whole tree; nothing is run before its `parseAsync`. */
export function commandTree(finish: Finish, version: string): Command {
  const act: Act =
    load =>
    async (...given) => {
      const run = await load()
      const options = (given.at(-1) as Command).optsWithGlobals()
      finish(await run(...([...given.slice(0, -2), options] as never[])))
    }

  const root = common(new Command('bpftoken'))
    .description('Lend eBPF to unprivileged programs: precisely, with audit, and revocably.')
    .version(version)
    .enablePositionalOptions()
    .details(
      'Exit: 0 ok, 1 failed, 2 usage, 3 denied (also: not root), 4 not supported here, 5 the daemon does not\n' +
        "answer, 141 nobody read the answer to its end. `run` passes on its program's.",
    )
    .example('doctor', 'what this machine can delegate')
    .example('run --policy policy.yaml -- ./loader', 'a program with a delegation')
    .example('ls', 'all that is lent on this machine')

  for (const add of PARTS) add(root, act)
  return root
}
