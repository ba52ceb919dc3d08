/** What the manual page of bpftoken-launchd says: its command line is in native/launchd/main.c. */
import { Command } from 'commander'
import type { ManualSection } from '../src/cli/man.ts'

export const LAUNCHD_COMMAND = new Command('bpftoken-launchd')
  .description('Starts programs of users, with eBPF that is lent to them')
  .option('--socket <path>', 'where it listens, if no manager hands it a socket', '/run/bpftoken/launch.sock')

export const LAUNCHD_SECTIONS: readonly [ManualSection, ...ManualSection[]] = [
  [
    'DESCRIPTION',
    [
      'bpftoken-launchd starts the programs of bpftoken-run(1) for users who may make no user namespaces, or who say --apart, in namespaces that belong to root. bpftokend(8) decides, by policies with launch: allowed alone, and only root reaches the socket.',
      'It must run in the namespaces of the users, and not be confined: the programs inherit all that confines it.',
    ],
  ],
  [
    'UNIT',
    [
      'The package brings bpftoken-launchd.socket and bpftoken-launchd.service. They are off until root enables the socket.',
    ],
  ],
  [
    'EXIT STATUS',
    [
      ['1', 'a failure; the unit starts it again'],
      ['2', 'the command line is wrong'],
      ['4', 'it is not run by root, or may not do what it needs'],
    ],
  ],
  ['SEE ALSO', ['bpftoken-run(1), bpftokend(8)']],
]
