/** `guard`, and the commands that ask or tell the guard of single delegations. */
import { Argument, Option } from 'commander'
import { USER_IDS } from '../../uapi/number-range.ts'
import {
  anySubject,
  comment,
  common,
  daemonOptions,
  delegatorOptions,
  dryRun,
  loanName,
  moment,
  numberWithin,
} from './options.ts'
import type { Part } from './part.ts'

export const guardCommands: Part = (root, act) => {
  const guard = common(root.command('guard'))
    .description('the BPF-LSM programs that enforce policy where masks end')
    .example('guard status', 'whether it enforces')
  common(
    guard
      .command('install')
      .description('load and pin it; adopt the one that is there, or replace it without a gap')
      .addOption(
        new Option(
          '--mode <mode>',
          'for what belongs to no delegation (default: as it was; enforce at first)',
        ).choices(['enforce', 'permissive']),
      )
      .option('--audit', 'record what is allowed, too')
      .option('--no-audit', 'record refusals only'),
  )
    .example('guard install', 'from now on, until it is removed or the machine restarts')
    .example(
      'guard install --mode permissive',
      'record what would be refused of strangers, and refuse nothing',
    )
    .action(act(async () => (await import('../commands/guard.ts')).install))
  common(guard.command('status'))
    .description('whether it enforces, proven by doing, and what lives')
    .details('Exit: 0 it is whole and enforces; 1 it does not.')
    .example('guard status', 'the guard, its policies, and what lives under it')
    .action(act(async () => (await import('../commands/guard.ts')).status))
  common(
    delegatorOptions(
      guard.command('allow').description('let another program enable delegation, within a policy'),
    )
      .option(
        '--policy <policy>',
        'the most that it may lend: rights, limits, all terms (default: everything)',
      )
      .addOption(anySubject())
      .option('--implicit', 'it need not say `delegate` and `abilities`: its first delegate_* option marks'),
  )
    .details(
      'Programs that know nothing of bpftoken need --implicit, and then lend on the terms of --policy:\n' +
        '  systemd 258 and newer (BPFDelegate*=)  --implicit --exe /usr/lib/systemd/systemd-executor\n' +
        '  Incus (security.bpffs.*)               --implicit --exe with the file of incusd\n' +
        '  LXD (security.delegate_bpf)            --implicit --exe with the file of lxd (snap: /snap/lxd/current/bin/lxd)\n' +
        'A program that is updated is another file: allow it again. Of a running one, /proc/PID/exe is the file.',
    )
    .example(
      'guard allow --implicit --exe /usr/lib/systemd/systemd-executor --policy most.yaml',
      'what units delegate, within this policy',
    )
    .action(act(async () => (await import('../commands/delegators.ts')).allow))
  common(
    delegatorOptions(guard.command('disallow').description('take it off the list; what it has lent goes on')),
  )
    .example('guard disallow --unit agent.service', 'a unit that was allowed')
    .action(act(async () => (await import('../commands/delegators.ts')).disallow))
  common(guard.command('remove'))
    .description('take it out of the kernel, with all that it knows')
    .example('guard remove', 'nothing enforces limits any more')
    .action(act(async () => (await import('../commands/guard.ts')).remove))

  common(
    daemonOptions(
      root
        .command('revoke')
        .description('take loans back: none of their tokens is of use any more')
        .addArgument(
          new Argument('[id]', 'which one: loan-NUMBER, or the number of the guard').argParser(loanName),
        )
        .option('--container <name>', 'all that is lent to this container')
        .option('--unit <name>', 'all that is lent to this unit of systemd')
        .option('--user <user>', 'all that this user has asked for: name or uid')
        .option('--policy <policy>', 'all that is lent under the policy of this name')
        .option('--all', 'all that is lent')
        .option('--detach', 'also detach what is attached under it, where the kernel can')
        .option('--kill', 'the same, and kill the processes in its user namespace that hold any of it')
        .addOption(dryRun())
        .addOption(comment('why: the audit keeps it')),
    ),
  )
    .details(
      'Name exactly one: an id, --container, --unit, --user, --policy or --all. Without the daemon only the number of the\n' +
        'guard can be named.',
      'Exit: 0 ok; 1 something stays that was to be undone.',
    )
    .example('revoke loan-7', 'at once, with what is derived from it')
    .example('revoke 7 --detach --kill', 'and undo what was done with it')
    .example('revoke --user alice --dry-run', 'what would be taken back')
    .action(act(async () => (await import('../commands/revoke.ts')).revoke))

  common(
    daemonOptions(
      root
        .command('show')
        .description('what is known of one delegation, or of one loan')
        .addArgument(new Argument('<id>', 'loan-NUMBER, or the number of the guard').argParser(loanName)),
    ),
  )
    .details(
      'Where the daemon answers it shows its loan, by either name. With --direct, or without the daemon: what the guard\n' +
        'knows of a number, for root.',
    )
    .example('show --direct 7', 'its terms, and what lives under it, as the guard has them')
    .example('show loan-7', 'who asked for it, what was made, and how it is now')
    .action(act(async () => (await import('../commands/show.ts')).show))

  common(
    daemonOptions(
      root
        .command('events')
        .description("the guard's verdicts: those that the daemon keeps, or those that nobody has read yet")
        .option('--follow', 'go on until interrupted')
        .addOption(new Option('--since <time>', 'not before: a time, or how long ago (2h)').argParser(moment))
        .addOption(
          new Option('--delegation <id>', 'of this one: loan-NUMBER, or the number of the guard').argParser(
            loanName,
          ),
        )
        .addOption(new Option('--uid <uid>', 'of what this user did').argParser(numberWithin(USER_IDS)))
        .option('--reason <word>', 'with this reason')
        .option(
          '--suggest',
          'instead of them, what the policies would have to say besides (YAML), as far as events tell',
        ),
    ),
    'print JSON Lines (errors: on stderr)',
  )
    .details(
      'Where the daemon answers, it has read them and keeps them: alike ones are one, with a count, and to ask takes none\n' +
        'away. Without it they are read from the guard, once, and only --follow can be said.',
    )
    .example('events --since 1h --reason limit', 'the last hour, of one kind')
    .example('events --suggest', 'what a policy with mode: permissive lacked, or one that refused')
    .example('events --follow --json', 'one document for each, as they come')
    .action(act(async () => (await import('../commands/events.ts')).events))
}
