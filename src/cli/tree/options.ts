/** What several commands take alike: options, and how the values of options are read. */
import { InvalidArgumentError, Option } from 'commander'
import { DEFAULT_PATH } from '../../delegation/actions.ts'
import { MACHINE_NAMES } from '../../model/machine-names.ts'
import { parseDuration } from '../../policy/quantity.ts'
import { DELEGATION_IDS, type NumberRange, PROCESS_IDS, parseWithin } from '../../uapi/number-range.ts'
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
    `${what}, [PROGRAM=]SPEC or '["PROGRAM","SPEC"]': auto, xdp:DEVICE[/MODE], tcx:DEVICE/ingress|egress, netkit:DEVICE/primary|peer, cgroup:PATH, netns:PATH`,
  )
export const btf = (what: string): Option => new Option('--btf <file>', `${what}: BTF, or a vmlinux`)
export const kernel = (): Option =>
  new Option(
    '--kernel <name>',
    'in the words of this kernel (default: of the running one, or of the newest known where none can be asked)',
  ).choices([...MACHINE_NAMES, 'running'])
export const program = (): Option => repeatable('--program <name>', 'only this program')

const JSON_DOCUMENT = 'print one JSON document (errors: on stderr)'

/** Where the answer goes; see `outputFile`. */
export const output = (): Option => new Option('-o, --output <file>', 'where to (default, and -: print it)')

/** A file that is written beside the answer, and so cannot be standard output. */
export function besideAnswer(text: string): string {
  if (text !== '-') return text
  throw new InvalidArgumentError('It must be a file, for standard output is for the answer; ./- is one.')
}

/** What every command takes, wherever it stands among the words. */
export function common(command: Command, json = JSON_DOCUMENT): Command {
  return command
    .option('--json', json)
    .option('-q, --quiet', 'no notes and no progress on stderr; errors are told')
    .option('-v, --verbose', 'of a failure all facts; how long it took')
}

/** The options that say who is lent to; exactly one must be given, see recipient.ts. */
export function recipientOptions(
  command: Command,
  { pid, cgroup } = {
    pid: 'a process in the user namespace',
    cgroup: 'the process of this cgroup that has a user namespace of its own',
  },
): Command {
  return command
    .addOption(new Option('--pid <pid>', pid).argParser(numberWithin(PROCESS_IDS)))
    .option('--container <name>', 'a container of Podman or Docker, by name or id; USER/NAME: a rootless one')
    .option('--unit <name>', "a unit of systemd; USER/NAME: of that user's own")
    .option('--cgroup <dir>', cgroup)
}

/** A delegation by the guard's number for it, or a loan by the daemon's. */
export type LoanName = { readonly loan: string } | { readonly delegation: number }

export function loanName(text: string): LoanName {
  if (/^loan-[1-9][0-9]{0,9}$/.test(text)) return { loan: text }
  const delegation = parseWithin(DELEGATION_IDS, text)
  if (delegation !== undefined) return { delegation }
  throw new InvalidArgumentError(
    `It must be a whole number from ${DELEGATION_IDS.min} to ${DELEGATION_IDS.max}, or loan-NUMBER.`,
  )
}

/** `3` and `request-3` are the same. */
export function requestName(text: string): string {
  const [, number] = /^(?:request-)?([1-9][0-9]{0,9})$/.exec(text) ?? []
  if (number !== undefined) return `request-${number}`
  throw new InvalidArgumentError('It must be request-NUMBER.')
}

/** Seconds; what the daemon takes for a lifetime. */
export function duration(text: string): number {
  const seconds = parseDuration(text)
  if (seconds !== undefined && seconds > 0) return seconds
  throw new InvalidArgumentError('It must be a duration such as 90s, 8h or 1d12h.')
}

/** A moment as RFC 3339 has it: given so, or as how long ago it was. */
export function moment(text: string): string {
  const ago = parseDuration(text)
  const time = ago === undefined && /^\d{4}-\d\d-\d\d/.test(text) ? new Date(text).getTime() : Number.NaN
  const at = ago === undefined ? time : Date.now() - ago * 1000
  if (Math.abs(at) <= 8.64e15) return new Date(at).toISOString()
  throw new InvalidArgumentError('It must be a time such as 2026-01-31T12:00:00Z, or a duration: 2h ago.')
}

/** Where a command asks the daemon. */
export const socket = (): Option =>
  new Option('--socket <file>', 'where the daemon listens (default: $BPFTOKEN_SOCKET, else its usual place)')
export const comment = (description: string): Option => new Option('--comment <text>', description)
export const lifetime = (description: string): Option =>
  new Option('--lifetime <duration>', description).argParser(duration)

/** Of commands that ask the daemon where it answers, and that root can do without. */
export function daemonOptions(command: Command): Command {
  return command.addOption(socket()).option('--direct', 'without the daemon, also where it answers (as root)')
}

/** The three names that a delegator can have for the guard. */
export function delegatorOptions(command: Command): Command {
  return command
    .option('--exe <file>', 'all processes that run this executable')
    .option('--cgroup <dir>', 'all processes in this cgroup and below, also when it is made anew')
    .option('--unit <name>', 'the same, for the cgroup of a systemd unit')
}
