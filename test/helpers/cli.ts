/**
 * The commands, as their users run them: those of the installed package, or where none is installed
 * those that `make build` made.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { PACKAGE } from '../../scripts/installed.ts'
import { HANG_MS } from './eventually.ts'
import { ROOT } from './machine.ts'

export const CLI = join(PACKAGE, 'dist/cli/main.js')

export interface Result {
  /** As a shell gives it: 128 + number when a signal ended the command. */
  readonly status: number
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions extends SpawnOptions {
  /** What the command reads on its standard input; nothing by default. */
  input?: string
}

/** Starts the command and leaves the rest to the caller, who waits for its end. */
export function startCli(args: readonly string[], options: SpawnOptions = {}): ChildProcess {
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run make build`)
  return spawn(process.execPath, [CLI, ...args], options)
}

/** Runs the command to its end. */
export function cli(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return finish(startCli(args, options), options.input)
}

/** Where `inPublic` shows this repository. */
export const PUBLIC = '/mnt'

/** The command where this repository is at `PUBLIC`. */
export const PUBLIC_CLI = CLI.startsWith(`${ROOT}/`) ? CLI.replace(ROOT, PUBLIC) : CLI

/**
 * A command line that runs `command` where this repository is at `PUBLIC`, in a mount namespace of
 * its own: workloads run as an ordinary user, who may not reach a clone in root's home. Needs root.
 */
export function inPublic(command: readonly string[]): [string, string[]] {
  const script = `mount --bind "$0" ${PUBLIC} && cd ${PUBLIC} && exec "$@"`
  return ['unshare', ['--mount', 'sh', '-c', script, ROOT, ...command]]
}

/** Runs the command to its end, with the repository at `PUBLIC`. */
export function publicCli(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return execute(...inPublic([process.execPath, PUBLIC_CLI, ...args]), options)
}

/** A command line that runs `command` as the user nobody, with no capability. Needs root. */
export function asNobody(command: readonly string[]): [string, string[]] {
  return ['setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', ...command]]
}

/** Runs any program to its end. */
export function execute(command: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return finish(spawn(command, args, options), options.input)
}

export async function finish(child: ChildProcess, input = ''): Promise<Result> {
  const timer = setTimeout(() => child.kill('SIGKILL'), HANG_MS)
  // A command may end without reading its input, which breaks the pipe.
  child.stdin?.on('error', () => {}).end(input)
  try {
    const [stdout, stderr, end] = await Promise.all([
      child.stdout === null ? '' : text(child.stdout),
      child.stderr === null ? '' : text(child.stderr),
      new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
        child.once('error', reject).once('exit', (code, signal) => resolve([code, signal]))
      }),
    ])
    return { status: end[0] ?? 128 + signalNumber(end[1]!), signal: end[1], stdout, stderr }
  } finally {
    clearTimeout(timer)
  }
}

function signalNumber(signal: NodeJS.Signals): number {
  return constants.signals[signal]
}
