/** What the manual page of bpftoken-nri says beside its options. docs/containers/containerd.md says more. */
import type { ManualSection } from '../src/cli/man.ts'

export const NRI_SECTIONS: readonly [ManualSection, ...ManualSection[]] = [
  [
    'DESCRIPTION',
    [
      'bpftoken-nri is a plugin of containerd 1.7 and newer by NRI. A container whose pod has the annotation bpftoken.dev/policy gets a hook, which has bpftokend(8) lend to it before its first program runs. It is made only once bpftokend knows its names and labels, so that policies can name them. Other containers are made as if there were no plugin.',
      'It registers with the runtime, and again when one of the two was started anew; then bpftokend is told of all containers that there are.',
    ],
  ],
  ['SIGNALS', [['SIGTERM, SIGINT', 'it ends; containers that ask are made without a loan until it is back']]],
  [
    'UNIT',
    [
      'bpftoken-nri.service confines it. Where npm has installed it, --print-unit prints the unit with the paths of that installation.',
    ],
  ],
  [
    'EXIT STATUS',
    [
      ['0', 'it was told to end'],
      ['1', 'a failure; the unit starts it again'],
      ['2', 'the command line is wrong'],
      ['3', 'it is not run by root'],
    ],
  ],
  ['SEE ALSO', ['bpftoken(1), bpftokend(8)']],
]
