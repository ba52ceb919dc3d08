/** What the manual page of bpftokend says beside its options. docs/daemon.md says more. */
import type { ManualSection } from '../src/cli/man.ts'

export const DAEMON_SECTIONS: readonly [ManualSection, ...ManualSection[]] = [
  [
    'DESCRIPTION',
    [
      'bpftokend delegates BPF to programs that run in user namespaces of their own, by the policies of this machine. Root may ask it for everything; anybody else for user namespaces of his own, and under policies that name him. Who asks is known by what the kernel says of the connection.',
      'It needs no configuration. Its socket starts it. What it lends outlives it: stop it, update it or kill it, and no workload ends. The commands of bpftoken(1) ask it where it answers.',
    ],
  ],
  [
    'FILES',
    [
      [
        '/etc/bpftoken/policies/*.yaml',
        'its policies, read again when they change; a file with a fault changes nothing',
      ],
      [
        '/etc/bpftoken/bpftokend.yaml',
        'limits, the time for approval, who may read metrics, whether the audit goes to the journal; need not be there',
      ],
      ['/run/bpftoken/bpftokend.sock', 'where it answers: HTTP and JSON; /openapi.json describes it'],
      ['/var/lib/bpftoken', 'loans, requests, the audit, events of the guard; root alone may look'],
    ],
  ],
  [
    'SIGNALS',
    [
      ['SIGHUP', 'the policies are read again, as by bpftoken reload'],
      [
        'SIGTERM, SIGINT',
        'it takes no more requests, finishes those that run, for 20 seconds at most, and ends',
      ],
    ],
  ],
  [
    'EXIT STATUS',
    [
      ['0', 'it was told to end'],
      ['1', 'a failure; the unit starts it again'],
      ['2', 'the command line or the configuration is wrong'],
      ['3', 'it is not run by root'],
      ['4', 'this machine cannot do it'],
    ],
  ],
  [
    'UNITS',
    [
      'bpftokend.socket listens, and starts bpftokend.service when somebody asks. systemctl reload reads the policies, and fails if one has a fault. The service is confined; each setting of the unit has its reason beside it. Where npm has installed it, --print-unit prints units with the paths of that installation.',
      'bpftoken-launchd.socket and its service start programs of `bpftoken run --apart`, and of users who may make no namespaces, under policies that say launch: allowed. They are not enabled: systemctl enable --now bpftoken-launchd.socket.',
    ],
  ],
  [
    'WITHOUT SYSTEMD',
    [
      'bpftokend makes its socket and its directories itself, and is started and watched by what starts services there. So does bpftoken-launchd [--socket FILE], beside it and not by it: bpftokend & bpftoken-launchd &. Where its socket is another than /run/bpftoken/launch.sock, --launcher tells bpftokend.',
    ],
  ],
  [
    'SEE ALSO',
    ['bpftoken(1), bpftoken-status(1), bpftoken-reload(1), bpftoken-revoke(1), systemd.socket(5)'],
  ],
]
