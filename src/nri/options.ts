/** The words of `bpftoken-nri`'s command line. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { DEFAULT_SOCKET } from '../client/client.ts'
import { LEVELS, type Level } from '../service/log.ts'
import { hookPath } from '../sys/prebuilt.ts'

export interface Options {
  readonly nri: string
  readonly cri: string
  readonly socket: string
  readonly hook: string
  readonly index: string
  /** Milliseconds. */
  readonly patience: number
  readonly logLevel: Level
  readonly json: boolean
  /** Print it, and end. */
  readonly printUnit: boolean
}

/** Commander throws a CommanderError for what is wrong, and for help and version when told. */
export function parseOptions(words: readonly string[], version: string): Options {
  return nriCommand(version)
    .parse([...words], { from: 'user' })
    .opts<Options>()
}

export function nriCommand(version: string): Command {
  return new Command('bpftoken-nri')
    .description('Gives the containers of containerd that ask by annotation a hook that lends to them')
    .exitOverride()
    .version(version, '-V, --version')
    .option('--nri <path>', 'where the runtime takes plugins', absolute, '/run/nri/nri.sock')
    .option(
      '--cri <path>',
      'where the runtime answers the CRI: it is asked for digests of images',
      absolute,
      '/run/containerd/containerd.sock',
    )
    .option('--socket <path>', 'where bpftokend answers', absolute, DEFAULT_SOCKET)
    .addOption(
      new Option('--hook <path>', 'the hook, as the runtime sees it')
        .argParser(absolute)
        .default(hookPath(), 'that of this installation'),
    )
    .option('--index <digits>', 'when it is called among plugins', twoDigits, '50')
    .option('--patience <ms>', 'how long one that asks waits until bpftokend knows it', patience, 100)
    .addOption(new Option('--log-level <level>', 'the least that is logged').choices(LEVELS).default('info'))
    .option('--json', 'log to standard error as JSON, a line for each entry', false)
    .option('--print-unit', 'print the unit for systemd that starts this very installation, and end', false)
    .allowExcessArguments(false)
}

function absolute(path: string): string {
  if (!path.startsWith('/')) throw new InvalidArgumentError('It is to begin with a slash.')
  return path
}

/** The runtime itself waits two seconds, and then goes on without its plugins. */
function patience(text: string): number {
  const value = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (value < 10 || value > 1500) throw new InvalidArgumentError('It is a number from 10 to 1500.')
  return value
}

function twoDigits(text: string): string {
  if (!/^\d\d$/.test(text)) throw new InvalidArgumentError('It is two digits.')
  return text
}
