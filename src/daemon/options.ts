/** The words of `bpftokend`'s command line. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { LEVELS, type Level } from '../service/log.ts'

/** Its units, and those of the launcher, which is asked by it. */
export const UNITS = {
  service: 'bpftokend.service',
  socket: 'bpftokend.socket',
  launcher: 'bpftoken-launchd.service',
  'launcher-socket': 'bpftoken-launchd.socket',
} as const
export type UnitName = keyof typeof UNITS

export interface Options {
  readonly socket: string
  readonly state: string
  readonly policies: string
  readonly launcher: string
  readonly config: string
  readonly logLevel: Level
  readonly recover: boolean
  /** Print it, and end. */
  readonly printUnit: UnitName | undefined
}

/** Commander throws a CommanderError for what is wrong, and for help and version when told. */
export function parseOptions(words: readonly string[], version: string): Options {
  return daemonCommand(version)
    .parse([...words], { from: 'user' })
    .opts<Options>()
}

export function daemonCommand(version: string): Command {
  return new Command('bpftokend')
    .description('Lends eBPF to unprivileged programs, by the policies of this machine')
    .exitOverride()
    .version(version, '-V, --version')
    .option('--socket <path>', 'where it answers, unless systemd hands a socket over', absolute, SOCKET)
    .option('--state <dir>', 'what it keeps: loans, requests, audit, events', absolute, '/var/lib/bpftoken')
    .option('--policies <dir>', 'the policies, a file each', absolute, '/etc/bpftoken/policies')
    .option(
      '--config <file>',
      'limits and the like; need not be there',
      absolute,
      '/etc/bpftoken/bpftokend.yaml',
    )
    .option('--launcher <path>', 'where bpftoken-launchd answers', absolute, LAUNCHER_SOCKET)
    .addOption(new Option('--log-level <level>', 'the least that is logged').choices(LEVELS).default('info'))
    .option('--recover', 'set a damaged registry aside, and find what lives in the kernel', false)
    .addOption(
      new Option(
        '--print-unit <which>',
        'print the unit for systemd that starts this very installation, and end',
      ).choices(Object.keys(UNITS)),
    )
    .allowExcessArguments(false)
}

const SOCKET = '/run/bpftoken/bpftokend.sock'
const LAUNCHER_SOCKET = '/run/bpftoken/launch.sock'

function absolute(path: string): string {
  if (!path.startsWith('/')) throw new InvalidArgumentError('It is to begin with a slash.')
  return path.length > 1 ? path.replace(/\/+$/, '') : path
}
