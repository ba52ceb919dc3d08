/** The commands that lend, take back, and list what is lent; and whether this machine can at all. */
import { Option } from 'commander'
import { DELEGATION_IDS, DESCRIPTORS, MOUNT_IDS } from '../../uapi/number-range.ts'
import {
  anySubject,
  capabilities,
  common,
  dryRun,
  numberWithin,
  path,
  policy,
  recipientOptions,
  repeatable,
} from './options.ts'
import type { Part } from './part.ts'

export const lendingCommands: Part = (root, act) => {
  common(root.command('doctor'))
    .description('prove, by doing it, what this machine can delegate')
    .example('doctor', 'one line for each fact, with a remedy where it fails')
    .action(act(async () => (await import('../commands/doctor.ts')).doctor))

  common(
    root
      .command('run')
      .description('run a program in its own user namespace, with a delegation in place')
      .addOption(
        new Option(
          '--policy <policy>',
          'what is lent: a file (YAML), or the name of one that the daemon has',
        ).makeOptionMandatory(),
      )
      .option(
        '--user <user>',
        'host user it runs as: name, uid or uid:gid (default: who called sudo, else nobody)',
      )
      .option('--host-net', "share the host's network instead of an own one")
      .addOption(path())
      .addOption(repeatable('--cap <name>', 'a further capability inside the namespace', capabilities))
      .addOption(anySubject())
      .option('--identity', 'it sees its own user id, with ambient capabilities, instead of root')
      .addOption(repeatable('--env <name[=value]>', 'a further variable of its environment'))
      .option('--keep-env', 'all of your environment, instead of a short list')
      .option('--socket <file>', 'where the daemon listens (default: $BPFTOKEN_SOCKET, else its usual place)')
      .option('--kill-rest', 'once it has ended, or bpftoken has, kill what it left behind')
      .addOption(dryRun()),
    'with --dry-run: print one JSON document (errors: on stderr)',
  )
    .argument('<command...>', 'the program and its arguments, after --')
    .passThroughOptions()
    .details(
      'It gets of you: descriptors 0 to 2, limits, and of the environment PATH, TERM, LANG, LC_*, TZ. See docs/run.md.',
      'Exit: its own status; 128 + n when signal n ended it; 127 there is no such program, 126 it cannot be executed;\n' +
        '1 to 4 before it started: see bpftoken --help.',
    )
    .example('run --policy policy.yaml -- ./loader --verbose', 'a loader that finds its token by itself')
    .example('run --policy packet-counter -- ./loader', 'as an ordinary user, where the daemon lends')
    .example('run --policy policy.yaml --user alice --dry-run -- id', 'what would be done')
    .action(act(async () => (await import('../commands/run.ts')).run))

  common(
    recipientOptions(
      root
        .command('delegate')
        .description('lend to a process that runs in a user namespace of its own, e.g. a container'),
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
      .addOption(dryRun()),
  )
    .example('delegate --container web --policy policy.yaml', 'to a container of Podman or Docker')
    .example('delegate --pid 4711 --policy policy.yaml', 'to the user namespace of this process')
    .action(act(async () => (await import('../commands/delegate.ts')).delegate))

  common(
    recipientOptions(
      root
        .command('undelegate')
        .description('unmount a delegation, so that no new token can be made from it'),
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
    recipientOptions(
      root
        .command('derive')
        .description('lend a part of what is lent already; it falls with its origin (needs the guard)')
        .argument('<id>', 'number of the delegation to derive from', numberWithin(DELEGATION_IDS)),
    )
      .addOption(policy())
      .addOption(path())
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
    root
      .command('ls')
      .description('all delegated bpffs instances of this machine, whoever made them')
      .option('--tree', 'by container or unit; with the guard also what is derived, and what was loaded'),
  )
    .details(
      'Containers and units are told by the names of their cgroups. Without the guard, what was loaded under a\n' +
        'delegation is not known.',
    )
    .example('ls --tree', 'who has what, and what lives of it')
    .example('ls', 'one row for each mount')
    .action(act(async () => (await import('../commands/ls.ts')).ls))
}
