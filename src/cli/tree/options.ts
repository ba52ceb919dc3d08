/** What several commands take alike: options, and how the values of options are read. */
import { InvalidArgumentError, Option } from 'commander'
import { DEFAULT_PATH } from '../../delegation/actions.ts'
import { type NumberRange, PROCESS_IDS, parseWithin } from '../../uapi/number-range.ts'
import type { Command } from '../command.ts'

/**
 * Parses a number of that range. Fail closed: the kernel would cut a larger one to the width of its
 * types.
 */
export function numberWithin(range: NumberRange): (text: string) => number {
  return text => {
    const value = parseWithin(range, text)
    if (value !== undefined) return value
    throw new InvalidArgumentError(`It must be a whole number from ${range.min} to ${range.max}.`)
  }
}

/** An option that may be given several times. */
export function repeatable(
  flags: string,
  description: string,
  valuesOf = (value: string) => [value],
): Option {
  return new Option(flags, `${description} (repeatable)`).argParser((value, before: string[] = []) => [
    ...before,
    ...valuesOf(value),
  ])
}

/** CAP_NET_ADMIN, net_admin and NET_ADMIN are the same. */
export function capabilities(value: string): string[] {
  return value
    .split(',')
    .filter(Boolean)
    .map(name => name.toLowerCase().replace(/^cap_/, ''))
}

export const path = (): Option =>
  new Option('--path <dir>', 'where the bpffs is mounted inside').default(DEFAULT_PATH)
export const policy = (): Option =>
  new Option(
    '--policy <policy>',
    'what is lent: a file (YAML; with a / or .yaml in its name), or the name of one that the daemon has',
  ).makeOptionMandatory()
export const anySubject = (): Option =>
  new Option('--any-subject', 'also where the policy names others as subjects; that is said aloud')
export const dryRun = (): Option => new Option('--dry-run', 'print what would be done, and do nothing')
export const attach = (what: string): Option =>
  repeatable(
    '--attach <spec>',
    `${what}, [PROGRAM=]SPEC or '["PROGRAM","SPEC"]': auto, xdp:DEVICE[/MODE], tcx:DEVICE/ingress|egress, cgroup:PATH, netns:PATH`,
  )
export const program = (): Option => repeatable('--program <name>', 'only this program')

const JSON_DOCUMENT = 'print one JSON document (errors: on stderr)'

/** What every command takes, wherever it stands among the words. */
export function common(command: Command, json = JSON_DOCUMENT): Command {
  return command
    .option('--json', json)
    .option('-q, --quiet', 'no notes and no progress on stderr; errors are told')
    .option('-v, --verbose', 'of a failure all facts; how long it took')
}

/** Who is lent to: exactly one of these; see recipient.ts. */
export function recipientOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--pid <pid>', 'a process in the user namespace').argParser(numberWithin(PROCESS_IDS)),
    )
    .option('--container <name>', 'a container of Podman or Docker, by name or id; USER/NAME: a rootless one')
    .option('--unit <name>', "a unit of systemd; USER/NAME: of that user's own")
    .option('--cgroup <dir>', 'the process of this cgroup that has a user namespace of its own')
}

/** The three names that a delegator can have for the guard. */
export function delegatorOptions(command: Command): Command {
  return command
    .option('--exe <file>', 'all processes that run this executable')
    .option('--cgroup <dir>', 'all processes in this cgroup and below, also when it is made anew')
    .option('--unit <name>', 'the same, for the cgroup of a systemd unit')
}
