/**
 * The audit: what was asked, decided and done, by whom. It only grows, and each record holds the
 * hash of the one before. docs/state.md says what such a chain proves and what not.
 *
 * The directory is held by whoever opened the registry in it.
 */

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { type AuditVerdict, verifyAudit } from './audit-chain.ts'
import {
  AUDIT_FILE,
  type AuditFile,
  auditFiles,
  auditLines,
  fullFileName,
  lastRecord,
  lastRecordOf,
  NEW_AUDIT_FILE,
} from './audit-files.ts'
import { AuditFolds } from './audit-folds.ts'
import {
  type AuditEntry,
  type AuditHead,
  type AuditRecord,
  encodeRecord,
  MAX_RECORD_BYTES,
  NO_HEAD,
} from './audit-record.ts'
import { Batches, type Waiting } from './batches.ts'
import { type Files, type OpenFile, REAL_FILES } from './files.ts'
import { refusesWrites, storageError } from './storage-error.ts'
import { TailFile } from './tail-file.ts'

export interface AuditOptions {
  readonly files?: Files
  /** A file that has reached this is left, and another begun. */
  readonly maxBytes?: number
  readonly now?: () => number
}

export interface AuditQuery {
  /** Of records from then on, by the clock of their time. In milliseconds since 1970. */
  readonly since?: number | undefined
  /** Only records with a higher number. */
  readonly after?: number | undefined
  readonly loan?: number | undefined
  readonly limit?: number | undefined
}

export interface AuditPage {
  readonly records: readonly AuditRecord[]
  /** To go on: the number to ask for those after. */
  readonly next: number
}

const DEFAULT_MAX_BYTES = 16 * 1024 * 1024
const DEFAULT_LIMIT = 1000
/** What is written at once: so much of a file can be lost when the machine stops, and no more. */
const MAX_WRITE_BYTES = 512 * 1024
const MAX_TORN_BYTES = MAX_WRITE_BYTES + 2 * MAX_RECORD_BYTES
const SHOWN_OF_TORN = 2000

interface Pending {
  readonly entry: AuditEntry
  readonly at: string
  readonly told: (record: AuditRecord) => void
}

export class Audit {
  readonly directory: string
  readonly #files: Files
  readonly #maxBytes: number
  readonly #now: () => number
  readonly #batches = new Batches<Pending>(batch => this.#write(batch))
  readonly #folds = new AuditFolds(
    entry => this.append(entry),
    () => this.#now(),
  )
  /** Undefined: it could not be begun yet. */
  #file: TailFile | undefined
  #head: AuditHead
  /** Number of the first record of the file that grows. */
  #first: number
  /** Names have changed, but perhaps not on the disk. */
  #namesUnsure = false
  #nameChanges = 0
  #closed = false
  #fault: string | undefined
  readonly #listeners = new Set<(record: AuditRecord) => void>()
  /** Number of the last record that was there when it was opened. */
  readonly startsAfter: number

  private constructor(
    directory: string,
    options: AuditOptions,
    opened: { file: TailFile | undefined; head: AuditHead; first: number; isNew: boolean },
  ) {
    this.directory = directory
    this.startsAfter = opened.head.seq - (opened.isNew ? 1 : 0)
    this.#files = options.files ?? REAL_FILES
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES
    this.#now = options.now ?? Date.now
    this.#file = opened.file
    this.#head = opened.head
    this.#first = opened.first
  }

  /**
   * Goes on behind the last record that can be read. What lies behind it was being written when we,
   * or the machine, died: it is cut off, and a record says so. More than that, or a file without
   * any record, is set aside unchanged, and a record says so too. Where that takes a write that the
   * disk refuses, it is done before the first record that can be written.
   */
  static async open(directory: string, options: AuditOptions = {}): Promise<Audit> {
    const { files = REAL_FILES, now = Date.now } = options
    try {
      const found = await openTail(files, directory, now).catch(error => unbegun(files, directory, error))
      const audit = new Audit(directory, options, found)
      if ('error' in found) audit.#fault = (found.error as Error).message
      // Where it cannot be written now, nothing else can either; it is told again at the next start.
      for (const entry of found.entries) await audit.append(entry).catch(() => {})
      return audit
    } catch (error) {
      throw storageError(error, join(directory, AUDIT_FILE))
    }
  }

  /** Of the last record that is on the disk. To keep it elsewhere is what makes the chain a proof. */
  get head(): AuditHead {
    return this.#head
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
   * Returns the record when it is on the disk. Records are in the order of the calls. To have one
   * behind a line of the registry, wait for that first. SyscallError: it could not be written, and
   * is not there. InputError: it is longer than 64 KiB.
   */
  async append(entry: AuditEntry): Promise<AuditRecord> {
    if (this.#closed) throw new Error('the audit is closed')
    let record: AuditRecord | undefined
    const told = (made: AuditRecord): void => {
      record = made
    }
    await this.#batches.push({ entry, at: new Date(this.#now()).toISOString(), told })
    return record!
  }

  /**
   * The same of what somebody could have written as often as they like, without its record: of those
   * with one key within a minute the first is written, and then the last, with how many came.
   */
  async appendFolded(key: string, entry: AuditEntry): Promise<void> {
    if (this.#closed) throw new Error('the audit is closed')
    await this.#folds.tell(key, entry)
  }

  /** Records in their order. Damaged ones are left out: `verifyAudit` finds them. */
  async query({ since, after = 0, loan, limit = DEFAULT_LIMIT }: AuditQuery = {}): Promise<AuditPage> {
    const records: AuditRecord[] = []
    const name = loan === undefined ? undefined : `loan-${loan}`
    let next = after
    for await (const { record } of this.#from(after)) {
      if (records.length >= limit) return { records, next }
      next = record.seq
      if (since !== undefined && !(Date.parse(record.at) >= since)) continue
      if (name === undefined || record.loan === name) records.push(record)
    }
    return { records, next }
  }

  /** Lines as they are in the files, without their ends. */
  async *export({ since, after = 0 }: { since?: number; after?: number } = {}): AsyncGenerator<string> {
    for await (const { text, record } of this.#from(after))
      if (since === undefined || Date.parse(record.at) >= since) yield text
  }

  async verify(known?: AuditHead): Promise<AuditVerdict> {
    for (;;) {
      const changes = this.#nameChanges
      const options = { files: this.#files, upTo: this.#head.seq, known }
      const verdict = await verifyAudit(this.directory, options)
      // Files that change their names meanwhile look like a gap.
      if (verdict.intact || changes === this.#nameChanges) return verdict
    }
  }

  /**
   * Told of each record that was appended, once it is on the disk, until the function that this gives
   * is called. Of records of its own, such as those that begin a file, a gap in the numbers tells.
   */
  onRecord(listener: (record: AuditRecord) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    await this.#folds.flush().catch(() => {})
    this.#closed = true
    await this.#batches.idle()
    await this.#file?.close()
  }

  /**
   * Up to what is the last one now. Each file is looked for when its turn has come: the one that
   * grows may have another name by then.
   */
  async *#from(after: number): AsyncGenerator<{ text: string; record: AuditRecord }> {
    const { seq: last } = this.#head
    let seen = after
    const read = new Set<string>()
    listing: while (seen < last) {
      const changes = this.#nameChanges
      const all = (await auditFiles(this.#files, this.directory)).map(({ name, first = this.#first }) => ({
        name,
        first,
      }))
      const holding = all.findLast(({ first }) => first <= seen + 1)
      const file =
        holding !== undefined && !read.has(keyOf(holding)) ? holding : all.find(f => f.first > seen)
      if (file === undefined || read.has(keyOf(file))) return
      for await (const { text, record } of auditLines(this.#files, this.directory, file.name)) {
        if (!read.has(keyOf(file)) && changes !== this.#nameChanges) continue listing
        read.add(keyOf(file))
        if (record === undefined || record.seq <= seen) continue
        if (record.seq > last) return
        seen = record.seq
        yield { text, record }
      }
      read.add(keyOf(file))
    }
  }

  async #write(batch: readonly Waiting<Pending>[]): Promise<void> {
    let rest = batch
    try {
      const file = this.#file ?? (await this.#begin())
      while (rest.length > 0) {
        await this.#rotateIfFull(this.#file ?? file)
        rest = await this.#writeSome(rest, this.#file ?? file)
      }
    } catch (error) {
      this.#fault = (error as Error).message
      throw error
    }
    this.#fault = undefined
  }

  /** Those that are left. What was refused before stays refused. */
  async #writeSome(batch: readonly Waiting<Pending>[], into: TailFile): Promise<readonly Waiting<Pending>[]> {
    let head = this.#head
    let text = ''
    const made: { told: Pending['told']; record: AuditRecord }[] = []
    let taken = 0
    for (const { item, refuse } of batch) {
      if (text.length > MAX_WRITE_BYTES) break
      taken++
      try {
        const { record, text: line } = encodeRecord(item.entry, head, item.at, this.#head.seq + 1)
        head = record
        text += line
        made.push({ told: item.told, record })
      } catch (error) {
        refuse(error)
      }
    }
    if (text !== '') {
      await this.#settleNames()
      await into.append(text)
      this.#head = { seq: head.seq, hash: head.hash }
      for (const { told, record } of made) {
        told(record)
        for (const listener of this.#listeners) listener(record)
      }
    }
    return batch.slice(taken)
  }

  /** A new file is there before the full one gets its other name, or the full one grows on. */
  async #rotateIfFull(grown: TailFile): Promise<void> {
    if (grown.size < this.#maxBytes) return
    const full = fullFileName(this.#first)
    const current = join(this.directory, AUDIT_FILE)
    let started: { file: TailFile; record: AuditRecord } | undefined
    try {
      started = await startFile(this.#files, this.directory, continued(full), this.#head, this.#now)
      const { file, record } = started
      await grown.rename(join(this.directory, full))
      this.#nameChanges++
      try {
        await this.#files.syncDirectory(this.directory)
        await file.rename(current)
      } catch (error) {
        await grown.rename(current)
        throw error
      }
      this.#file = file
      this.#first = record.seq
      this.#head = headAt(record)
      this.#namesUnsure = true
      await grown.close()
    } catch {
      if (started === undefined || this.#file === started.file) return
      await started.file.close()
      await this.#files.remove(join(this.directory, NEW_AUDIT_FILE)).catch(() => {})
    }
  }

  /** What `open` could not do. */
  async #begin(): Promise<TailFile> {
    try {
      const { file, head, first, entries } = await openTail(this.#files, this.directory, this.#now)
      this.#file = file
      this.#head = head
      this.#first = first
      this.#nameChanges++
      for (const entry of entries) void this.append(entry).catch(() => {})
      return file
    } catch (error) {
      throw storageError(error, join(this.directory, AUDIT_FILE))
    }
  }

  async #settleNames(): Promise<void> {
    if (!this.#namesUnsure) return
    try {
      await this.#files.syncDirectory(this.directory)
    } catch (error) {
      throw storageError(error, this.directory)
    }
    this.#namesUnsure = false
  }
}

function keyOf({ name, first }: { name: string; first: number }): string {
  return `${name} ${first}`
}

/** Of an audit that cannot be begun, as the disk is; every other fault is thrown again. */
async function unbegun(files: Files, directory: string, error: unknown) {
  const fault = storageError(error, join(directory, AUDIT_FILE))
  if (!refusesWrites(fault)) throw error
  const head = await headOfFull(files, directory, await auditFiles(files, directory))
  return { file: undefined, head, first: head.seq + 1, isNew: false, entries: [], error: fault }
}

interface OpenedTail {
  readonly file: TailFile
  readonly head: AuditHead
  readonly first: number
  /** It was begun with a record, which is the head. */
  readonly isNew: boolean
  /** What is to be told in the audit itself. */
  readonly entries: readonly AuditEntry[]
}

async function openTail(files: Files, directory: string, now: () => number): Promise<OpenedTail> {
  const all = await auditFiles(files, directory)
  const path = join(directory, AUDIT_FILE)
  let entry: AuditEntry | undefined
  if (all.at(-1)?.first === undefined && all.length > 0) {
    const found = await openCurrent(files, path)
    if (found !== undefined) return found
    const aside = `audit-damaged-${new Date(now()).toISOString().replace(/[:.]/g, '-')}.txt`
    await files.rename(path, join(directory, aside))
    entry = { event: 'audit.damaged', facts: { file: aside } }
  }
  const full = await headOfFull(files, directory, all)
  entry ??= full.seq === 0 ? { event: 'audit.begun', facts: {} } : continued(all.findLast(isFull)!.name)
  const { file, record } = await startFile(files, directory, entry, full, now)
  try {
    await file.rename(path)
    await files.syncDirectory(directory)
  } catch (error) {
    await file.close()
    throw error
  }
  return { file, head: headAt(record), first: record.seq, isNew: true, entries: [] }
}

function isFull({ first }: AuditFile): boolean {
  return first !== undefined
}

function headAt({ seq, hash }: AuditRecord): AuditHead {
  return { seq, hash }
}

function continued(file: string): AuditEntry {
  return { event: 'audit.continued', facts: { file } }
}

/** A file that has its first record before it has its name, so that none is ever without. */
async function startFile(
  files: Files,
  directory: string,
  entry: AuditEntry,
  head: AuditHead,
  now: () => number,
): Promise<{ file: TailFile; record: AuditRecord }> {
  const path = join(directory, NEW_AUDIT_FILE)
  await files.remove(path)
  const file = await TailFile.create(files, path)
  try {
    const { record, text } = encodeRecord(entry, head, new Date(now()).toISOString())
    await file.append(text)
    return { file, record }
  } catch (error) {
    await file.close()
    await files.remove(path).catch(() => {})
    throw error
  }
}

/** The last record of the files that are full: of the last one, if it has any. */
async function headOfFull(files: Files, directory: string, all: readonly AuditFile[]): Promise<AuditHead> {
  for (const { name, first } of all.toReversed()) {
    if (first === undefined) continue
    const last = await lastRecordOf(files, join(directory, name))
    if (last !== undefined) return { seq: last.record.seq, hash: last.record.hash }
  }
  return NO_HEAD
}

/** Undefined: there is no record in it, or too much behind the last one. */
async function openCurrent(files: Files, path: string): Promise<OpenedTail | undefined> {
  let found: { head: AuditHead; first: number } | undefined
  let torn: AuditEntry | undefined
  const probe = await files.open(path, 'read')
  let end: number
  try {
    const last = await lastRecord(probe)
    const size = await probe.size()
    if (last === undefined || size - last.end > MAX_TORN_BYTES) return undefined
    end = last.end
    found = {
      head: { seq: last.record.seq, hash: last.record.hash },
      first: (await firstSeq(probe)) ?? last.record.seq,
    }
    if (size > end) torn = await tornEntry(probe, end, size)
  } finally {
    await probe.close()
  }
  const file = await TailFile.open(files, path, async () => end)
  return { file, ...found, isNew: false, entries: torn === undefined ? [] : [torn] }
}

async function firstSeq(file: OpenFile): Promise<number | undefined> {
  const head = (await file.read(0, 40)).toString('latin1')
  const found = /^\{"seq":([1-9][0-9]{0,14}),/.exec(head)
  return found === null ? undefined : Number(found[1])
}

async function tornEntry(file: OpenFile, from: number, size: number): Promise<AuditEntry> {
  const bytes = await file.read(from, size - from)
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  const text = bytes.toString('latin1', 0, SHOWN_OF_TORN)
  return { event: 'audit.cut', facts: { bytes: bytes.length, sha256, text } }
}
