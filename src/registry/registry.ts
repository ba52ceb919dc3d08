/**
 * The registry: which loans there are, which requests wait, what was answered. All of it is in
 * memory; the file is for the next start. docs/state.md has its form, and what is done at each
 * fault.
 */
import { join } from 'node:path'
import { FormatError, InputError, NotSupportedError } from '../errors.ts'
import { Batches, type Waiting } from './batches.ts'
import { type Change, checkedChange, decodeChange, encodeChange } from './change.ts'
import { number, object } from './fields.ts'
import { codeOf, type Files, REAL_FILES } from './files.ts'
import { asciiJson, decodeLine, MAX_LINE_BYTES } from './line.ts'
import { damaged, LineLog, type Torn } from './line-log.ts'
import { linesOf } from './lines-of.ts'
import type { AnswerRecord, LoanRecord, RequestRecord } from './loan-record.ts'
import { type Bounds, DEFAULT_BOUNDS, Records } from './records.ts'
import { holdDirectory } from './state-directory.ts'
import { storageError } from './storage-error.ts'

/** Grows with every change of what the lines mean: see docs/state.md. Older ones are read, too. */
export const REGISTRY_SCHEMA = 2
export const REGISTRY_FILE = 'registry.jsonl'
const NEW_FILE = 'registry.jsonl.new'

/** First line of the file. */
interface Header {
  readonly registry: number
  /** That no loan and no request before has had. */
  readonly nextLoan: number
  readonly nextRequest: number
}

const id = number(1, Number.MAX_SAFE_INTEGER)
const header = object<Header>({ registry: id, nextLoan: id, nextRequest: id })

export interface RegistryOptions {
  /** Boot id of this boot. */
  readonly boot: string
  readonly files?: Files
  readonly bounds?: Partial<Bounds>
  /** Written anew when this many lines are of no more use, and these are more than half. */
  readonly garbageLines?: number
  readonly now?: () => number
}

const UNBOUNDED: Bounds = {
  ...{ endedLoans: Infinity, endedLoansPerOwner: Infinity },
  ...{ decidedRequests: Infinity, decidedRequestsPerOwner: Infinity },
  ...{ answers: Infinity, answersPerOwner: Infinity, answerLifeMs: Infinity },
}

/** How many lines are copied before others may write. */
const COPIED_AT_ONCE = 128
const DEFAULT_GARBAGE_LINES = 2000

export class Registry {
  readonly directory: string
  readonly boot: string
  /** What the last stop left unfinished at the end of the file, and was cut off. */
  readonly torn: Torn | undefined
  readonly #files: Files
  readonly #records: Records
  readonly #garbageLines: number
  readonly #now: () => number
  readonly #batches = new Batches<Change>(batch => this.#write(batch))
  readonly #lock: { close(): Promise<void> }
  #log: LineLog
  /** Digests of the policies in the file. */
  #known: Set<string>
  #nextLoan: number
  #nextRequest: number
  /** While the file is written anew: what was put meanwhile. */
  #meanwhile: Change[] | undefined
  #compacting: Promise<void> | undefined
  #compactAt: number
  /** The file has its name, but perhaps not on the disk. */
  #nameUnsure = false
  /** Of the file: an older one is written anew before anything is added to it. */
  #schema: number
  #closed = false
  #fault: string | undefined

  private constructor(
    directory: string,
    options: RegistryOptions,
    lock: { close(): Promise<void> },
    opened: Opened & { readonly records: Records },
  ) {
    this.directory = directory
    this.boot = options.boot
    this.#files = options.files ?? REAL_FILES
    this.#garbageLines = options.garbageLines ?? DEFAULT_GARBAGE_LINES
    this.#now = options.now ?? Date.now
    this.#lock = lock
    this.#log = opened.log
    this.#records = opened.records
    this.#known = new Set(opened.records.policies.keys())
    this.#nextLoan = opened.header.nextLoan
    this.#nextRequest = opened.header.nextRequest
    this.#schema = opened.header.registry
    this.torn = opened.torn
    this.#compactAt = this.#compactionSize()
  }

  /**
   * Takes hold of the directory, which it makes where there is none, and reads what is in it.
   * ConflictError: another daemon has it. DeniedError: others have rights to it. NotSupportedError:
   * another version wrote it. FormatError: it is damaged; its context says where.
   */
  static async open(directory: string, options: RegistryOptions): Promise<Registry> {
    const { files = REAL_FILES } = options
    const path = join(directory, REGISTRY_FILE)
    const records = new Records({ ...DEFAULT_BOUNDS, ...options.bounds })
    let lock: { close(): Promise<void> } | undefined
    try {
      lock = await holdDirectory(files, directory)
      const opened = (await readRegistry(files, path, records)) ?? (await firstRegistry(files, directory))
      return new Registry(directory, options, lock, { ...opened, records })
    } catch (error) {
      await lock?.close()
      throw storageError(error, path)
    }
  }

  loan(id: number): LoanRecord | undefined {
    return this.#records.loan(id)
  }

  /** All that are known: those that have ended too. */
  loans(): IterableIterator<LoanRecord> {
    return this.#records.loans()
  }

  request(id: number): RequestRecord | undefined {
    return this.#records.request(id)
  }

  requests(): IterableIterator<RequestRecord> {
    return this.#records.requests()
  }

  /** Undefined also when it is older than answers are kept. */
  answer(uid: number, key: string): AnswerRecord | undefined {
    return this.#records.answer(uid, key, this.#now())
  }

  /** A number that no loan has had. One that is never put may be given again after a restart. */
  nextLoanId(): number {
    return this.#nextLoan++
  }

  nextRequestId(): number {
    return this.#nextRequest++
  }

  /** Of the file as it is. */
  get schema(): number {
    return this.#schema
  }

  /** Why the last write failed; undefined: it did not. */
  get fault(): string | undefined {
    return this.#fault
  }

  /** How long the write that is under way takes by now; 0: there is none. */
  get writingMs(): number {
    return this.#batches.writingMs
  }

  /**
   * Puts records, all of them or none, in the place of those with the same number or key. Returns
   * when they are on the disk; only then they are seen here. ConflictError: a loan that has ended
   * cannot live again, nor a decided request be decided again. SyscallError: it could not be
   * written; nothing has changed, here and in the file.
   */
  async put(change: Change): Promise<void> {
    if (this.#closed) throw new Error('the registry is closed')
    const checked = checkedChange(change)
    if (this.#schema !== REGISTRY_SCHEMA) {
      await this.#raiseSchema()
      if (this.#closed) throw new Error('the registry is closed')
    }
    return this.#batches.push(checked)
  }

  /** Writes the file anew without what is of no more use. Others can put meanwhile. */
  compact(): Promise<void> {
    this.#compacting ??= this.#writeAnew().finally(() => {
      this.#compacting = undefined
      this.#meanwhile = undefined
      // Also after a failure it is not tried again at once.
      this.#compactAt = Math.max(this.#compactionSize(), this.#log.lines + this.#garbageLines)
    })
    return this.#compacting
  }

  /** Returns when all that was put is on the disk, and gives the directory back. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#batches.idle()
    await this.#compacting?.catch(() => {})
    await this.#batches.idle()
    await this.#log.close()
    await this.#lock.close()
  }

  /** An older version must not find lines of ours under the number that it knows. */
  async #raiseSchema(): Promise<void> {
    try {
      await this.compact()
    } catch (error) {
      this.#fault = (error as Error).message
      throw error
    }
  }

  #compactionSize(): number {
    return Math.max(2 * this.#records.size, this.#records.size + this.#garbageLines)
  }

  async #write(batch: readonly Waiting<Change>[]): Promise<void> {
    const known = new Set(this.#known)
    const accepted: Change[] = []
    const bodies: string[] = []
    const states = new Records(UNBOUNDED)
    for (const { item, refuse } of batch) {
      const objection = this.#objection(item, states)
      if (objection !== undefined) {
        refuse(objection)
        continue
      }
      const body = encodeChange(item, known)
      if (body.length > MAX_LINE_BYTES - 64) {
        refuse(new InputError(`A record of ${body.length} bytes is too long for the registry`))
        continue
      }
      states.apply(item)
      accepted.push(item)
      bodies.push(body)
    }
    if (accepted.length === 0) return
    try {
      await this.#settleName()
      await this.#log.append(bodies)
    } catch (error) {
      this.#fault = (error as Error).message
      throw error
    }
    this.#fault = undefined
    this.#known = known
    for (const change of accepted) this.#apply(change)
    // Its failure changes nothing: the file that there is goes on, and it is tried again later.
    if (this.#log.lines > this.#compactAt && !this.#closed) this.compact().catch(() => {})
  }

  /** What stands against it, after all that is on the disk and in the batch before it. */
  #objection(change: Change, batch: Records): Error | undefined {
    return batch.objection(change) ?? this.#records.objection(change)
  }

  #apply(change: Change): void {
    this.#records.apply(change)
    this.#meanwhile?.push(change)
    this.#nextLoan = Math.max(this.#nextLoan, (change.loan?.id ?? 0) + 1)
    this.#nextRequest = Math.max(this.#nextRequest, (change.request?.id ?? 0) + 1)
  }

  async #settleName(): Promise<void> {
    if (!this.#nameUnsure) return
    await this.#files.syncDirectory(this.directory).catch(error => {
      throw storageError(error, this.directory)
    })
    this.#nameUnsure = false
  }

  async #writeAnew(): Promise<void> {
    this.#records.prune(this.#now())
    const all = [...this.#records.changes()]
    this.#meanwhile = []
    const first = { registry: REGISTRY_SCHEMA, nextLoan: this.#nextLoan, nextRequest: this.#nextRequest }
    const path = join(this.directory, NEW_FILE)
    const log = await startFile(this.#files, path, first).catch(error => {
      throw storageError(error, path)
    })
    let renamed = false
    try {
      const known = new Set<string>()
      for (let i = 0; i < all.length; i += COPIED_AT_ONCE)
        await log.append(
          all.slice(i, i + COPIED_AT_ONCE).map(change => encodeChange(change, known)),
          { sync: false },
        )
      await log.sync()
      await this.#batches.alone(async () => {
        const bodies = this.#meanwhile!.map(change => encodeChange(change, known))
        if (bodies.length > 0) await log.append(bodies)
        await log.rename(this.#log.path)
        renamed = true
        const old = this.#log
        this.#log = log
        this.#schema = REGISTRY_SCHEMA
        this.#known = known
        this.#nameUnsure = true
        await old.close()
        await this.#settleName()
      })
    } catch (error) {
      if (!renamed) {
        await log.close()
        await this.#files.remove(log.path).catch(() => {})
      }
      throw storageError(error, log.path)
    }
  }
}

/** A file with its first line, on the disk. What lies there is an unfinished one, and goes. */
async function startFile(files: Files, path: string, first: Header): Promise<LineLog> {
  await files.remove(path)
  const log = await LineLog.create(files, path)
  try {
    await log.append([asciiJson(first)])
    return log
  } catch (error) {
    await log.close()
    await files.remove(path).catch(() => {})
    throw error
  }
}

interface Opened {
  readonly log: LineLog
  readonly header: Header
  readonly torn: Torn | undefined
}

/**
 * Where there are other files of ours the registry was there and is lost: numbers that it gave must
 * not be given again.
 */
async function firstRegistry(files: Files, directory: string): Promise<Opened> {
  const others = (await files.list(directory)).filter(
    name => name.startsWith('audit') || name.startsWith(`${REGISTRY_FILE}.damaged`),
  )
  if (others.length > 0)
    throw new FormatError(
      'state file',
      `${join(directory, REGISTRY_FILE)} is missing, but ${others[0]} is there`,
      {
        reason: 'state-damaged',
        context: { path: join(directory, REGISTRY_FILE) },
      },
    )
  const first = { registry: REGISTRY_SCHEMA, nextLoan: 1, nextRequest: 1 }
  return { log: await newRegistry(files, directory, first), header: first, torn: undefined }
}

async function newRegistry(files: Files, directory: string, first: Header): Promise<LineLog> {
  const log = await startFile(files, join(directory, NEW_FILE), first)
  try {
    await log.rename(join(directory, REGISTRY_FILE))
    await files.syncDirectory(directory)
    return log
  } catch (error) {
    await log.close()
    throw error
  }
}

/** Undefined: there is none yet. */
async function readRegistry(files: Files, path: string, records: Records): Promise<Opened | undefined> {
  let found: Header | undefined
  let nextLoan = 1
  let nextRequest = 1
  try {
    const { log, torn } = await LineLog.open(files, path, ({ number: line, body }, offset) => {
      try {
        if (found === undefined) {
          found = readHeader(body, path)
          nextLoan = found.nextLoan
          nextRequest = found.nextRequest
          return
        }
        const change = decodeChange(body, records.policies)
        const objection = records.objection(change)
        if (objection !== undefined) throw objection
        records.apply(change)
        nextLoan = Math.max(nextLoan, (change.loan?.id ?? 0) + 1)
        nextRequest = Math.max(nextRequest, (change.request?.id ?? 0) + 1)
      } catch (error) {
        if (error instanceof NotSupportedError) throw error
        throw damaged(path, offset, line, (error as Error).message)
      }
    })
    return { log, header: { registry: found?.registry ?? REGISTRY_SCHEMA, nextLoan, nextRequest }, torn }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function readHeader(body: string, path: string): Header {
  const value: unknown = JSON.parse(body)
  const schema = (value as { registry?: unknown } | null)?.registry
  if (typeof schema === 'number' && !(schema >= 1 && schema <= REGISTRY_SCHEMA))
    throw new NotSupportedError(
      `${path} is of schema ${schema}, and this version reads schema 1 to ${REGISTRY_SCHEMA}`,
      { reason: 'state-schema', context: { path, found: schema, wanted: REGISTRY_SCHEMA } },
    )
  return header(value, 'header')
}

export interface Recovered {
  /** Where the damaged file is now; undefined: there was none. */
  readonly aside: string | undefined
  readonly nextLoan: number
  readonly nextRequest: number
}

/** Numbers that may have been given in what cannot be read any more. */
const LOST_NUMBERS = 10_000

/**
 * Sets a registry aside that cannot be read, and begins a new one without any loan. Its numbers
 * begin far behind all that can still be found, in it and in the audit. ConflictError: a daemon has
 * the directory.
 */
export async function recoverRegistry(
  directory: string,
  { files = REAL_FILES, now = Date.now }: { files?: Files; now?: () => number } = {},
): Promise<Recovered> {
  const path = join(directory, REGISTRY_FILE)
  try {
    const lock = await holdDirectory(files, directory)
    try {
      const names = await files.list(directory)
      const highest = { loan: 0, request: 0 }
      for (const name of names)
        if (name.endsWith('.jsonl') || name.startsWith(`${REGISTRY_FILE}.damaged`))
          await findNumbers(files, join(directory, name), highest)
      const nextLoan = highest.loan + LOST_NUMBERS
      const nextRequest = highest.request + LOST_NUMBERS
      const first = { registry: REGISTRY_SCHEMA, nextLoan, nextRequest }
      let aside: string | undefined
      if (names.includes(REGISTRY_FILE)) {
        aside = freeName(names, `${path}.damaged-${new Date(now()).toISOString().replace(/[:.]/g, '-')}`)
        await files.rename(path, aside)
      }
      const log = await newRegistry(files, directory, first)
      await log.close()
      return { aside, nextLoan, nextRequest }
    } finally {
      await lock.close()
    }
  } catch (error) {
    throw storageError(error, path)
  }
}

function freeName(names: readonly string[], wanted: string): string {
  const base = wanted.slice(wanted.lastIndexOf('/') + 1)
  for (let i = 0; ; i++) {
    const suffix = i === 0 ? '' : `-${i}`
    if (!names.includes(base + suffix)) return wanted + suffix
  }
}

/** In whatever can be read: records of the registry, and lines of the audit. */
async function findNumbers(
  files: Files,
  path: string,
  highest: { loan: number; request: number },
): Promise<void> {
  const file = await files.open(path, 'read')
  const see = (what: 'loan' | 'request', value: unknown): void => {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value < Number.MAX_SAFE_INTEGER / 2)
      highest[what] = Math.max(highest[what], value)
  }
  try {
    for await (const { text } of linesOf(file)) {
      for (const [, what, digits] of text.matchAll(/"(loan|request)-([1-9][0-9]{0,9})"/g))
        see(what as 'loan' | 'request', Number(digits))
      const line = decodeLine(text)
      if (line === undefined) continue
      const body = JSON.parse(line.body) as Record<string, Record<string, unknown> | number>
      for (const what of ['loan', 'request'] as const)
        if (typeof body[what] === 'object') see(what, body[what]['id'])
      if (typeof body['nextLoan'] === 'number') see('loan', body['nextLoan'] - 1)
      if (typeof body['nextRequest'] === 'number') see('request', body['nextRequest'] - 1)
    }
  } finally {
    await file.close()
  }
}
