/**
 * Events of the guard: folded, bounded in memory and on disk, and asked for as often as anybody
 * likes. They are no audit: the last second before a crash may be lost, a disk that takes no more
 * loses what does not fit in memory, and both are counted where they can be. So a disk that takes no
 * more keeps nobody from starting: the file is begun with the first events that can be written.
 *
 * Two files: when the one that grows is full it becomes the old one, and what the old one had is
 * forgotten, in memory too. A line is an event as it is by then; a later line with the same number
 * takes its place.
 */
import { join } from 'node:path'
import { FormatError } from '../errors.ts'
import { codeOf, type Files, type OpenFile, REAL_FILES } from './files.ts'
import { type Followed, Follower } from './follower.ts'
import { boundedFacts, foldingKey, type GuardEventFacts, type KeptEvent, keptEvent } from './guard-event.ts'
import { asciiJson, decodeLine, type Line } from './line.ts'
import { LineLog } from './line-log.ts'
import { linesOf } from './lines-of.ts'
import { refusesWrites, storageError } from './storage-error.ts'

const EVENTS_FILE = 'events.jsonl'
const OLD_FILE = 'events.old.jsonl'
const NEW_FILE = 'events.jsonl.new'

export interface EventStoreOptions {
  readonly files?: Files
  /** Of each of the two files. */
  readonly maxBytes?: number
  /** How many events are kept at most, on whichever disk. */
  readonly maxEvents?: number
  readonly foldMs?: number
  /** How long what is new waits for company before it is written. 0: `flush` alone writes. */
  readonly writeMs?: number
}

export interface EventQuery {
  /** Events that happened then or later. In milliseconds since 1970. */
  readonly since?: number | undefined
  readonly after?: number | undefined
  readonly delegation?: number | undefined
  readonly uid?: number | undefined
  readonly reason?: string | undefined
  readonly limit?: number | undefined
}

export interface EventPage {
  readonly events: readonly KeptEvent[]
  /** To go on: the number to ask for those after. */
  readonly next: number
}

interface Fold {
  /** By the clock that nobody sets. */
  readonly startedMs: number
  readonly seq: number
}

const MAX_FOLDS = 4096
const FOLLOWER_BOUND = 1000
const DEFAULT_LIMIT = 1000

export class EventStore {
  readonly #directory: string
  readonly #files: Files
  readonly #maxBytes: number
  readonly #maxEvents: number
  readonly #foldMs: number
  readonly #writeMs: number
  /** By number, which grows. */
  readonly #events: Map<number, KeptEvent>
  readonly #folds = new Map<string, Fold>()
  readonly #followers = new Set<{ follower: Follower<KeptEvent>; query: EventQuery }>()
  /** Numbers of those that the file does not have as they are. */
  readonly #unwritten = new Set<number>()
  /** Undefined: it could not be begun yet. */
  #log: LineLog | undefined
  #nextSeq: number
  /** Of the first event that only the file that grows has. */
  #firstOfLog: number
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #fault: string | undefined
  #closed = false
  /** Lines that could not be read back. */
  readonly damaged: number

  private constructor(
    directory: string,
    options: EventStoreOptions,
    opened: { log: LineLog | undefined; events: Map<number, KeptEvent>; firstOfLog: number; damaged: number },
  ) {
    this.#directory = directory
    this.#files = options.files ?? REAL_FILES
    this.#maxBytes = options.maxBytes ?? 4 * 1024 * 1024
    this.#maxEvents = options.maxEvents ?? 32_768
    this.#foldMs = options.foldMs ?? 60_000
    this.#writeMs = options.writeMs ?? 1000
    this.#events = opened.events
    this.#log = opened.log
    this.#firstOfLog = opened.firstOfLog
    this.damaged = opened.damaged
    this.#nextSeq = greatest(opened.events.keys()) + 1
  }

  /**
   * Reads what is there; damaged lines are left out and counted. A file that is not there, or must
   * be written anew, and that the disk refuses, is begun when it can be. The directory is held by
   * whoever opened the registry in it.
   */
  static async open(directory: string, options: EventStoreOptions = {}): Promise<EventStore> {
    const { files = REAL_FILES } = options
    try {
      const old = await readable(files, join(directory, OLD_FILE))
      const { log, events, damaged, refused } = await openLog(files, directory)
      const all = [...old.events, ...events].sort(([a], [b]) => a - b)
      const store = new EventStore(directory, options, {
        log,
        events: new Map(all),
        firstOfLog: greatest(old.events.keys()) + 1,
        damaged: old.damaged + damaged,
      })
      if (refused !== undefined) {
        store.#fault = refused.message
        // What could be read of a file that must be written anew.
        for (const seq of events.keys()) store.#unwritten.add(seq)
      }
      return store
    } catch (error) {
      throw storageError(error, join(directory, EVENTS_FILE))
    }
  }

  /** Why the last write failed; undefined: it did not. */
  get fault(): string | undefined {
    return this.#fault
  }

  get size(): number {
    return this.#events.size
  }

  /**
   * Keeps an event, or counts it with one like it. `at`: milliseconds since 1970. `sinceBootMs`: by
   * the guard's clock, which no one sets; by it events are folded.
   */
  add(raw: GuardEventFacts, when: { readonly at: number; readonly sinceBootMs: number }): KeptEvent {
    const facts = boundedFacts(raw)
    const key = foldingKey(facts)
    const at = new Date(when.at).toISOString()
    const fold = this.#folds.get(key)
    const before = fold && this.#events.get(fold.seq)
    const isNear = fold !== undefined && when.sinceBootMs - fold.startedMs < this.#foldMs
    const event: KeptEvent =
      before !== undefined && isNear
        ? { ...before, last: at, count: before.count + 1 }
        : { seq: this.#nextSeq++, first: at, last: at, count: 1, ...facts }
    if (event.seq !== fold?.seq) this.#beginFold(key, { startedMs: when.sinceBootMs, seq: event.seq })
    this.#events.set(event.seq, event)
    this.#unwritten.add(event.seq)
    this.#bound()
    for (const { follower, query } of this.#followers) if (matches(event, query)) follower.push(event)
    this.#writeSoon()
    return event
  }

  /** Events by number, the oldest first. Nothing is consumed. */
  query(query: EventQuery = {}): EventPage {
    const { after = 0, limit = DEFAULT_LIMIT } = query
    const events: KeptEvent[] = []
    let next = after
    for (const event of this.#events.values()) {
      if (event.seq <= after) continue
      if (events.length >= limit) return { events, next }
      next = event.seq
      if (matches(event, query)) events.push(event)
    }
    return { events, next }
  }

  /**
   * Events as they come, each also when it is counted again, until `signal` is aborted. Who reads
   * slowly loses the oldest of those that wait, and is told how many. With `after`, first those
   * that are kept.
   */
  async *follow(query: EventQuery, signal: AbortSignal): AsyncGenerator<Followed<KeptEvent>> {
    const follower = new Follower<KeptEvent>(FOLLOWER_BOUND)
    const reader = { follower, query: { ...query, after: undefined } }
    const end = (): void => follower.end()
    if (signal.aborted || this.#closed) return
    const kept = query.after === undefined ? [] : this.query({ ...query, limit: this.#maxEvents }).events
    this.#followers.add(reader)
    signal.addEventListener('abort', end)
    try {
      for (const item of kept) {
        if (signal.aborted) return
        yield { item, lost: 0 }
      }
      yield* follower.items()
    } finally {
      signal.removeEventListener('abort', end)
      this.#followers.delete(reader)
    }
  }

  /** Writes what is not written yet. Failure is told by `fault` alone: events are not promised. */
  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const { follower } of this.#followers) follower.end()
    await this.flush()
    await this.#log?.close()
  }

  #beginFold(key: string, fold: Fold): void {
    this.#folds.delete(key)
    this.#folds.set(key, fold)
    if (this.#folds.size > MAX_FOLDS) this.#folds.delete(this.#folds.keys().next().value!)
  }

  #bound(): void {
    for (const seq of this.#events.keys()) {
      if (this.#events.size <= this.#maxEvents) return
      this.#forget(seq)
    }
  }

  #forget(seq: number): void {
    this.#events.delete(seq)
    this.#unwritten.delete(seq)
  }

  #writeSoon(): void {
    if (this.#writeMs > 0) this.#timer ??= setTimeout(() => void this.flush(), this.#writeMs).unref()
  }

  async #write(): Promise<void> {
    const seqs = [...this.#unwritten].sort((a, b) => a - b)
    if (seqs.length === 0) return
    const events = seqs.map(seq => this.#events.get(seq)!)
    // Those that come from now on, or change, are for the next time.
    this.#unwritten.clear()
    try {
      this.#log ??= await beginLog(this.#files, this.#directory)
      for (let i = 0; i < events.length; i += 256) {
        if (this.#log.size >= this.#maxBytes) this.#log = await this.#rotate(this.#log, events[i]!.seq)
        await this.#log.append(
          events.slice(i, i + 256).map(event => asciiJson(event)),
          { sync: false },
        )
      }
      this.#fault = undefined
    } catch (error) {
      for (const seq of seqs) if (this.#events.has(seq)) this.#unwritten.add(seq)
      this.#fault = (error as Error).message
    }
  }

  /** The log that grows from now on. */
  async #rotate(old: LineLog, next: number): Promise<LineLog> {
    const log = await newLog(this.#files, this.#directory)
    try {
      await old.rename(join(this.#directory, OLD_FILE))
      await log.rename(join(this.#directory, EVENTS_FILE))
    } catch (error) {
      await log.close()
      throw error
    }
    await old.close()
    const forgotten = this.#firstOfLog
    this.#firstOfLog = next
    for (const seq of this.#events.keys()) {
      if (seq >= forgotten) break
      this.#forget(seq)
    }
    return log
  }
}

function matches(event: KeptEvent, query: EventQuery): boolean {
  const { since, delegation, uid, reason } = query
  return (
    (since === undefined || Date.parse(event.last) >= since) &&
    (delegation === undefined || event.delegation === delegation) &&
    (uid === undefined || event.uid === uid) &&
    (reason === undefined || event.reason === reason)
  )
}

function greatest(numbers: Iterable<number>): number {
  let found = 0
  for (const number of numbers) found = Math.max(found, number)
  return found
}

/** Under another name, with what is to be in it. */
async function newLog(files: Files, directory: string, events: Iterable<KeptEvent> = []): Promise<LineLog> {
  const path = join(directory, NEW_FILE)
  await files.remove(path)
  const log = await LineLog.create(files, path)
  try {
    await log.append([asciiJson({ events: 1 })])
    const kept = [...events]
    if (kept.length > 0) await log.append(kept.map(event => asciiJson(event)))
    return log
  } catch (error) {
    await log.close()
    throw error
  }
}

/** What lies there has nothing that is not in `events`. */
async function beginLog(files: Files, directory: string, events: Iterable<KeptEvent> = []): Promise<LineLog> {
  const log = await newLog(files, directory, events)
  try {
    await log.rename(join(directory, EVENTS_FILE))
    return log
  } catch (error) {
    await log.close()
    throw error
  }
}

interface Read {
  readonly events: Map<number, KeptEvent>
  readonly damaged: number
}

/** A file that is damaged is written anew, with what of it can be read. */
async function openLog(
  files: Files,
  directory: string,
): Promise<Read & { log: LineLog | undefined; refused?: Error }> {
  const path = join(directory, EVENTS_FILE)
  let read: Read = { events: new Map(), damaged: 0 }
  try {
    const events = new Map<number, KeptEvent>()
    const { log, torn } = await LineLog.open(files, path, line => {
      const event = eventIn(line)
      if (event !== undefined) events.set(event.seq, event)
    })
    return { log, events, damaged: torn === undefined ? 0 : 1 }
  } catch (error) {
    if (error instanceof FormatError) read = await readable(files, path)
    else if (codeOf(error) !== 'ENOENT') throw error
  }
  try {
    return { log: await beginLog(files, directory, read.events.values()), ...read }
  } catch (error) {
    if (!refusesWrites(error)) throw error
    return { log: undefined, ...read, refused: storageError(error, path) as Error }
  }
}

/** What of the file can be read, however damaged it is. */
async function readable(files: Files, path: string): Promise<Read> {
  const events = new Map<number, KeptEvent>()
  let damaged = 0
  let file: OpenFile
  try {
    file = await files.open(path, 'read')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { events, damaged }
    throw error
  }
  try {
    for await (const { text, complete } of linesOf(file)) {
      const line = complete ? decodeLine(text) : undefined
      try {
        const event = line && eventIn(line)
        if (event !== undefined) events.set(event.seq, event)
        else if (line === undefined) damaged++
      } catch {
        damaged++
      }
    }
  } finally {
    await file.close()
  }
  return { events, damaged }
}

/** Undefined: it is the first line. FormatError: it is no event. */
function eventIn({ number, body }: Line): KeptEvent | undefined {
  return number === 1 ? undefined : keptEvent(JSON.parse(body), 'line')
}
