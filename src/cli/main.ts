#!/usr/bin/env node
/**
 * The command `bpftoken`: the tree of commands, and where each is. A command's module is loaded
 * when it is chosen, since start-up is felt on every `run`.
 */
import { CommanderError, InvalidArgumentError, Option } from 'commander'
import { DEFAULT_PATH } from '../delegation/actions.ts'
import { EXIT, UsageError } from '../errors.ts'
import { PLAN_FORMATS } from '../needs/format/names.ts'
import {
  DELEGATION_IDS,
  DESCRIPTORS,
  MOUNT_IDS,
  type NumberRange,
  parseWithin,
} from '../uapi/number-range.ts'
import { Command } from './command.ts'
import { reportError } from './failure-report.ts'
import { Interrupted } from './interrupted.ts'
import { complain, print } from './output.ts'
import { recipientOptions } from './recipient.ts'

/**
 * Parses a number of that range. Fail closed: the kernel would cut a larger one to the width of its
 * types.
 */
function numberWithin(range: NumberRange): (text: string) => number {
  return text => {
    const value = parseWithin(range, text)
    if (value !== undefined) return value
    throw new InvalidArgumentError(`It must be a whole number from ${range.min} to ${range.max}.`)
  }
}

/** For an option that may be given several times. */
function collect(value: string, before: string[] = []): string[] {
  return [...before, value]
}

function collectCapabilities(value: string, before: string[] = []): string[] {
  return [...before, ...value.split(',').filter(Boolean).map(normalCapability)]
}

/** CAP_NET_ADMIN, net_admin and NET_ADMIN are the same. */
function normalCapability(name: string): string {
  return name.toLowerCase().replace(/^cap_/, '')
}

const json = (): Option => new Option('--json', 'print one JSON document (errors: on stderr)')
const path = (): Option =>
  new Option('--path <dir>', 'where the bpffs is mounted inside').default(DEFAULT_PATH)
const policy = (): Option => new Option('--policy <file>', 'what is lent (YAML)').makeOptionMandatory()
const anySubject = (): Option =>
  new Option('--any-subject', 'also where the policy names others as subjects; that is said aloud')
const attach = (what: string): Option =>
  new Option(
    '--attach <spec>',
    `${what}, [PROGRAM=]SPEC: auto, xdp:DEVICE[/MODE], tcx:DEVICE/ingress|egress, cgroup:PATH, netns:PATH (repeatable)`,
  ).argParser(collect)
const dryRun = (): Option => new Option('--dry-run', 'print what would be done, and do nothing')

/** The three names that a delegator can have for the guard. */
function delegatorOptions(command: Command): Command {
  return command
    .option('--exe <file>', 'all processes that run this executable')
    .option('--cgroup <dir>', 'all processes in this cgroup and below, also when it is made anew')
    .option('--unit <name>', 'the same, for the cgroup of a systemd unit')
    .addOption(json())
}

let status: number = EXIT.ok

/** Runs a command's function and keeps its exit status. */
function act<A extends unknown[]>(
  command: (...args: A) => number | Promise<number>,
): (...args: A) => Promise<void> {
  return async (...args) => {
    status = await command(...args)
  }
}

function buildProgram(): Command {
  const program = new Command('bpftoken')
    .description('Lend eBPF to unprivileged programs: precisely, with audit, and revocably.')
    .version((require('../../package.json') as { version: string }).version)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: text => print(...linesOf(text)),
      writeErr: text => complain(...linesOf(text)),
      // Told by reportUsage.
      outputError: () => {},
    })
    .addHelpText(
      'after',
      "\nExit: 0 ok, 1 failed, 2 usage, 3 denied (also: not root), 4 not supported here. `run` passes on its program's.",
    )

  program
    .command('doctor')
    .description('prove, by doing it, what this machine can delegate')
    .addOption(json())
    .action(act(async options => (await import('./commands/doctor.ts')).doctor(options)))

  program
    .command('run')
    .description('run a program in its own user namespace, with a delegation in place')
    .addOption(policy())
    .option(
      '--user <user>',
      'host user it runs as: name, uid or uid:gid (default: who called sudo, else nobody)',
    )
    .option('--host-net', "share the host's network instead of an own one")
    .addOption(path())
    .addOption(
      new Option('--cap <name>', 'a further capability inside the namespace (repeatable)').argParser(
        collectCapabilities,
      ),
    )
    .addOption(anySubject())
    .option('--identity', 'it sees its own user id, with ambient capabilities, instead of root')
    .addOption(
      new Option('--env <name[=value]>', 'a further variable of its environment (repeatable)').argParser(
        collect,
      ),
    )
    .option('--keep-env', 'all of your environment, instead of a short list')
    .option('--kill-rest', 'once it has ended, or bpftoken has, kill what it left behind')
    .addOption(dryRun())
    .addOption(json())
    .argument('<command...>', 'the program and its arguments, after --')
    .passThroughOptions()
    .addHelpText(
      'after',
      '\nIt gets of you: descriptors 0 to 2, limits, and of the environment PATH, TERM, LANG, LC_*, TZ. See docs/run.md.\n' +
        'Exit: its own status; 128 + n when signal n ended it; 127 there is no such program, 126 it cannot be executed;\n' +
        '1 to 4 before it started: see bpftoken --help.',
    )
    .action(act(async (command, options) => (await import('./commands/run.ts')).run(command, options)))

  recipientOptions(
    program
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
    .addOption(dryRun())
    .addOption(json())
    .action(act(async options => (await import('./commands/delegate.ts')).delegate(options)))

  recipientOptions(
    program
      .command('undelegate')
      .description('unmount a delegation, so that no new token can be made from it'),
  )
    .addOption(path())
    .addOption(
      new Option('--mount <id>', 'which mount, by the number that ls shows, instead of its path').argParser(
        numberWithin(MOUNT_IDS),
      ),
    )
    .addOption(json())
    .action(act(async options => (await import('./commands/undelegate.ts')).undelegate(options)))

  recipientOptions(
    program
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
    .addOption(anySubject())
    .addOption(json())
    .addHelpText(
      'after',
      '\nIts limits are taken out of those of its origin, which must say spec.derive.allowed: true and has that much less\n' +
        'until the derived one ends. A limit that its policy does not name is all that is left.',
    )
    .action(act(async (id, options) => (await import('./commands/derive.ts')).derive(id, options)))

  program
    .command('confine')
    .description("hold a cgroup in the host's user namespace to a policy, without tokens (needs the guard)")
    .requiredOption('--cgroup <dir>', 'the cgroup; those below it are confined with it')
    .addOption(policy())
    .addOption(anySubject())
    .addOption(json())
    .addHelpText(
      'after',
      '\nFor services that run as root: of bpf(2) they can do what the policy lends, within its limits. Capabilities are not\n' +
        'judged, and a service that may write to cgroupfs can leave its cgroup. See docs/guard.md.',
    )
    .action(act(async options => (await import('./commands/confine.ts')).confine(options)))
  program
    .command('unconfine')
    .description('end a confinement')
    .argument('[id]', 'its number', numberWithin(DELEGATION_IDS))
    .option('--cgroup <dir>', 'the cgroup that is confined, instead of the number')
    .addOption(json())
    .action(act(async (id, options) => (await import('./commands/confine.ts')).unconfine(id, options)))

  program
    .command('ls')
    .description('all delegated bpffs instances of this machine, whoever made them')
    .addOption(json())
    .action(act(async options => (await import('./commands/ls.ts')).ls(options)))

  const policies = program.command('policy').description('look at policies, without touching the kernel')
  policies
    .command('check')
    .description('check that policies are valid, and rate their risk')
    .argument('<file...>')
    .option('--max-risk <level>', 'fail above this: low, medium, high or critical')
    .addOption(json())
    .action(act(async (files, options) => (await import('./commands/policy.ts')).check(files, options)))
  policies
    .command('show')
    .description('print a policy as it is understood')
    .argument('<file>')
    .option('--masks', 'the four masks, as numbers and as mount options')
    .addOption(json())
    .action(act(async (file, options) => (await import('./commands/policy.ts')).show(file, options)))
  policies
    .command('test')
    .description('who would get a delegation under a policy, and why; nothing is done')
    .argument('<file>')
    .requiredOption(
      '--as <facts>',
      'a subject: user=, group= (repeatable), cgroup=, unit=, executable=, label=; with commas between',
    )
    .addOption(json())
    .addHelpText(
      'after',
      '\nWhat is not named is not known, and matches nothing. Exit: 0 allowed, 3 refused.\n' +
        '  bpftoken policy test policy.yaml --as user=alice,unit=agent.service',
    )
    .action(act(async (file, options) => (await import('./commands/policy-test.ts')).test(file, options)))

  policies
    .command('install')
    .description('make policies known to the guard: their names become abilities')
    .argument('<path...>', 'policy files, or directories of them')
    .addOption(anySubject())
    .addOption(json())
    .action(
      act(async (paths, options) =>
        (await import('./commands/policy-install.ts')).policyInstall(paths, options),
      ),
    )

  const guard = program
    .command('guard')
    .description('the BPF-LSM programs that enforce policy where masks end')
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
    .option('--no-audit', 'record refusals only')
    .addOption(json())
    .action(act(async options => (await import('./commands/guard.ts')).install(options)))
  guard
    .command('status')
    .description('whether it enforces, proven by doing, and what lives')
    .addOption(json())
    .action(act(async options => (await import('./commands/guard.ts')).status(options)))
  delegatorOptions(
    guard.command('allow').description('let another program enable delegation, within a policy'),
  )
    .option('--policy <file>', 'the most that it may lend: rights, limits, all terms (default: everything)')
    .addOption(anySubject())
    .option('--implicit', 'it need not say `delegate` and `abilities`: its first delegate_* option marks')
    .addHelpText(
      'after',
      '\nPrograms that know nothing of bpftoken need --implicit, and then lend on the terms of --policy:\n' +
        '  systemd 258 and newer (BPFDelegate*=)  --implicit --exe /usr/lib/systemd/systemd-executor\n' +
        '  Incus (security.bpffs.*)               --implicit --exe with the file of incusd\n' +
        '  LXD (security.delegate_bpf)            --implicit --exe with the file of lxd (snap: /snap/lxd/current/bin/lxd)\n' +
        'A program that is updated is another file: allow it again. Of a running one, /proc/PID/exe is the file.',
    )
    .action(act(async options => (await import('./commands/delegators.ts')).allow(options)))
  delegatorOptions(
    guard.command('disallow').description('take it off the list; what it has lent goes on'),
  ).action(act(async options => (await import('./commands/delegators.ts')).disallow(options)))
  guard
    .command('remove')
    .description('take it out of the kernel, with all that it knows')
    .addOption(json())
    .action(act(async options => (await import('./commands/guard.ts')).remove(options)))

  program
    .command('revoke')
    .description('take a delegation back: none of its tokens is of use any more')
    .argument('<id>', 'its number: see bpftoken guard status', numberWithin(DELEGATION_IDS))
    .option('--detach', 'also detach what is attached under it, where the kernel can')
    .option('--kill', 'the same, and kill the processes in its user namespace that hold any of it')
    .addOption(json())
    .addHelpText('after', '\nExit: 0 ok; 1 something stays that was to be undone.')
    .action(act(async (id, options) => (await import('./commands/revoke.ts')).revoke(id, options)))

  program
    .command('show')
    .description('what the guard knows of one delegation')
    .argument('<id>', 'its number', numberWithin(DELEGATION_IDS))
    .addOption(json())
    .action(act(async (id, options) => (await import('./commands/show.ts')).show(id, options)))

  program
    .command('events')
    .description("the guard's verdicts that nobody has read yet")
    .option('--follow', 'go on until interrupted')
    .addOption(new Option('--json', 'print JSON Lines'))
    .action(act(async options => (await import('./commands/events.ts')).events(options)))

  program
    .command('plan')
    .description('the least rights that BPF objects need; each with who asks for it')
    .argument('<file...>', 'object files, or programs and libraries with objects inside')
    .addOption(
      new Option('--loader <name>', 'who loads them: its own feature probes need rights too')
        .choices(['libbpf', 'cilium-ebpf', 'aya', 'bpftoken'])
        .default('libbpf'),
    )
    .addOption(new Option('--program <name>', 'only this program (repeatable)').argParser(collect))
    .addOption(
      new Option('--format <form>', 'what is printed: a policy, mount options, or settings of another tool')
        .choices(PLAN_FORMATS)
        .default('yaml'),
    )
    .option('--seccomp-profile <file>', 'write one for the container, which the form then names')
    .option('--seccomp-base <file>', "what that is made of (default: the runtime's own)")
    .option('--check <policy>', 'tell what a policy lacks and what it grants needlessly')
    .option('--strict', 'with --check: fail also for what is granted needlessly')
    .addOption(json())
    .addHelpText(
      'after',
      '\nExit: 0 ok; 1 an object is no object or cannot be loaded as it is, or the policy of --check lacks\n' +
        'something (with --strict also: grants something needlessly); 2 usage, or the policy is not valid.',
    )
    .action(act(async (files, options) => (await import('./commands/plan.ts')).plan(files, options)))

  program
    .command('try')
    .description('see a BPF object work: the least policy for it, lent, loaded, attached; until interrupted')
    .argument('<object>', 'an object file that a compiler made for BPF')
    .addOption(attach('where its programs attach (default: to its own network and cgroup)'))
    .addOption(new Option('--program <name>', 'only this program (repeatable)').argParser(collect))
    .option('--policy <file>', 'lend this, instead of the least that the object needs')
    .addOption(
      new Option('--cap <name>', 'lend a further capability, such as perfmon (repeatable)').argParser(
        collectCapabilities,
      ),
    )
    .option('--save-policy <file>', 'write the policy that was lent to a new file')
    .option(
      '--user <user>',
      'host user that loads it: name, uid or uid:gid (default: who called sudo, else nobody)',
    )
    .option('--host-net', "share the host's network instead of an own one")
    .option('--no-ping', 'send it no packets over loopback')
    .option('--yes', 'lend also what is as good as root')
    .addOption(new Option('--json', 'print JSON Lines (errors: on stderr)'))
    .action(act(async (file, options) => (await import('./commands/try.ts')).tryObject(file, options)))

  program
    .command('init')
    .description('write a starter: a BPF program in C, its policy, a client, a Makefile')
    .argument('[dir]', 'where; it is made', '.')
    .option('--force', 'write only the files that are missing; none is overwritten')
    .addOption(json())
    .action(act(async (dir, options) => (await import('./commands/init.ts')).init(dir, options)))

  const obj = program.command('obj').description('look at BPF object files, and load them')
  obj
    .command('show')
    .description(
      'programs, maps, types and externs of an object, and which CO-RE accesses this kernel has not',
    )
    .argument('<file>', 'an object file, or a program or library with objects inside')
    .addOption(json())
    .action(act(async (file, options) => (await import('./commands/obj.ts')).show(file, options)))
  obj
    .command('load')
    .description('load an object with whatever rights the caller has; its token is found by itself')
    .argument('<file>', 'an object file')
    .option('--program <name...>', 'only these programs (repeatable)')
    .option('--pin <dir>', 'pin programs, maps and links in this directory of a bpffs, and leave')
    .addOption(attach('attach until interrupted'))
    .option('--watch', 'show counters and events until interrupted')
    .option('--ping', 'with --watch: send packets to itself over loopback, once a second')
    .option('--name <name>', 'what its global data are called after (default: the name of the file)')
    .addOption(json())
    .action(act(async (file, options) => (await import('./commands/obj-load.ts')).load(file, options)))

  const token = program.command('token').description('inside a workload')
  token
    .command('show')
    .description('what a token made here allows, and which capabilities back it')
    .option('--path <dir>', 'the delegated bpffs (default: LIBBPF_BPF_TOKEN_PATH, else /sys/fs/bpf)')
    .addOption(json())
    .action(act(async options => (await import('./commands/token.ts')).show(options)))

  return program
}

/** Commander's own text, made of ours and of the command line. */
function linesOf(text: string): string[] {
  return text.replace(/\n$/, '').split('\n')
}

/**
 * What is wrong with the command line. Help that was asked for is told already, as is help where no
 * command was named: these messages are in parentheses.
 */
function reportUsage({ exitCode, message }: CommanderError, json: boolean): number {
  if (exitCode === 0) return EXIT.ok
  // It quotes the command line; the only line break of its own is before a suggestion.
  const [, what, suggestion] = /^error: (.*?)(?:\n\((Did you mean .*)\))?$/s.exec(message.trimEnd()) ?? []
  if (what !== undefined && json) reportError(new UsageError(what, { hint: suggestion }), json)
  else if (what !== undefined) complain(`error: ${what}${suggestion === undefined ? '' : ` (${suggestion})`}`)
  return EXIT.usage
}

const program = buildProgram()

async function main(argv: string[]): Promise<number> {
  try {
    await program.parseAsync(argv)
    return status
  } catch (error) {
    if (error instanceof CommanderError) return reportUsage(error, program.asksForJson)
    if (error instanceof Interrupted) return error.exitStatus
    return reportError(error, program.asksForJson)
  }
}

// An error that no command could catch, such as one in a callback: nothing goes on after it.
process.on('uncaughtException', error => {
  process.exit(reportError(error, program.asksForJson))
})

void main(process.argv).then(code => {
  process.exitCode = code
})
