/**
 * Whether a command asks the daemon: it does where the daemon answers. Root can do without, and is
 * then alone; nobody else can.
 */
import { existsSync } from 'node:fs'
import { type Client, DEFAULT_SOCKET } from '../../client/client.ts'
import { UnreachableError, UsageError } from '../../errors.ts'
import { requireRoot } from '../privilege.ts'
import type { LoanName } from '../tree/options.ts'

export interface SocketOptions {
  socket?: string
}

export interface DaemonOptions extends SocketOptions {
  direct?: boolean
}

/**
 * The daemon, which the caller disposes of; undefined: this command is to do it alone. DeniedError:
 * --direct, and not root; UnreachableError: nobody answers where somebody must.
 */
export async function reachDaemon(
  { direct = false, socket }: DaemonOptions,
  what: string,
): Promise<Client | undefined> {
  if (direct) {
    if (socket !== undefined) throw new UsageError('--direct asks no daemon, and --socket names one')
    requireRoot(what)
    return undefined
  }
  const named = socket ?? namedSocket()
  const mayDoWithout = process.geteuid?.() === 0 && named === undefined
  // Without Node's HTTP, where there is nobody to talk to.
  if (mayDoWithout && !existsSync(DEFAULT_SOCKET)) return undefined
  const client = await clientAt(named)
  if (await client.isReachable()) return client
  if (mayDoWithout) return undefined
  throw unreachable(client)
}

function unreachable({ socket }: Client): UnreachableError {
  return new UnreachableError(`No daemon answers at ${socket}`, { context: { socket } })
}

/**
 * The daemon; undefined: it does not answer, and this command shows what can be seen without. The
 * caller disposes of it. UnreachableError: one was named.
 */
export async function daemonIfAny({ socket }: SocketOptions): Promise<Client | undefined> {
  const named = socket ?? namedSocket()
  if (named === undefined && !existsSync(DEFAULT_SOCKET)) return undefined
  const client = await clientAt(named)
  if (await client.isReachable()) return client
  if (named === undefined) return undefined
  throw unreachable(client)
}

/** The daemon, for what only it can do. The caller disposes of it. */
export function daemonAt({ socket }: SocketOptions): Promise<Client> {
  return clientAt(socket ?? namedSocket())
}

async function clientAt(socket: string | undefined): Promise<Client> {
  const { Client } = await import('../../client/client.ts')
  return new Client({ socket })
}

export function namedSocket(): string | undefined {
  return process.env['BPFTOKEN_SOCKET'] || undefined
}

/** UsageError: one of these options was given, which only the daemon can heed, and it is not asked. */
export function requireNoneOf(options: Readonly<Record<string, unknown>>): void {
  const given = Object.keys(options).filter(name => options[name] !== undefined)
  if (given.length > 0)
    throw new UsageError(`Only the daemon can do that, and it is not asked: --${given.join(', --')}`, {
      hint: 'Start bpftokend, and leave out --direct',
    })
}

/** The guard's number. UsageError: it is a loan, which only the daemon knows. */
export function delegationIn(name: LoanName): number {
  if ('delegation' in name) return name.delegation
  throw new UsageError(`Only the daemon knows ${name.loan}, and it is not asked`, {
    hint: 'Start bpftokend, or name the number of the guard: bpftoken guard status',
  })
}
