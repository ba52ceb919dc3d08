#!/usr/bin/env node
/**
 * The program `bpftokend`. What it has of who started it is taken or dropped here: arguments,
 * environment, descriptors, signals. All else is in daemon.ts.
 */
import { fstatSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { CommanderError } from 'commander'
import { printable } from '../ebpf/printable.ts'
import { BpftokenError, ConflictError, DeniedError, EXIT, InputError } from '../errors.ts'
import { isJournal, LogSink } from '../service/journald.ts'
import { boundedWriter, createLog, type Log } from '../service/log.ts'
import { Notifier } from '../service/notify.ts'
import { unitOfThis } from '../service/unit-text.ts'
import { closeInherited, passNothingOn } from '../sys/inheritance.ts'
import { takeActivationSockets } from './activation.ts'
import { readConfig } from './config.ts'
import { Daemon } from './daemon.ts'
import { type Options, parseOptions, UNITS } from './options.ts'

/**
 * What V8 is told of memory. Left to itself it lets new objects have up to 48 MiB before it looks
 * which of them are still used, and lets the rest grow by half: a third of the daemon's memory was
 * what nobody used any more.
 */
for (const flag of ['--semi-space-growth-factor=1', '--optimize-for-size']) setFlagsFromString(flag)

const { version } = require('../../package.json') as { version: string }

/** Files are its own to read, but where it says otherwise. */
const UMASK = 0o077

function optionsOrExit(words: readonly string[]): Options | number {
  try {
    return parseOptions(words, version)
  } catch (error) {
    // It has been told by commander.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    throw error
  }
}

/** What the service manager says by the environment; nothing of it is left for anybody else. */
function takeEnvironment() {
  const { env } = process
  const sockets = takeActivationSockets(env, process.pid)
  const notifier = new Notifier(env, process.pid)
  const journal = isJournal(env['JOURNAL_STREAM'], fstatSync(2))
  for (const name of Object.keys(env)) delete env[name]
  if (sockets.length > 1)
    throw new InputError('The service manager has handed over more than one socket', {
      hint: 'Use one ListenStream= in the socket unit',
    })
  return { socket: sockets[0]?.descriptor, notifier, journal }
}

async function run(options: Options): Promise<number> {
  if (options.printUnit !== undefined) {
    process.stdout.write(unitOfThis(UNITS[options.printUnit], __filename))
    return EXIT.ok
  }
  if (process.geteuid?.() !== 0)
    throw new DeniedError('bpftokend needs root: lending takes CAP_SYS_ADMIN in the initial user namespace')
  process.umask(UMASK)
  process.chdir('/')
  const { socket, notifier, journal } = takeEnvironment()
  closeInherited(socket === undefined ? [] : [socket])
  passNothingOn()
  const write = boundedWriter(process.stderr, times => `${times} lines of the log were dropped here\n`)
  using sink = new LogSink({ journal, write })
  const log = createLog(options.logLevel, sink)
  endOnDefects(log)
  let stopWanted = (): void => {}
  const stop = new Promise<void>(resolve => {
    stopWanted = resolve
  })
  // From the first moment: one that comes while it starts is obeyed when it has.
  process.on('SIGTERM', stopWanted).on('SIGINT', stopWanted)
  let daemon: Daemon | undefined
  process.on('SIGHUP', () => void daemon?.reload())
  const config = await readConfig(options.config)
  using told = notifier
  let status = ''
  const tell = (now: string): void => {
    status = now
    told.status(now)
  }
  const started = await Daemon.start({ options, config, version, log, socket, tell })
  daemon = started
  told.ready(status)
  told.watch(() => started.isHealthy)
  const readyMs = Math.round(performance.now())
  const { user, system } = process.cpuUsage()
  const readyCpuMs = Math.round((user + system) / 1000)
  await started.warm()
  log.info({ version, readyMs, readyCpuMs }, 'bpftokend is ready')
  await stop
  told.stopping()
  log.info({}, 'bpftokend stops; what is lent goes on')
  await started.stop()
  return EXIT.ok
}

/** What nobody foresaw leaves no state to go on with: who started us does so again. */
function endOnDefects(log: Log): void {
  const end = (error: unknown): void => {
    try {
      log.fatal({ error: error instanceof Error ? error : new Error(String(error)) }, 'a defect of bpftokend')
    } finally {
      process.exit(EXIT.failed)
    }
  }
  process.on('uncaughtException', end).on('unhandledRejection', end)
}

function complain(error: unknown): number {
  const known = error instanceof BpftokenError
  const lines = known ? error.lines : String((error as Error)?.stack ?? error).split('\n')
  const hint = known ? hintOf(error) : undefined
  for (const line of [...lines, ...(hint === undefined ? [] : [`  next: ${hint}`])])
    process.stderr.write(`bpftokend: ${printable(line)}\n`)
  return known ? error.exitStatus : EXIT.failed
}

function hintOf(error: BpftokenError): string | undefined {
  if (error.reason === 'state-damaged' || error.reason === 'state-schema')
    return 'Start it once with --recover: it sets the file aside, and finds what lives in the kernel'
  if (error.reason === 'state-in-use') return 'Stop the other daemon, or give another --state'
  if (error instanceof ConflictError) return error.hint ?? 'Give another --socket'
  return error.hint
}

// Fail closed: should Node find nothing left to wait for before it was told to stop, that is a failure.
process.exitCode = EXIT.failed
const options = optionsOrExit(process.argv.slice(2))
if (typeof options === 'number') process.exitCode = options
else
  void run(options).then(
    status => process.exit(status),
    error => process.exit(complain(error)),
  )
