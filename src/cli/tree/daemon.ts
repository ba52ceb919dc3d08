/** The commands that only the daemon can answer: its health, requests, renewal, its audit. */
import { Argument, Option } from 'commander'
import { EVENT_NUMBERS, USER_IDS } from '../../uapi/number-range.ts'
import type { Command } from '../command.ts'
import {
  comment,
  common,
  daemonOptions,
  lifetime,
  loanName,
  moment,
  numberWithin,
  recipientOptions,
  requestName,
  socket,
} from './options.ts'
import type { Part } from './part.ts'

const JSON_LINES = 'print JSON Lines (errors: on stderr)'

const requestArgument = (): Argument =>
  new Argument('<id>', 'which request: request-NUMBER').argParser(requestName)

export const daemonCommands: Part = (root, act) => {
  const asking = (command: Command, json?: string): Command => common(command.addOption(socket()), json)

  asking(root.command('status'))
    .description('how the daemon is: guard, policies, loans, requests, records; on one screen')
    .details('Exit: 0 all is well; 1 something is not, and is named; 5 no daemon answers.')
    .example('status', 'whether all is well')
    .action(act(async () => (await import('../commands/status.ts')).status))

  asking(
    root
      .command('top')
      .description('what is lent, live: limits as bars, uses and refusals in a second; until q')
      .addOption(
        new Option('--sort <by>', 'what stands first')
          .choices(['refusals', 'uses', 'limits', 'age', 'name'])
          .default('refusals'),
      ),
    'of errors only; ls --json and events --follow --json are for programs',
  )
    .details(
      'Keys: up and down (j, k) choose, Enter opens, r revokes (and asks), s sorts otherwise, q ends. Needs a terminal.',
    )
    .example('top', 'who uses what, and who is refused')
    .action(act(async () => (await import('../commands/top.ts')).top))

  asking(
    root
      .command('page')
      .description(
        'what is lent, in a browser on this machine: a page for whoever has its address; until Ctrl-C',
      )
      .addOption(
        new Option(
          '--listen <place>',
          '127.0.0.1:PORT, [::1]:PORT (0: any that is free) or unix:PATH',
        ).default('127.0.0.1:0'),
      )
      .addOption(
        new Option('--host <host>', 'what the browser calls it, where that is another: localhost:PORT'),
      )
      .option('--operator', 'also an address with which to approve, deny and revoke, as you'),
  )
    .details(
      'It shows what you may see of the daemon; as root all. Each address is good once: for the browser that opens it first, until this command ends.',
      'Browsers speak to a process of its own, which as root runs as nobody.',
    )
    .example('page', 'look only')
    .example('page --operator', 'two addresses: one to look, one to act')
    .example('page --listen unix:/run/page.sock --host localhost:8080', 'for ssh -L 8080:/run/page.sock')
    .action(act(async () => (await import('../commands/page.ts')).page))

  asking(
    root
      .command('requests')
      .description('what waits to be approved: yours; for root all')
      .option('--all', 'also those that are decided')
      .option('--follow', 'go on until interrupted: one line for each that is new or decided'),
    'print one JSON document; with --follow JSON Lines (errors: on stderr)',
  )
    .example('requests', 'what waits')
    .example('requests --all --follow', 'what is asked for and decided, as it comes')
    .action(act(async () => (await import('../commands/requests.ts')).requests))
  asking(
    root
      .command('approve')
      .description('lend what was asked for, if whoever asked still is who may have it (as root)')
      .addArgument(requestArgument())
      .addOption(comment('why: kept, and told to who asked')),
  )
    .example('approve request-3', 'yes')
    .action(act(async () => (await import('../commands/requests.ts')).approve))
  asking(
    root
      .command('deny')
      .description('do not lend what was asked for (as root)')
      .addArgument(requestArgument())
      .addOption(comment('why: kept, and told to who asked')),
  )
    .example('deny request-3', 'no')
    .action(act(async () => (await import('../commands/requests.ts')).deny))

  asking(
    root
      .command('renew')
      .description('let a loan live for so long from now, within its policy')
      .addArgument(
        new Argument('<id>', 'which one: loan-NUMBER, or the number of the guard').argParser(loanName),
      )
      .addOption(lifetime('how long, from now').makeOptionMandatory()),
  )
    .example('renew loan-7 --lifetime 2h', 'two more hours')
    .action(act(async () => (await import('../commands/renew.ts')).renew))

  common(
    daemonOptions(
      recipientOptions(
        root
          .command('explain')
          .description(
            'why the daemon would lend to you, or not; why the kernel or the guard refuses a call, and what helps',
          )
          .argument(
            '[words...]',
            'after --: a call or an object file for a running process; else a command, which is run',
          )
          .option('--request', 'whether a request of yours would be granted')
          .addOption(
            new Option('--event <id>', 'an event of the guard, by its number').argParser(
              numberWithin(EVENT_NUMBERS),
            ),
          )
          .option(
            '--last',
            'the last refusal that the guard or bpftoken record has seen; with --pid, --uid, --delegation: of these',
          )
          .addOption(
            new Option('--uid <uid>', 'with --last: of what this user did').argParser(numberWithin(USER_IDS)),
          )
          .addOption(
            new Option(
              '--delegation <id>',
              'with --last: of this one: loan-NUMBER, or the number of the guard',
            ).argParser(loanName),
          )
          .option('--fix', 'make the smallest change where it is a line of a policy, and ask again')
          .option('--yes', 'with --fix: without asking on the terminal')
          .option(
            '--policy <policy>',
            'with --request: under the policy of this name (default: any); with --fix: the file to change',
          ),
      ),
    ),
  )
    .passThroughOptions()
    .details(
      'A call is map_create TYPE, prog_load TYPE [ATTACH-TYPE], btf_load or btf_get_fd_by_id; link_create, prog_attach,\n' +
        'prog_detach or prog_query ATTACH-TYPE; obj_pin or obj_get PATH; or prog_get_next_id and the like.',
      'A command is run and watched (as root), and its last refused call is explained; a process waits after such a call\n' +
        'until it has been looked at. Numbers of events are those that bpftoken events shows.',
      '--fix changes nothing but a policy; where the change is elsewhere, it says what to run. See docs/explain.md.',
      'Exit: 0 it would be granted, or no call was refused; 3 it would be, or was; with --fix: 0 it is allowed by now.',
    )
    .example('explain --pid 4711 -- prog_load xdp', 'whether it may, and what it lacks')
    .example('explain --container web -- counter.bpf.o', 'the same for all of an object')
    .example('explain -- bpftoken run --policy policy.yaml -- ./loader', 'why a run fails')
    .example('explain --fix -- bpftoken run --policy policy.yaml -- ./loader', 'and to have it changed')
    .example('explain --last --pid 4711', 'what the guard refused to a process, and why')
    .example('explain --request --policy dev', 'whether you may have it, and which entry says so')
    .action(act(async () => (await import('../commands/explain.ts')).explain))

  asking(root.command('reload'))
    .description('let the daemon read its policies again; of a bad file the old policy holds (as root)')
    .details('Exit: 0 ok; 1 a file has a fault, and is not as it was loaded.')
    .example('reload', 'after an edit, if you do not want to wait for the daemon to see it')
    .action(act(async () => (await import('../commands/reload.ts')).reload))

  const audit = common(root.command('audit'))
    .description('what the daemon has recorded: who asked for what, and how it ended (as root)')
    .example('audit query --since 1d', 'the last day')
  const queryOptions = (command: Command): Command =>
    asking(command, JSON_LINES)
      .addOption(new Option('--since <time>', 'not before: a time, or how long ago (2h)').argParser(moment))
      .option('--loan <loan>', 'of this loan: loan-NUMBER')
  queryOptions(audit.command('query'))
    .description('records for people, one line for each')
    .example('audit query --loan loan-7', 'all that became of a loan')
    .action(act(async () => (await import('../commands/audit.ts')).query))
  queryOptions(audit.command('export'))
    .description('records as JSON Lines, with their hashes')
    .example('audit export > audit.jsonl', 'all of it, for another machine')
    .action(act(async () => (await import('../commands/audit.ts')).exportAll))
  asking(audit.command('verify'))
    .description('whether the chain of the records is whole')
    .details('Exit: 0 it is; 1 it is not, or cannot be told.')
    .example('audit verify', 'every hash, from the first record to the last')
    .action(act(async () => (await import('../commands/audit.ts')).verify))
}
