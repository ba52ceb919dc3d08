/** The commands that lend, take back, and list what is lent; and whether this machine can at all. */
import { Argument, Option } from 'commander'
import { DELEGATION_IDS, DESCRIPTORS, MOUNT_IDS } from '../../uapi/number-range.ts'
import {
  anySubject,
  comment,
  common,
  daemonOptions,
  dryRun,
  lifetime,
  loanName,
  numberWithin,
  path,
  policy,
  recipientOptions,
} from './options.ts'
import type { Part } from './part.ts'
import { runOptions } from './run-options.ts'

export const lendingCommands: Part = (root, act) => {
  common(root.command('doctor'))
    .description('prove, by doing it, what this machine can delegate')
    .example('doctor', 'one line for each fact, with a remedy where it fails')
    .action(act(async () => (await import('../commands/doctor.ts')).doctor))

  common(
    runOptions(
      root.command('run').description('run a program in its own user namespace, with a delegation in place'),
    ),
    'with --dry-run: print one JSON document (errors: on stderr)',
  )
    .details(
      'It gets of you: descriptors 0 to 2, limits, and of the environment PATH, TERM, LANG, LC_*, TZ. See docs/run.md.',
      'Exit: its own status; 128 + n when signal n ended it; 127 there is no such program, 126 it cannot be executed;\n' +
        '1 to 5 before it started: see bpftoken --help.',
    )
    .example('run --policy policy.yaml -- ./loader --verbose', 'a loader that finds its token by itself')
    .example('run --policy packet-counter -- ./loader', 'as an ordinary user, where the daemon lends')
    .example('run --policy policy.yaml --user alice --dry-run -- id', 'what would be done')
    .action(act(async () => (await import('../commands/run.ts')).run))

  common(
    daemonOptions(
      recipientOptions(
        root
          .command('delegate')
          .description('lend to a process that runs in a user namespace of its own, e.g. a container'),
      ),
    )
      .addOption(policy())
      .addOption(path())
      .addOption(
        new Option(
          '--context-fd <fd>',
          'configure the bpffs context that the process opened; it mounts it itself',
        ).argParser(numberWithin(DESCRIPTORS)),
      )
      .option('--only-cgroup <dir>', 'tokens can be made in this cgroup and below only (needs the guard)')
      .addOption(anySubject())
      .option(
        '--strict',
        'refuse (exit 4) where the process may not be able to use the loan, instead of warning',
      )
      .addOption(lifetime('end it after this time, if its policy lets it live longer (by the daemon)'))
      .addOption(comment('why: shown to who approves, and kept (by the daemon)'))
      .option('--no-wait', 'where somebody must approve first, do not wait for it')
      .addOption(dryRun()),
  )
    .details(
      'Where the daemon answers, it lends: to its policies by their names, for root also by a file; for others only to their\n' +
        'own user namespaces, under policies that name them. As root it is done without the daemon where there is none.',
    )
    .example('delegate --container web --policy policy.yaml', 'to a container of Podman or Docker')
    .example('delegate --pid 4711 --policy dev --lifetime 2h', 'by name, through the daemon, for two hours')
    .example('delegate --pid 4711 --policy policy.yaml --direct', 'as root, without the daemon')
    .action(act(async () => (await import('../commands/delegate.ts')).delegate))

  common(
    daemonOptions(
      recipientOptions(
        root
          .command('undelegate')
          .description('unmount a delegation, so that no new token can be made from it'),
      ),
    )
      .addOption(path())
      .addOption(
        new Option('--mount <id>', 'which mount, by the number that ls shows, instead of its path').argParser(
          numberWithin(MOUNT_IDS),
        ),
      ),
  )
    .example('undelegate --container web', 'all mounts of what was lent to it at /sys/fs/bpf')
    .action(act(async () => (await import('../commands/undelegate.ts')).undelegate))

  common(
    daemonOptions(
      recipientOptions(
        root
          .command('derive')
          .description('lend a part of what is lent already; it falls with its origin (needs the guard)')
          .addArgument(
            new Argument('<id>', 'what to derive from: loan-NUMBER, or the number of the guard').argParser(
              loanName,
            ),
          ),
      ),
    )
      .addOption(policy())
      .addOption(path())
      .addOption(lifetime('end it after this time, if its origin lives longer (by the daemon)'))
      .option(
        '--strict',
        'fail if the policy asks for more than there is (exit 3), or the process may not be able to use it (exit 4)',
      )
      .addOption(anySubject()),
  )
    .details(
      'Its limits are taken out of those of its origin, which must say spec.derive.allowed: true and has that much less\n' +
        'until the derived one ends. A limit that its policy does not name is all that is left.',
    )
    .example('derive 7 --pid 4712 --policy narrower.yaml', 'a part of delegation 7, for another process')
    .example('derive loan-7 --pid 4712 --policy narrow', 'a part of a loan, by who has it')
    .action(act(async () => (await import('../commands/derive.ts')).derive))

  common(
    root
      .command('confine')
      .description("hold a cgroup in the host's user namespace to a policy, without tokens (needs the guard)")
      .requiredOption('--cgroup <dir>', 'the cgroup; those below it are confined with it')
      .addOption(policy())
      .addOption(anySubject()),
  )
    .details(
      'For services that run as root: of bpf(2) they can do what the policy lends, within its limits. Capabilities are not\n' +
        'judged, and a service that may write to cgroupfs can leave its cgroup. See docs/guard.md.',
    )
    .example(
      'confine --cgroup /sys/fs/cgroup/system.slice/agent.service --policy policy.yaml',
      'a service that runs as root',
    )
    .action(act(async () => (await import('../commands/confine.ts')).confine))
  common(
    root
      .command('unconfine')
      .description('end a confinement')
      .argument('[id]', 'its number', numberWithin(DELEGATION_IDS))
      .option('--cgroup <dir>', 'the cgroup that is confined, instead of the number'),
  )
    .example('unconfine --cgroup /sys/fs/cgroup/system.slice/agent.service', 'by its cgroup')
    .action(act(async () => (await import('../commands/confine.ts')).unconfine))

  common(
    daemonOptions(
      root
        .command('ls')
        .description(
          'what is lent: the loans of the daemon, or all delegated bpffs instances of this machine',
        )
        .option('--tree', 'by container or unit, with what is derived'),
    ),
  )
    .details(
      'Where the daemon answers: the loans that are yours; for root all, with those that others made (systemd, Incus). With\n' +
        '--direct, or without it: one row for each mount that can be seen; and with --tree what the guard knows to be\n' +
        'loaded under each.',
      'Containers and units are told by the names of their cgroups. Without the guard, what was loaded under a\n' +
        'delegation is not known.',
    )
    .example('ls --tree', 'who has what')
    .example('ls --tree --direct', 'who has what, and what lives of it')
    .example('ls', 'one row for each loan')
    .example('ls --direct', 'one row for each mount')
    .action(act(async () => (await import('../commands/ls.ts')).ls))
}
