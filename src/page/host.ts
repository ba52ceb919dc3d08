/**
 * The daemon's client of the page: starts the process that speaks HTTP, and answers what that one
 * asks, with the rights of who started us. It reads nothing of a browser but the few forms of
 * asks.ts, and acts only where it was started to.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, unlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Client } from '../client/client.ts'
import { BpftokenError, ConflictError, FormatError, InternalError, SyscallError } from '../errors.ts'
import { passNothingOn } from '../sys/inheritance.ts'
import {
  type Act,
  type Ask,
  askIn,
  documentsIn,
  lineOf,
  MAX_ASK_CHARS,
  type Setup,
  type Started,
  type Told,
} from './asks.ts'
import type { Listen } from './listen.ts'
import { look } from './look.ts'
import { digestOf, newSecret, type Role } from './sessions.ts'

export interface PageHostOptions {
  /** The daemon's client; it stays the caller's. */
  readonly daemon: Client
  readonly listen: Listen
  readonly host?: string | undefined
  /** Whether it may act: then there is an address for that, besides the one to look. */
  readonly operator: boolean
  /** Who the process becomes that speaks HTTP. Required of root. */
  readonly ids: { readonly uid: number; readonly gid: number } | undefined
}

export interface PageAddresses {
  readonly viewer: string
  readonly operator?: string
}

const CHILD = join(__dirname, 'child.js')
/** Acts that run at one time; looks are one at a time anyway. */
const MAX_RUNNING = 16

/**
 * Serves until the signal is aborted, and throws its reason; `started` is told the addresses, each good once. InternalError:
 * the other process ended; ConflictError: the place is taken.
 */
export async function servePage(
  options: PageHostOptions,
  signal: AbortSignal,
  started: (addresses: PageAddresses) => void,
): Promise<never> {
  if (process.geteuid?.() === 0 && options.ids === undefined)
    throw new InternalError('what browsers speak to is never root')
  signal.throwIfAborted()
  const secrets = new Map<Role, string>([['viewer', newSecret()]])
  if (options.operator) secrets.set('operator', newSecret())
  passNothingOn()
  const child = spawn(process.execPath, [CHILD], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    env: {},
    cwd: '/',
    // No terminal is its own: that one's signals are for us, and nothing is to be typed into it.
    detached: true,
  })
  const ended = once(child, 'exit')
  const connection = child.stdio[3] as Duplex
  connection.on('error', () => {})
  const stop = (): void => void connection.destroy()
  signal.addEventListener('abort', stop, { once: true })
  let taken = false
  try {
    const documents = documentsIn(connection as Duplex & NodeJS.ReadableStream as never, MAX_ASK_CHARS)
    connection.write(lineOf(setupOf(options, secrets)))
    const { value: first } = await documents.next()
    signal.throwIfAborted()
    const { host, failed } = (first ?? { failed: 'it ended' }) as Partial<Record<'host' | 'failed', string>> &
      Started
    if (host === undefined) throw notStarted(options.listen, failed)
    taken = true
    started(addressesOf(host, secrets))
    await answer(documents, connection, options)
    signal.throwIfAborted()
    throw new InternalError('the process that serves the page has ended')
  } catch (error) {
    throw signal.aborted ? signal.reason : error
  } finally {
    signal.removeEventListener('abort', stop)
    connection.destroy()
    child.kill('SIGKILL')
    await ended
    // It may not: it is another user by now.
    if (taken && 'path' in options.listen) removeSocket(options.listen.path)
  }
}

function setupOf({ listen, host, ids }: PageHostOptions, secrets: ReadonlyMap<Role, string>): Setup {
  const doors = [...secrets].map(([role, secret]) => ({ role, digest: digestOf(secret).toString('hex') }))
  return { listen, host, doors, ids }
}

function addressesOf(host: string, secrets: ReadonlyMap<Role, string>): PageAddresses {
  const address = (secret: string): string => `http://${host}/enter/${secret}`
  const operator = secrets.get('operator')
  return {
    viewer: address(secrets.get('viewer')!),
    ...(operator !== undefined && { operator: address(operator) }),
  }
}

/** Answers in the order in which it was asked. FormatError: it is asked what nobody of ours asks. */
async function answer(
  documents: AsyncIterable<unknown>,
  connection: Duplex,
  options: PageHostOptions,
): Promise<void> {
  let last: Promise<unknown> = Promise.resolve()
  let running = 0
  for await (const document of documents) {
    const ask = askIn(document)
    if (ask === undefined)
      throw new FormatError('ask', 'the process that serves the page asks what it may not')
    if (running >= MAX_RUNNING) await last
    running++
    const told = tell(ask, options)
    last = Promise.all([told, last]).then(([one]) => {
      running--
      if (connection.writable) connection.write(lineOf(one))
    })
  }
}

async function tell(ask: Ask, { daemon, operator }: PageHostOptions): Promise<Told> {
  try {
    if (ask.what === 'look') return { status: 200, body: JSON.stringify(await look(daemon, Date.now())) }
    if (!operator) return { status: 403, body: '{}' }
    return { status: 200, body: JSON.stringify(await act(daemon, ask.what, ask.of)) }
  } catch (error) {
    if (!(error instanceof BpftokenError))
      return { status: 500, body: JSON.stringify({ problem: 'a defect' }) }
    // A look that fails is shown beside what was seen before.
    return { status: ask.what === 'look' ? 503 : 409, body: JSON.stringify({ problem: error.message }) }
  }
}

async function act(daemon: Client, what: Act, id: string): Promise<{ done: string }> {
  if (what === 'revoke') {
    const { loans, complete } = await daemon.revoke({ body: { what: { loan: id } } })
    return { done: `${id}: ${loans.length} taken back${complete ? '' : '; something stays, or may'}` }
  }
  const { state } = await daemon[what]({ params: { id }, body: {} })
  return { done: `${id} is ${state}` }
}

function notStarted(listen: Listen, why = 'it ended'): BpftokenError {
  const place = 'path' in listen ? listen.path : `${listen.host}:${listen.port}`
  if (why === 'EADDRINUSE')
    return new ConflictError(`Something listens at ${place}, or did`, {
      hint:
        'path' in listen
          ? 'Choose another path, or remove the socket that nobody uses'
          : 'Choose another port',
    })
  const errno = Object.hasOwn(constants.errno, why) ? constants.errno[why as 'EACCES'] : undefined
  if (errno === undefined) return new InternalError(`the page cannot be served at ${place}: ${why}`)
  return new SyscallError({ call: 'listen', object: place, errno, errnoName: why })
}

function removeSocket(path: string): void {
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path)
  } catch {
    // It is gone.
  }
}
