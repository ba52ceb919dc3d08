/** `guard`, and the commands that ask or tell the guard of single delegations. */
import { Option } from 'commander'
import { DELEGATION_IDS } from '../../uapi/number-range.ts'
import { anySubject, common, delegatorOptions, numberWithin } from './options.ts'
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
      .option('--policy <file>', 'the most that it may lend: rights, limits, all terms (default: everything)')
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
    root
      .command('revoke')
      .description('take a delegation back: none of its tokens is of use any more')
      .argument('<id>', 'its number: see bpftoken guard status', numberWithin(DELEGATION_IDS))
      .option('--detach', 'also detach what is attached under it, where the kernel can')
      .option('--kill', 'the same, and kill the processes in its user namespace that hold any of it'),
  )
    .details('Exit: 0 ok; 1 something stays that was to be undone.')
    .example('revoke 7', 'at once, with what is derived from it')
    .example('revoke 7 --detach --kill', 'and undo what was done with it')
    .action(act(async () => (await import('../commands/revoke.ts')).revoke))

  common(
    root
      .command('show')
      .description('what the guard knows of one delegation')
      .argument('<id>', 'its number', numberWithin(DELEGATION_IDS)),
  )
    .example('show 7', 'its terms, and what lives under it')
    .action(act(async () => (await import('../commands/show.ts')).show))

  common(
    root
      .command('events')
      .description("the guard's verdicts that nobody has read yet")
      .option('--follow', 'go on until interrupted'),
    'print JSON Lines (errors: on stderr)',
  )
    .example('events --follow --json', 'one document for each, as they come')
    .action(act(async () => (await import('../commands/events.ts')).events))
}
