/** The commands for BPF objects and for those who load them, from `init` to `token show`. */
import { Option } from 'commander'
import { PLAN_FORMATS } from '../../needs/format/names.ts'
import {
  attach,
  besideAnswer,
  btf,
  capabilities,
  common,
  output,
  program,
  recipientOptions,
  repeatable,
} from './options.ts'
import type { Part } from './part.ts'

export const objectCommands: Part = (root, act) => {
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
      .addOption(btf("the types of the kernel that will load them, instead of this one's"))
      .option(
        '--seccomp-profile <file>',
        'write one for the container, which the form then names',
        besideAnswer,
      )
      .option('--seccomp-base <file>', "what that is made of (default: the runtime's own)")
      .option('--no-try', 'do not load the objects on this kernel to see, which root does by default')
      .option(
        '--loader-program <program>',
        "run the loader's real program under the plan, and say how what it asks for differs: bpftool, or what takes a file",
      )
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
    .anywhere()
    .action(act(async () => (await import('../commands/plan.ts')).plan))

  common(
    recipientOptions(
      root
        .command('record')
        .description('watch what a run asks of bpf(2), and write the least policy for it (as root)')
        .argument('[command...]', 'the program and its arguments, after --')
        .addOption(output()),
      {
        pid: 'this process and all that it starts',
        cgroup: 'all processes of this cgroup and of those below',
      },
    ),
  )
    .passThroughOptions()
    .details(
      'A command is run as you are, and watched with all that it starts until it ends; the others until interrupted.\n' +
        'A container and a unit are watched by their cgroup. Calls that no token serves are told, each with the reason.',
      "Exit: a command's own; 127 there is no such program, 126 it cannot be executed. Else 0; 1 calls were lost, and\n" +
        'more may be needed, which the policy says, too.',
    )
    .example('record -o policy.yaml -- ./loader', 'a policy that is enough for it')
    .example('record --pid 4711', 'what it does from now on, until Ctrl-C')
    .action(act(async () => (await import('../commands/record.ts')).record))

  common(
    root
      .command('try')
      .description(
        'see a BPF object work: the least policy for it, lent, loaded, attached; until interrupted',
      )
      .argument('<object>', 'an object file that a compiler made for BPF')
      .addOption(attach('where its programs attach (default: to its own network and cgroup)'))
      .addOption(program())
      .option('--policy <policy>', 'lend this, instead of the least that the object needs')
      .addOption(repeatable('--cap <name>', 'lend a further capability, such as perfmon', capabilities))
      .option('--save-policy <file>', 'write the policy that was lent to a new file', besideAnswer)
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
    .action(act(async () => (await import('../commands/try.ts')).tryObject))
  common(
    root
      .command('init')
      .description('write a starter: a BPF program in C, its policy, a client, a Makefile')
      .argument('[dir]', 'where; it is made', '.')
      .option('--force', 'write only the files that are missing; none is overwritten'),
  )
    .example('init counter', 'a project to begin with')
    .anywhere()
    .action(act(async () => (await import('../commands/init.ts')).init))

  const obj = common(root.command('obj'))
    .description('look at BPF object files, and load them')
    .example('obj show counter.bpf.o', 'what is inside')
  common(
    obj
      .command('show')
      .description(
        'programs, maps, types and externs of an object, and which CO-RE accesses this kernel has not',
      )
      .argument('<file>', 'an object file, or a program or library with objects inside')
      .addOption(
        repeatable('--btf <file>', "the types of another kernel, instead of this one's: BTF, or a vmlinux"),
      ),
  )
    .example('obj show counter.bpf.o', 'what is inside')
    .example('obj show --btf 5.15.btf --btf 6.1.btf counter.bpf.o', 'what those kernels have not')
    .anywhere()
    .action(act(async () => (await import('../commands/obj.ts')).show))
  common(
    obj
      .command('load')
      .description('load an object with whatever rights the caller has; its token is found by itself')
      .argument('<file>', 'an object file')
      .addOption(program())
      .option('--pin <dir>', 'pin programs, maps and links in this directory of a bpffs, and leave')
      .addOption(btf("types that CO-RE resolves against, instead of this kernel's"))
      .addOption(attach('attach until interrupted'))
      .addOption(
        repeatable(
          '--set <name=value>',
          'a global variable of the programs before they are loaded: a number, true, false, text, or JSON',
        ),
      )
      .option('--watch', 'show counters and events until interrupted')
      .option('--ping', 'with --watch: send packets to itself over loopback, once a second')
      .option('--name <name>', 'what its global data are called after (default: the name of the file)'),
  )
    .details('Exit: 0 loaded; 1 not; 3 the kernel refused it for want of rights.')
    .example('obj load counter.bpf.o --attach xdp:eth0', 'until Ctrl-C')
    .example('obj load counter.bpf.o --set port=80', 'with a constant of the programs')
    .example('run --policy policy.yaml -- bpftoken obj load counter.bpf.o', 'a one-line trial of a policy')
    .action(act(async () => (await import('../commands/obj-load.ts')).load))

  common(
    obj
      .command('link')
      .description('make one object of several: externs resolved, maps, data and types merged')
      .argument('<file...>', 'object files')
      .requiredOption('-o, --output <file>', 'where to; - is standard output'),
  )
    .details('Exit: 0 linked, also where externs are left for a later link; 1 they do not go together.')
    .example('obj link -o both.o a.bpf.o b.bpf.o', 'what obj load then takes')
    .anywhere()
    .action(act(async () => (await import('../commands/obj-link.ts')).link))
  common(
    obj
      .command('types')
      .description('write a TypeScript file: maps, events, global variables and programs with their types')
      .argument('<file>', 'an object file')
      .addOption(output())
      .option('--name <name>', 'of what the file exports (default: the name of the object file)')
      .addOption(repeatable('--event-type <map=type>', 'the type of what comes from a ring buffer'))
      .addOption(repeatable('--type <name>', 'a further type of the object, to be declared'))
      .addOption(
        new Option('--chars <form>', 'what arrays of char are').choices(['text', 'bytes']).default('text'),
      )
      .option('--embed', 'with the object itself in the file'),
  )
    .example('obj types counter.bpf.o -o counter.ts', 'then: import { counter } from "./counter.ts"')
    .anywhere()
    .action(act(async () => (await import('../commands/obj-types.ts')).types))

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
    .action(act(async () => (await import('../commands/token.ts')).show))
}
