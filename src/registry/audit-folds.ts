/**
 * Entries of one kind that come again and again: the first is written at once, those of the minute
 * behind it as one, with how many they were. So nobody fills the audit, or pushes others out of it.
 * A daemon that is killed loses that one.
 */
import type { AuditEntry } from './audit-record.ts'

const FOLD_MS = 60_000
/** Beyond these each entry is written by itself. */
const MAX_FOLDS = 4096

interface Fold {
  readonly timer: NodeJS.Timeout
  count: number
  first: string
  last: string
  entry: AuditEntry | undefined
}

export class AuditFolds {
  readonly #append: (entry: AuditEntry) => Promise<unknown>
  readonly #now: () => number
  readonly #folds = new Map<string, Fold>()

  constructor(append: (entry: AuditEntry) => Promise<unknown>, now: () => number) {
    this.#append = append
    this.#now = now
  }

  /** `key`: what is alike. Returns when it is on the disk, or counted. Throws as `append`. */
  async tell(key: string, entry: AuditEntry): Promise<void> {
    const fold = this.#folds.get(key)
    if (fold === undefined) {
      if (this.#folds.size < MAX_FOLDS) this.#begin(key)
      await this.#append(entry)
      return
    }
    const at = new Date(this.#now()).toISOString()
    if (fold.count++ === 0) fold.first = at
    fold.last = at
    fold.entry = entry
  }

  /** Writes what has been counted. */
  async flush(): Promise<void> {
    await Promise.all([...this.#folds.keys()].map(key => this.#end(key)))
  }

  #begin(key: string): void {
    // Where it cannot be written, nothing else can either; whoever asks next is told.
    const timer = setTimeout(() => void this.#end(key).catch(() => {}), FOLD_MS).unref()
    this.#folds.set(key, { timer, count: 0, first: '', last: '', entry: undefined })
  }

  async #end(key: string): Promise<void> {
    const fold = this.#folds.get(key)
    if (fold === undefined) return
    clearTimeout(fold.timer)
    this.#folds.delete(key)
    const { entry, count, first, last } = fold
    if (entry !== undefined)
      await this.#append({ ...entry, facts: { ...entry.facts, again: { count, first, last } } })
  }
}
