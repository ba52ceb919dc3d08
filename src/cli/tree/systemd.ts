/** The command for units of systemd. */
import { Argument, Option } from 'commander'
import { anySubject, common, dryRun, numberWithin } from './options.ts'
import type { Part } from './part.ts'

export const systemdCommands: Part = (root, act) => {
  const systemd = common(root.command('systemd'))
    .description('units of systemd that are lent to each time that they start (as root)')
    .example('systemd dropin agent.service --policy policy.yaml', 'from the next start on')
  common(
    systemd
      .command('dropin')
      .description('write a drop-in that has systemd lend to a service, or remove it')
      .addArgument(new Argument('<unit>', 'the service'))
      .option(
        '--policy <policy>',
        'what is lent: a file; for systemd before 258 the name of one that the daemon has',
      )
      .option('--remove', 'remove the drop-in')
      .addOption(new Option('--dir <dir>', 'where units are configured').default('/etc/systemd/system'))
      .addOption(
        new Option('--systemd <version>', 'for another version than that of this machine').argParser(
          numberWithin({ min: 200, max: 99_999 }),
        ),
      )
      .addOption(anySubject())
      .addOption(dryRun()),
  )
    .details(
      'systemd 258 and newer delegates by itself. For an older one the program is started by bpftoken run, as the user\n' +
        'that the unit names, and bpftokend lends.',
    )
    .example('systemd dropin agent --policy policy.yaml --dry-run', 'what would be written')
    .action(act(async () => (await import('../commands/systemd.ts')).dropin))
}
