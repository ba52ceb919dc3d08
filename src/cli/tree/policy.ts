/** `policy`: the commands that look at policies, and make them known to the guard. */
import { Option } from 'commander'
import { anySubject, common, kernel, output, socket } from './options.ts'
import type { Part } from './part.ts'

const side = (flags: string, what: string): Option =>
  new Option(flags, `${what}, where the two differ: that of a or of b`).choices(['a', 'b'])

export const policyCommands: Part = (root, act) => {
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
      )
      .addOption(kernel()),
  )
    .details('Exit: 0 nothing to warn of; 1 a warning, too risky, or not readable; 2 not a valid policy.')
    .example('policy check policy.yaml', 'what is wrong with it, and what it would let others do')
    .example('policy check --max-risk high policies/', 'all of a directory; for CI')
    .example('policy check --kernel 6.12 policy.yaml', 'whether that kernel, too, knows its words')
    .anywhere()
    .action(act(async () => (await import('../commands/policy.ts')).check))
  common(
    policies
      .command('show')
      .description('print a policy as it is understood')
      .argument('<file>', 'the policy')
      .option('--masks', 'the four masks, as numbers and as mount options')
      .addOption(kernel()),
  )
    .example('policy show --masks policy.yaml', 'what mount(8) would be given')
    .anywhere()
    .action(act(async () => (await import('../commands/policy.ts')).show))
  common(
    policies
      .command('diff')
      .description('what a policy grants more and less than another one, and the risk of both')
      .argument('<before>', 'the policy to compare with')
      .argument('<after>', 'the policy that is compared')
      .addOption(kernel()),
  )
    .details('Exit: 0 they grant the same; 1 they differ; 2 one is not a valid policy.')
    .example('policy diff policy.yaml policy-new.yaml', 'what a change would let others do')
    .anywhere()
    .action(act(async () => (await import('../commands/policy-diff.ts')).diff))
  common(
    policies
      .command('merge')
      .description('the least policy that allows what each of two policies allows')
      .argument('<a>', 'a policy; - is standard input')
      .argument('<b>', 'another one')
      .addOption(output())
      .addOption(side('--subjects <side>', 'who gets it'))
      .addOption(side('--limits <side>', 'how much'))
      .addOption(side('--terms <side>', 'all other terms: network, guard, sharing and so on'))
      .addOption(kernel()),
  )
    .details(
      'Rights and lists add up, each with a comment that says which of the two has it. What else differs is refused\n' +
        'unless told whose is to hold.',
    )
    .example('policy merge plan.yaml recorded.yaml -o policy.yaml', 'what was planned, and what was seen')
    .example(
      'policy merge --limits a --subjects a a.yaml b.yaml',
      'for whom, and how much, is that of a.yaml',
    )
    .anywhere()
    .action(act(async () => (await import('../commands/policy-merge.ts')).merge))
  common(
    policies
      .command('test')
      .description('who would get a delegation under a policy, and why; nothing is done')
      .argument('<file>', 'the policy')
      .requiredOption(
        '--as <facts>',
        'a subject: user=, group= (repeatable), cgroup=, unit=, executable=, label=; with commas between',
      )
      .addOption(kernel()),
  )
    .details('What is not named is not known, and matches nothing. Exit: 0 allowed, 3 refused.')
    .example('policy test policy.yaml --as user=alice,unit=agent.service', 'whether alice would get it')
    .anywhere()
    .action(act(async () => (await import('../commands/policy-test.ts')).test))
  common(
    root
      .command('simulate')
      .description('play a story about who may do what with BPF, on paper: nothing is done')
      .argument('<file>', 'a scenario (YAML); - is standard input')
      .option('--checks', 'all checks of each step, with the functions of the kernel that make them'),
  )
    .details(
      'Exit: 0 all that the scenario expects came out; 1 some of it did not; 2 not a valid scenario.\n' +
        'The rules are held to real kernels by tests; what that does not prove is in docs/model.md.',
    )
    .example('simulate examples/scenarios/a2-token-create.yaml', 'why a map is made, and a program is not')
    .anywhere()
    .action(act(async () => (await import('../commands/simulate.ts')).simulate))
  common(
    policies
      .command('install')
      .description('make policies known to the guard: their names become abilities')
      .argument('<path...>', 'policy files, or directories of them')
      .addOption(anySubject()),
  )
    .example('policy install /etc/bpftoken/policies', 'all of a directory, or none')
    .action(act(async () => (await import('../commands/policy-install.ts')).policyInstall))
  common(
    policies
      .command('list')
      .description('the policies of the daemon: their names, and which of them you may have')
      .addOption(socket()),
  )
    .example('policy list', 'what can be named with --policy')
    .action(act(async () => (await import('../commands/policy-list.ts')).policyList))
}
