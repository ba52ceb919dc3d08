/**
 * The tree of commands: what each is called, takes and is for. All that is said of commands is made
 * from it: the help, the man pages and the completions.
 *
 * It loads no command: the module of one is loaded when it is chosen, since start-up is felt on
 * each `run`.
 */
import { Argument, InvalidArgumentError, Option } from 'commander'
import { DOCUMENT_NAMES } from '../api/names.ts'
import { DEFAULT_PATH } from '../delegation/actions.ts'
import { PLAN_FORMATS } from '../needs/format/names.ts'
import {
  DELEGATION_IDS,
  DESCRIPTORS,
  MOUNT_IDS,
  type NumberRange,
  PROCESS_IDS,
  parseWithin,
} from '../uapi/number-range.ts'
import { Command } from './command.ts'
import type { Shell } from './completion.ts'

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

/** An option that may be given several times. */
function repeatable(flags: string, description: string, valuesOf = (value: string) => [value]): Option {
  return new Option(flags, `${description} (repeatable)`).argParser((value, before: string[] = []) => [
    ...before,
    ...valuesOf(value),
  ])
}

/** CAP_NET_ADMIN, net_admin and NET_ADMIN are the same. */
function capabilities(value: string): string[] {
  return value
    .split(',')
    .filter(Boolean)
    .map(name => name.toLowerCase().replace(/^cap_/, ''))
}

const path = (): Option =>
  new Option('--path <dir>', 'where the bpffs is mounted inside').default(DEFAULT_PATH)
const policy = (): Option => new Option('--policy <file>', 'what is lent (YAML)').makeOptionMandatory()
const anySubject = (): Option =>
  new Option('--any-subject', 'also where the policy names others as subjects; that is said aloud')
const dryRun = (): Option => new Option('--dry-run', 'print what would be done, and do nothing')
const attach = (what: string): Option =>
  repeatable(
    '--attach <spec>',
    `${what}, [PROGRAM=]SPEC or '["PROGRAM","SPEC"]': auto, xdp:DEVICE[/MODE], tcx:DEVICE/ingress|egress, cgroup:PATH, netns:PATH`,
  )
const program = (): Option => repeatable('--program <name>', 'only this program')

const JSON_DOCUMENT = 'print one JSON document (errors: on stderr)'

/** What every command takes, wherever it stands among the words. */
function common(command: Command, json = JSON_DOCUMENT): Command {
  return command
    .option('--json', json)
    .option('-q, --quiet', 'no notes and no progress on stderr; errors are told')
    .option('-v, --verbose', 'of a failure all facts; how long it took')
}

/** Who is lent to: exactly one of these; see recipient.ts. */
function recipientOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--pid <pid>', 'a process in the user namespace').argParser(numberWithin(PROCESS_IDS)),
    )
    .option('--container <name>', 'a container of Podman or Docker, by name or id; USER/NAME: a rootless one')
    .option('--unit <name>', "a unit of systemd; USER/NAME: of that user's own")
    .option('--cgroup <dir>', 'the process of this cgroup that has a user namespace of its own')
}

/** The three names that a delegator can have for the guard. */
function delegatorOptions(command: Command): Command {
  return command
    .option('--exe <file>', 'all processes that run this executable')
    .option('--cgroup <dir>', 'all processes in this cgroup and below, also when it is made anew')
    .option('--unit <name>', 'the same, for the cgroup of a systemd unit')
}

/** Takes the exit status of the command that was chosen. */
export type Finish = (status: number) => void

/** The whole tree; nothing is run before its `parseAsync`. */
export function commandTree(finish: Finish, version: string): Command {
  /** The action of a command: its function gets its arguments and, last, its options. */
  const act =
    (load: () => Promise<(...args: never[]) => number | Promise<number>>) =>
    async (...given: unknown[]): Promise<void> => {
      const run = await load()
      const options = (given.at(-1) as Command).optsWithGlobals()
      finish(await run(...([...given.slice(0, -2), options] as never[])))
    }

  const root = common(new Command('bpftoken'))
    .description('Lend eBPF to unprivileged programs: precisely, with audit, and revocably.')
    .version(version)
    .enablePositionalOptions()
    .details(
      'Exit: 0 ok, 1 failed, 2 usage, 3 denied (also: not root), 4 not supported here, 141 nobody read the answer to\n' +
        "its end. `run` passes on its program's.",
    )
    .example('doctor', 'what this machine can delegate')
    .example('run --policy policy.yaml -- ./loader', 'a program with a delegation')
    .example('ls', 'all that is lent on this machine')

  common(root.command('doctor'))
    .description('prove, by doing it, what this machine can delegate')
    .example('doctor', 'one line for each fact, with a remedy where it fails')
    .action(act(async () => (await import('./commands/doctor.ts')).doctor))

  common(
    root
      .command('run')
      .description('run a program in its own user namespace, with a delegation in place')
      .addOption(policy())
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
    .example('run --policy policy.yaml --user alice --dry-run -- id', 'what would be done')
    .action(act(async () => (await import('./commands/run.ts')).run))

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
    .action(act(async () => (await import('./commands/delegate.ts')).delegate))

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
    .action(act(async () => (await import('./commands/undelegate.ts')).undelegate))

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
    .action(act(async () => (await import('./commands/derive.ts')).derive))

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
    .action(act(async () => (await import('./commands/confine.ts')).confine))
  common(
    root
      .command('unconfine')
      .description('end a confinement')
      .argument('[id]', 'its number', numberWithin(DELEGATION_IDS))
      .option('--cgroup <dir>', 'the cgroup that is confined, instead of the number'),
  )
    .example('unconfine --cgroup /sys/fs/cgroup/system.slice/agent.service', 'by its cgroup')
    .action(act(async () => (await import('./commands/confine.ts')).unconfine))

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
    .action(act(async () => (await import('./commands/ls.ts')).ls))

  const policies = common(root.command('policy'))
    .description('look at policies, without touching the kernel')
    .example('policy check policies/', 'what is wrong with these, and what they would let others do')
  common(
    policies
      .command('check')
      .description('check that policies are valid, and rate their risk')
      .argument('<path...>', 'policy files, or directories of them; - is standard input')
      .addOption(
        new Option('--max-risk <level>', 'fail above this').choices(['low', 'medium', 'high', 'critical']),
      ),
  )
    .details('Exit: 0 nothing to warn of; 1 a warning, too risky, or not readable; 2 not a valid policy.')
    .example('policy check policy.yaml', 'what is wrong with it, and what it would let others do')
    .example('policy check --max-risk high policies/', 'all of a directory; for CI')
    .action(act(async () => (await import('./commands/policy.ts')).check))
  common(
    policies
      .command('show')
      .description('print a policy as it is understood')
      .argument('<file>', 'the policy')
      .option('--masks', 'the four masks, as numbers and as mount options'),
  )
    .example('policy show --masks policy.yaml', 'what mount(8) would be given')
    .action(act(async () => (await import('./commands/policy.ts')).show))
  common(
    policies
      .command('diff')
      .description('what a policy grants more and less than another one, and the risk of both')
      .argument('<before>', 'the policy to compare with')
      .argument('<after>', 'the policy that is compared'),
  )
    .details('Exit: 0 they grant the same; 1 they differ; 2 one is not a valid policy.')
    .example('policy diff policy.yaml policy-new.yaml', 'what a change would let others do')
    .action(act(async () => (await import('./commands/policy-diff.ts')).diff))
  common(
    policies
      .command('test')
      .description('who would get a delegation under a policy, and why; nothing is done')
      .argument('<file>', 'the policy')
      .requiredOption(
        '--as <facts>',
        'a subject: user=, group= (repeatable), cgroup=, unit=, executable=, label=; with commas between',
      ),
  )
    .details('What is not named is not known, and matches nothing. Exit: 0 allowed, 3 refused.')
    .example('policy test policy.yaml --as user=alice,unit=agent.service', 'whether alice would get it')
    .action(act(async () => (await import('./commands/policy-test.ts')).test))
  common(
    policies
      .command('install')
      .description('make policies known to the guard: their names become abilities')
      .argument('<path...>', 'policy files, or directories of them')
      .addOption(anySubject()),
  )
    .example('policy install /etc/bpftoken/policies', 'all of a directory, or none')
    .action(act(async () => (await import('./commands/policy-install.ts')).policyInstall))

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
    .action(act(async () => (await import('./commands/guard.ts')).install))
  common(guard.command('status'))
    .description('whether it enforces, proven by doing, and what lives')
    .details('Exit: 0 it is whole and enforces; 1 it does not.')
    .example('guard status', 'the guard, its policies, and what lives under it')
    .action(act(async () => (await import('./commands/guard.ts')).status))
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
    .action(act(async () => (await import('./commands/delegators.ts')).allow))
  common(
    delegatorOptions(guard.command('disallow').description('take it off the list; what it has lent goes on')),
  )
    .example('guard disallow --unit agent.service', 'a unit that was allowed')
    .action(act(async () => (await import('./commands/delegators.ts')).disallow))
  common(guard.command('remove'))
    .description('take it out of the kernel, with all that it knows')
    .example('guard remove', 'nothing enforces limits any more')
    .action(act(async () => (await import('./commands/guard.ts')).remove))

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
    .action(act(async () => (await import('./commands/revoke.ts')).revoke))

  common(
    root
      .command('show')
      .description('what the guard knows of one delegation')
      .argument('<id>', 'its number', numberWithin(DELEGATION_IDS)),
  )
    .example('show 7', 'its terms, and what lives under it')
    .action(act(async () => (await import('./commands/show.ts')).show))

  common(
    root
      .command('events')
      .description("the guard's verdicts that nobody has read yet")
      .option('--follow', 'go on until interrupted'),
    'print JSON Lines (errors: on stderr)',
  )
    .example('events --follow --json', 'one document for each, as they come')
    .action(act(async () => (await import('./commands/events.ts')).events))

  common(
    root
      .command('plan')
      .description('the least rights that BPF objects need; each with who asks for it')
      .argument('<file...>', 'object files, or programs and libraries with objects inside')
      .addOption(
        new Option('--loader <name>', 'who loads them: its own feature probes need rights too')
          .choices(['libbpf', 'cilium-ebpf', 'aya', 'bpftoken'])
          .default('libbpf'),
      )
      .addOption(program())
      .addOption(
        new Option('--format <form>', 'what is printed: a policy, mount options, or settings of another tool')
          .choices(PLAN_FORMATS)
          .default('yaml'),
      )
      .option('--seccomp-profile <file>', 'write one for the container, which the form then names')
      .option('--seccomp-base <file>', "what that is made of (default: the runtime's own)")
      .option('--check <policy>', 'tell what a policy lacks and what it grants needlessly')
      .option('--strict', 'with --check: fail also for what is granted needlessly'),
  )
    .details(
      'Exit: 0 ok; 1 an object is no object or cannot be loaded as it is, or the policy of --check lacks\n' +
        'something (with --strict also: grants something needlessly); 2 usage, or the policy is not valid.',
    )
    .example('plan counter.bpf.o > policy.yaml', 'a policy that is just enough')
    .example('plan --format podman counter.bpf.o', 'what to give podman run')
    .example('plan --check policy.yaml --strict counter.bpf.o', 'for CI: no less and no more')
    .action(act(async () => (await import('./commands/plan.ts')).plan))

  common(
    root
      .command('try')
      .description(
        'see a BPF object work: the least policy for it, lent, loaded, attached; until interrupted',
      )
      .argument('<object>', 'an object file that a compiler made for BPF')
      .addOption(attach('where its programs attach (default: to its own network and cgroup)'))
      .addOption(program())
      .option('--policy <file>', 'lend this, instead of the least that the object needs')
      .addOption(repeatable('--cap <name>', 'lend a further capability, such as perfmon', capabilities))
      .option('--save-policy <file>', 'write the policy that was lent to a new file')
      .option(
        '--user <user>',
        'host user that loads it: name, uid or uid:gid (default: who called sudo, else nobody)',
      )
      .option('--host-net', "share the host's network instead of an own one")
      .option('--no-ping', 'send it no packets over loopback')
      .option('--yes', 'lend also what is as good as root'),
    'print JSON Lines (errors: on stderr)',
  )
    .example('try counter.bpf.o', 'its counters and events, until Ctrl-C')
    .example('try --save-policy policy.yaml counter.bpf.o', 'and keep the policy that was enough')
    .action(act(async () => (await import('./commands/try.ts')).tryObject))
  common(
    root
      .command('init')
      .description('write a starter: a BPF program in C, its policy, a client, a Makefile')
      .argument('[dir]', 'where; it is made', '.')
      .option('--force', 'write only the files that are missing; none is overwritten'),
  )
    .example('init counter', 'a project to begin with')
    .action(act(async () => (await import('./commands/init.ts')).init))

  const obj = common(root.command('obj'))
    .description('look at BPF object files, and load them')
    .example('obj show counter.bpf.o', 'what is inside')
  common(
    obj
      .command('show')
      .description(
        'programs, maps, types and externs of an object, and which CO-RE accesses this kernel has not',
      )
      .argument('<file>', 'an object file, or a program or library with objects inside'),
  )
    .example('obj show counter.bpf.o', 'what is inside')
    .action(act(async () => (await import('./commands/obj.ts')).show))
  common(
    obj
      .command('load')
      .description('load an object with whatever rights the caller has; its token is found by itself')
      .argument('<file>', 'an object file')
      .addOption(program())
      .option('--pin <dir>', 'pin programs, maps and links in this directory of a bpffs, and leave')
      .addOption(attach('attach until interrupted'))
      .option('--watch', 'show counters and events until interrupted')
      .option('--ping', 'with --watch: send packets to itself over loopback, once a second')
      .option('--name <name>', 'what its global data are called after (default: the name of the file)'),
  )
    .details('Exit: 0 loaded; 1 not; 3 the kernel refused it for want of rights.')
    .example('obj load counter.bpf.o --attach xdp:eth0', 'until Ctrl-C')
    .example('run --policy policy.yaml -- bpftoken obj load counter.bpf.o', 'a one-line trial of a policy')
    .action(act(async () => (await import('./commands/obj-load.ts')).load))

  const token = common(root.command('token'))
    .description('inside a workload')
    .example('token show', 'what its token allows')
  common(
    token
      .command('show')
      .description('what a token made here allows, and which capabilities back it')
      .option('--path <dir>', 'the delegated bpffs (default: LIBBPF_BPF_TOKEN_PATH, else /sys/fs/bpf)'),
  )
    .example('token show', 'the token that a loader would find')
    .action(act(async () => (await import('./commands/token.ts')).show))

  common(
    root
      .command('schema')
      .description('the JSON Schema of what a command prints with --json; without a name, all names')
      .addArgument(new Argument('[name]', 'which document').choices(DOCUMENT_NAMES)),
  )
    .example('schema', 'the names of all documents')
    .example('schema policy-check', 'what policy check --json prints')
    .action(act(async () => (await import('./commands/schema.ts')).schema))

  common(
    root
      .command('completion')
      .description('print the script that completes the words of bpftoken in a shell')
      .addArgument(new Argument('<shell>', 'which one').choices(['bash', 'zsh', 'fish'])),
    'of errors only: as a JSON document on stderr',
  )
    .example('completion bash > /etc/bash_completion.d/bpftoken', 'for all users of bash')
    .example('completion zsh > ~/.zfunc/_bpftoken', 'for zsh, in a directory of $fpath')
    .example('completion fish > ~/.config/fish/completions/bpftoken.fish', 'for fish')
    .action(
      act(async () => {
        const { completion } = await import('./commands/completion.ts')
        return (shell: Shell) => completion(shell, root)
      }),
    )

  return root
}
