#!/usr/bin/env node
/**
 * The program `bpftoken-nri`. What it has of who started it is taken or dropped here. It uses no
 * capability; the daemon knows root by CAP_SYS_ADMIN.
 */
import { fstatSync } from 'node:fs'
import { CommanderError } from 'commander'
import { HOOK_SECONDS } from '../api/container-words.ts'
import { Client } from '../client/client.ts'
import { GrpcChannel } from '../cri/channel.ts'
import { imageDigestOf } from '../cri/image-digest.ts'
import { ConflictError, DeniedError, EXIT } from '../errors.ts'
import { isJournal, LogSink } from '../service/journald.ts'
import { boundedWriter, createLog, type Entry, type Log } from '../service/log.ts'
import { Notifier } from '../service/notify.ts'
import { unitOfThis } from '../service/unit-text.ts'
import { unsafeProgram } from '../sys/unsafe-program.ts'
import { Announcer } from './announcer.ts'
import { stayRegistered } from './connection.ts'
import { Inventory } from './inventory.ts'
import { type Options, parseOptions } from './options.ts'
import { Plugin, type Tale } from './plugin.ts'

const { version } = require('../../package.json') as { version: string }

function optionsOrExit(words: readonly string[]): Options | number {
  try {
    return parseOptions(words, version)
  } catch (error) {
    // It has been told by commander.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    throw error
  }
}

function jsonSink(write: (text: string) => void): { write(entry: Entry): void } & Disposable {
  return {
    write: ({ priority, message, fields }) =>
      write(`${JSON.stringify({ time: new Date().toISOString(), priority, message, ...fields }, plain)}\n`),
    [Symbol.dispose]: () => {},
  }
}

function plain(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}

async function run(options: Options): Promise<void> {
  if (options.printUnit) {
    process.stdout.write(unitOfThis('bpftoken-nri.service', __filename))
    return
  }
  if (process.geteuid?.() !== 0)
    throw new DeniedError('bpftoken-nri needs root: the runtime and the daemon listen to nobody else')
  // What containers call that ask, with root's rights.
  const unsafe = unsafeProgram(options.hook)
  if (unsafe !== undefined)
    throw new ConflictError(`Root's containers must not call ${options.hook}: ${unsafe}`)
  process.chdir('/')
  const { env } = process
  using notifier = new Notifier(env, process.pid)
  const journal = isJournal(env['JOURNAL_STREAM'], fstatSync(2))
  for (const name of Object.keys(env)) delete env[name]
  const write = boundedWriter(process.stderr, times => `${times} lines of the log were dropped here\n`)
  using sink = options.json ? jsonSink(write) : new LogSink({ journal, write })
  const log = createLog(options.logLevel, sink)
  const stop = new AbortController()
  process.on('SIGTERM', () => stop.abort()).on('SIGINT', () => stop.abort())

  const inventory = new Inventory()
  using client = new Client({ socket: options.socket })
  await using announcer = new Announcer(inventory, client, {
    all: containers => log.info({ containers }, 'bpftokend knows all containers'),
    not: error => log.warn({ error }, 'bpftokend cannot be told of containers; those that ask are refused'),
  })
  const hook = { path: options.hook, args: hookArgs(options), timeoutSeconds: HOOK_SECONDS }
  const tale = taleOf(log, options)
  const imageDigest = async (containerId: string): Promise<string | undefined> => {
    using channel = new GrpcChannel(options.cri)
    return await imageDigestOf(channel, containerId, options.patience)
  }
  notifier.ready('waiting for the runtime')
  notifier.watch(() => true)
  log.info({ version, nri: options.nri, hook: options.hook }, 'bpftoken-nri is ready')
  await stayRegistered({
    socket: options.nri,
    index: options.index,
    plugin: () => new Plugin({ inventory, announcer, hook, tale, answerMs: options.patience, imageDigest }),
    told: {
      registered: () => {
        log.info({ nri: options.nri }, 'the runtime has taken the plugin')
        notifier.status('registered with the runtime')
      },
      lost: error => {
        log.warn({ error, nri: options.nri }, 'the runtime is not there; it will be asked again')
        notifier.status('waiting for the runtime')
      },
    },
    signal: stop.signal,
  })
  notifier.stopping()
  log.info({}, 'bpftoken-nri stops; containers that ask are made without a loan until it is back')
}

/** The hook asks the same daemon. */
function hookArgs({ socket }: Options): string[] {
  return ['--socket', socket]
}

const FORBIDS =
  'the default validator of NRI can forbid hooks: reject_oci_hook_adjustment in the configuration of the runtime'

function taleOf(log: Log, { hook }: Options): Tale {
  return {
    configured: facts => log.info(facts, 'the runtime tells who it is'),
    synchronized: facts => log.info(facts, 'the runtime tells what it has'),
    cut: facts =>
      log.error(
        facts,
        'the runtime has too many; bpftokend is not told of the rest, and what asks is refused',
      ),
    adjusted: facts => log.info({ ...facts, hook }, 'a container asks, and gets the hook'),
    refused: (facts, error) => log.warn({ ...facts, error }, 'a container asks, and is refused'),
    ignored: ({ made, ...facts }) =>
      log.error(
        facts,
        made
          ? `the runtime has made a container without the hook that it was given: ${FORBIDS}`
          : `the runtime has not made a container that was given the hook. If this happens to each: ${FORBIDS}`,
      ),
    noDigest: (facts, error) =>
      error === undefined
        ? log.debug(facts, 'no registry has the image of a container that asks')
        : log.warn({ ...facts, error }, 'the runtime does not say of which image a container was made'),
    unknown: facts => log.warn(facts, 'the daemon is not told of a container, which did not ask'),
  }
}

function complain(error: unknown): number {
  const { message, exitStatus = EXIT.failed } = error as Error & { exitStatus?: number }
  process.stderr.write(`bpftoken-nri: ${message}\n`)
  return exitStatus
}

// Fail closed: should Node find nothing left to wait for before it was told to stop, that is a failure.
process.exitCode = EXIT.failed
const options = optionsOrExit(process.argv.slice(2))
if (typeof options === 'number') process.exitCode = options
else
  void run(options).then(
    () => process.exit(EXIT.ok),
    error => process.exit(complain(error)),
  )
