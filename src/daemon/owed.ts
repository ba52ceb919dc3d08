/**
 * What was done and could not be written down. To take away, and to end, waits for no disk: it is
 * done, and the lines that tell of it are written when they can be.
 */
import { type BpftokenError, ConflictError, InputError } from '../errors.ts'
import type { Audit } from '../registry/audit.ts'
import type { AuditEntry } from '../registry/audit-record.ts'
import type { LoanRecord, RequestRecord } from '../registry/loan-record.ts'
import type { LoanBook } from './loan-book.ts'
import type { Log } from './parts.ts'

const RETRY_MS = 30_000
/** What is more is counted. */
const MAX_RECORDS = 1000

type Writing = Pick<Audit, 'append'>

export class Owed implements Disposable {
  readonly #book: Pick<LoanBook, 'put' | 'inTurn' | 'registry'>
  readonly #audit: Writing
  readonly #wall: () => string
  readonly #log: Log
  readonly #loans = new Map<number, LoanRecord>()
  readonly #requests = new Map<number, RequestRecord>()
  #records: AuditEntry[] = []
  #dropped = 0
  #fault: string | undefined
  #timer: NodeJS.Timeout | undefined
  #settling: Promise<void> | undefined
  #stopped = false

  constructor(
    book: Pick<LoanBook, 'put' | 'inTurn' | 'registry'>,
    audit: Writing,
    wall: () => string,
    log: Log,
  ) {
    this.#book = book
    this.#audit = audit
    this.#wall = wall
    this.#log = log
  }

  /** How it is, where the registry does not have it so yet. */
  loan(id: number): LoanRecord | undefined {
    return this.#loans.get(id)
  }

  request(id: number): RequestRecord | undefined {
    return this.#requests.get(id)
  }

  /** In a sentence; undefined: all is written. */
  get concern(): string | undefined {
    const lines = this.#loans.size + this.#requests.size
    const records = this.#records.length + this.#dropped
    if (lines + records === 0) return undefined
    return `${lines} changes and ${records} records of what was done are not on the disk: ${this.#fault}`
  }

  /** A record of the audit of what is done whether it can be told or not. Does not throw. */
  async note(entry: AuditEntry): Promise<void> {
    if (this.#records.length === 0) {
      try {
        await this.#audit.append(entry)
        return
      } catch (error) {
        this.#failed(error, `the record ${entry.event} could not be written`)
        if (error instanceof InputError) return
      }
    }
    const late = { ...entry, facts: { ...entry.facts, happened: this.#wall() } }
    if (this.#records.length < MAX_RECORDS) this.#records.push(late)
    else this.#dropped++
    this.#later()
  }

  /** A loan that ends, as it is by now; also where that is not on the disk. */
  async putLoan(loan: LoanRecord): Promise<LoanRecord> {
    try {
      const kept = await this.#book.put(loan)
      this.#loans.delete(loan.id)
      return kept
    } catch (error) {
      if (isRefused(error)) throw error
      this.#failed(error, `that loan-${loan.id} is ${loan.state} could not be written`)
      this.#loans.set(loan.id, loan)
      this.#later()
      return loan
    }
  }

  /** A request that is over. */
  async putRequest(request: RequestRecord): Promise<void> {
    try {
      await this.#book.registry.put({ request })
      this.#requests.delete(request.id)
    } catch (error) {
      if (isRefused(error)) throw error
      this.#failed(error, `that request-${request.id} is ${request.state} could not be written`)
      this.#requests.set(request.id, request)
      this.#later()
    }
  }

  /** Writes what can be written now. Does not throw. */
  settle(): Promise<void> {
    this.#settling ??= this.#settle().finally(() => {
      this.#settling = undefined
    })
    return this.#settling
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  async #settle(): Promise<void> {
    try {
      for (const id of [...this.#loans.keys()])
        await this.#book.inTurn(id, () => this.#write(this.#loans, id, loan => this.#book.put(loan)))
      for (const id of [...this.#requests.keys()])
        await this.#write(this.#requests, id, request => this.#book.registry.put({ request }))
      while (this.#records.length > 0) {
        try {
          await this.#audit.append(this.#records[0]!)
        } catch (error) {
          if (!isRefused(error)) throw error
          this.#dropped++
        }
        this.#records.shift()
      }
      if (this.#dropped > 0) {
        await this.#audit.append({ event: 'audit.missing', facts: { records: this.#dropped } })
        this.#dropped = 0
      }
    } catch (error) {
      this.#fault = (error as Error).message
      this.#later()
    }
  }

  /** It is as it was put last: what came in between has seen to it. */
  async #write<T>(owed: Map<number, T>, id: number, put: (record: T) => Promise<unknown>): Promise<void> {
    const record = owed.get(id)
    if (record === undefined) return
    try {
      await put(record)
    } catch (error) {
      if (!isRefused(error)) throw error
    }
    if (owed.get(id) === record) owed.delete(id)
  }

  #failed(error: unknown, what: string): void {
    this.#fault = (error as Error).message
    this.#log.error({ error }, `${what}: it is tried again`)
  }

  #later(): void {
    if (this.#stopped || this.#timer !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.settle()
    }, RETRY_MS).unref()
  }
}

/** It cannot be written whatever room there is. */
function isRefused(error: unknown): error is BpftokenError {
  return error instanceof ConflictError || error instanceof InputError
}
