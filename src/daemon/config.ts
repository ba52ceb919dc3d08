/** The daemon's configuration: a file that need not be there. Loads yaml and zod where it is. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { BpftokenError, FormatError, InputError } from '../errors.ts'
import type { ConnectionLimits } from './http/connections.ts'
import { DEFAULT_LIMITS, type Limits } from './limits.ts'

export interface Config {
  readonly limits: Limits
  readonly connections: ConnectionLimits
  /** Users besides root that may read the numbers. */
  readonly metricsReaders: readonly number[]
  /** Whether the audit is handed on to journald. */
  readonly auditToJournal: boolean
}

export const DEFAULT_CONFIG: Config = {
  limits: DEFAULT_LIMITS,
  connections: { perUid: 32, inAll: 256 },
  metricsReaders: [],
  auditToJournal: false,
}

const MAX_BYTES = 64 * 1024
/** Who may write to it other than its owner. */
const WRITABLE = 0o022

/**
 * What the file says, with the defaults for what it does not. FormatError, InputError: it is not as
 * it should be, or somebody else may write to it. `owner`: whose it must be.
 */
export async function readConfig(path: string, owner = 0): Promise<Config> {
  const text = await readOwned(path, owner)
  if (text === undefined) return DEFAULT_CONFIG
  const { parseConfig } = await import('./config-schema.ts')
  const { limits = {}, approval = {}, audit = {}, metrics = {} } = parseConfig(path, text)
  const { connectionsPerUid: perUid, connections: inAll, ...loans } = limits
  const { limits: usual, connections, metricsReaders, auditToJournal } = DEFAULT_CONFIG
  return {
    limits: { ...usual, ...given({ ...loans, approvalSec: approval.timeoutSec }) },
    connections: { ...connections, ...given({ perUid, inAll }) },
    metricsReaders: metrics.readers ?? metricsReaders,
    auditToJournal: audit.journal ?? auditToJournal,
  }
}

function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never
}

async function readOwned(path: string, owner: number): Promise<string | undefined> {
  let file: FileHandle
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new InputError(`${path} cannot be read: ${(error as Error).message}`, { cause: error })
  }
  try {
    const { uid, mode, size } = await file.stat()
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new InputError(`${path} is no plain file`)
    if (uid !== owner || (mode & WRITABLE) !== 0)
      throw new InputError(`${path} is not root's alone to write`, {
        context: { path, uid, mode: mode & 0o7777 },
        hint: `chown root ${path} and chmod 0644 it`,
      })
    if (size > MAX_BYTES) throw new FormatError(path, `has more than ${MAX_BYTES} bytes`)
    return await file.readFile('utf8')
  } catch (error) {
    if (error instanceof BpftokenError) throw error
    throw new InputError(`${path} cannot be read: ${(error as Error).message}`, { cause: error })
  } finally {
    await file.close()
  }
}
