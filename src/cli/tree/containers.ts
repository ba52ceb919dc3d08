/** The commands that have container runtimes ask us while they make a container. */
import type { Command } from '../command.ts'
import { common, socket } from './options.ts'
import type { Part } from './part.ts'

export const containerCommands: Part = (root, act) => {
  const containers = common(root.command('containers'))
    .description('containers that ask for a loan by annotation: has Podman call our hook (as root)')
    .example('containers install', 'podman run --annotation bpftoken.dev/policy=NAME ...')
  const options = (command: Command): Command =>
    common(
      command
        .addOption(socket())
        .option('--hooks-dir <dir>', 'where Podman reads hooks (default: /usr/share/containers/oci/hooks.d)'),
    )
  options(containers.command('install'))
    .description('has Podman call the hook for containers that ask, and says what is wrong')
    .details('Exit: 0 containers that ask are lent to; 1 something is in the way, and is named.')
    .example('containers install', 'once; done again it changes nothing')
    .action(act(async () => (await import('../commands/containers.ts')).install))
  options(containers.command('status'))
    .description('whether containers that ask are lent to, or what is in the way')
    .details('Exit: 0 they are; 1 something is in the way, and is named.')
    .example('containers status --json', 'for a program')
    .action(act(async () => (await import('../commands/containers.ts')).status))
  options(containers.command('remove'))
    .description('takes the hook away; containers that ask start without a loan then')
    .example('containers remove', 'what is lent goes on')
    .action(act(async () => (await import('../commands/containers.ts')).remove))
}
