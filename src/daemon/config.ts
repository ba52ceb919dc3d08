/** The daemon's configuration: a file that need not be there. Loads yaml and zod where it is. */
import { InputError } from '../errors.ts'
import type { ConnectionLimits } from './http/connections.ts'
import { DEFAULT_LIMITS, type Limits } from './limits.ts'
import { readOwned } from './owned-file.ts'

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

/**
 * What the file says, with the defaults for what it does not. FormatError, InputError: it is not as
 * it should be, or somebody else may write to it. `owner`: whose it must be.
 */
export async function readConfig(path: string, owner = 0): Promise<Config> {
  const text = await textOf(path, owner)
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

/** undefined: there is none. */
async function textOf(path: string, owner: number): Promise<string | undefined> {
  try {
    return await readOwned(path, { what: 'configuration', owner, maxBytes: MAX_BYTES, followLinks: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new InputError(`${path} cannot be read: ${(error as Error).message}`, {
      hint: 'It must be a plain file of root, which nobody else may write to: mode 0644',
      cause: error,
    })
  }
}
