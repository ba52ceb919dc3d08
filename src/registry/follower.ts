/** One reader of a stream of items, who may be slow: so many wait, and then the oldest are lost. Pure. */

export interface Followed<T> {
  readonly item: T
  /** How many were lost right before this one. */
  readonly lost: number
}

export class Follower<T> {
  readonly #bound: number
  #waiting: T[] = []
  #lost = 0
  #wake: (() => void) | undefined
  #ended = false

  constructor(bound: number) {
    this.#bound = bound
  }

  push(item: T): void {
    if (this.#ended) return
    if (this.#waiting.length >= this.#bound) {
      this.#waiting.shift()
      this.#lost++
    }
    this.#waiting.push(item)
    this.#wake?.()
  }

  /** What waits is still given. */
  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  async *items(): AsyncGenerator<Followed<T>> {
    for (;;) {
      const item = this.#waiting.shift()
      if (item !== undefined) {
        const lost = this.#lost
        this.#lost = 0
        yield { item, lost }
      } else if (this.#ended) return
      else
        await new Promise<void>(resolve => {
          this.#wake = resolve
        })
    }
  }
}
