/**
 * The numbers of the users and groups that policies name, asked for beside the event loop: a
 * directory service that hangs holds up nobody who does not need it.
 *
 * A name is asked for again when it is used and older than a minute. So a user that was renamed, or
 * deleted, counts by the old name for a minute more. Where the directory does not answer, what it
 * said last counts for ten minutes; after that the name is nobody's, and matches nobody.
 */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import type { Accounts } from '../delegation/subject.ts'
import { entryIn } from '../lending/accounts.ts'
import { SYSTEM_PATH, systemProgram } from '../lending/program-path.ts'
import type { Policy } from '../policy/policy.ts'
import { namesIn } from '../policy/subject.ts'
import { parseWithin, USER_IDS } from '../uapi/number-range.ts'

const FRESH_MS = 60_000
const STALE_MS = 600_000
/** How long a request waits for the directory. What comes later is for the next one. */
const PATIENCE_MS = 2000
const GETENT_TIMEOUT_MS = 10_000
/** A policy may name 512 at most, and there are not many policies. */
const MAX_NAMES = 20_000

type Database = 'passwd' | 'group'

/** The line of passwd(5) or group(5); undefined: nobody. Rejects: the directory does not answer. */
export type Ask = (database: Database, name: string) => Promise<string | undefined>

interface Known {
  id: number | undefined
  /** On the clock of `performance.now`; undefined: it was never answered. */
  at: number | undefined
  asking: Promise<void> | undefined
}

export class Names {
  readonly #known = new Map<string, Known>()
  readonly #ask: Ask
  readonly #now: () => number

  constructor(ask: Ask = askSystem, now: () => number = () => performance.now()) {
    this.#ask = ask
    this.#now = now
  }

  /** By what is known at this moment. */
  readonly accounts: Accounts = {
    uidOf: name => this.#idOf('passwd', name),
    gidOf: name => this.#idOf('group', name),
  }

  /** Returns once what the policies name is fresh, or the directory has taken too long. */
  async refresh(policies: Iterable<Pick<Policy, 'subjects'>>): Promise<void> {
    const asked: Promise<void>[] = []
    for (const policy of policies) {
      const { users, groups } = namesIn(policy)
      for (const name of users) asked.push(...this.#asked('passwd', name))
      for (const name of groups) asked.push(...this.#asked('group', name))
    }
    if (asked.length === 0) return
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, PATIENCE_MS)
    })
    await Promise.race([Promise.all(asked), late])
    clearTimeout(timer)
  }

  /** Nothing: it is fresh. */
  #asked(database: Database, name: string): Promise<void>[] {
    const key = `${database} ${name}`
    let known = this.#known.get(key)
    if (known === undefined) {
      if (this.#known.size >= MAX_NAMES) this.#known.clear()
      known = { id: undefined, at: undefined, asking: undefined }
      this.#known.set(key, known)
    }
    if (known.at !== undefined && this.#now() - known.at < FRESH_MS) return []
    known.asking ??= this.#look(known, database, name)
    return [known.asking]
  }

  async #look(known: Known, database: Database, name: string): Promise<void> {
    try {
      known.id = idIn(await this.#ask(database, name))
      known.at = this.#now()
    } catch {
      // It counts as long as it may, by what was said last.
    } finally {
      known.asking = undefined
    }
  }

  #idOf(database: Database, name: string): number | undefined {
    // Fail closed: nobody has a name of digits.
    if (/^[0-9]+$/.test(name)) return undefined
    const known = this.#known.get(`${database} ${name}`)
    if (known?.at === undefined || this.#now() - known.at >= STALE_MS) return undefined
    return known.id
  }
}

/** The third field; undefined: nobody has it, or an id that the kernel would cut. */
function idIn(line: string | undefined): number | undefined {
  return parseWithin(USER_IDS, line?.split(':')[2] ?? '')
}

const run = promisify(execFile)

/** Getent says by 2 that there is nobody of that name. */
const NOBODY = 2

async function askSystem(database: Database, name: string): Promise<string | undefined> {
  const text = await readFile(`/etc/${database}`, 'utf8').catch(() => '')
  const found = entryIn(text, name)
  if (found !== undefined) return found
  const getent = systemProgram('getent')
  if (getent === undefined) return undefined
  try {
    const { stdout } = await run(getent, [database, '--', name], {
      env: { PATH: SYSTEM_PATH, LC_ALL: 'C' },
      cwd: '/',
      timeout: GETENT_TIMEOUT_MS,
      killSignal: 'SIGKILL',
      maxBuffer: 1024 * 1024,
    })
    return entryIn(stdout, name)
  } catch (error) {
    if ((error as { code?: unknown }).code === NOBODY) return undefined
    throw error
  }
}
