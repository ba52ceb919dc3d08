/**
 * The progress of a command that takes long. On a terminal it is one line of stderr that is written
 * anew; elsewhere a line for each step, at most one a second. With --quiet there is none, and with
 * --json there is none either, because stderr is for errors then.
 */
import { note, rewrite, spoken, stderrIsTerminal } from './output.ts'

/** Commands that end sooner show no progress. */
const PATIENCE_MS = 1000
const REDRAW_MS = 100
const LINE_MS = 1000

export interface ProgressOptions {
  /** How many steps there will be, where that is known. */
  readonly total?: number
  /** Tell of the first step at once: it is known to take long. */
  readonly atOnce?: boolean
  /** For tests. */
  readonly now?: () => number
}

export class Progress implements Disposable {
  readonly #total: number | undefined
  readonly #now: () => number
  readonly #silent = spoken().quiet === true || spoken().json === true
  readonly #onTerminal = stderrIsTerminal()
  #next: number
  #steps = 0
  #drawn = false

  constructor({ total, atOnce = false, now = () => performance.now() }: ProgressOptions = {}) {
    this.#total = total
    this.#now = now
    this.#next = now() + (atOnce ? 0 : PATIENCE_MS)
  }

  /** Before a step is done: what it does. */
  step(what: string): void {
    this.#steps++
    if (this.#silent || this.#now() < this.#next) return
    this.#next = this.#now() + (this.#onTerminal ? REDRAW_MS : LINE_MS)
    const text = this.#total === undefined ? what : `${this.#steps} of ${this.#total}: ${what}`
    if (this.#onTerminal) rewrite(text)
    else note(text)
    this.#drawn = this.#onTerminal
  }

  /** All is done, or has failed: the terminal's line is clean again. */
  [Symbol.dispose](): void {
    if (this.#drawn) rewrite('')
    this.#drawn = false
  }
}
