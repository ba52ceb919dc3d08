/**
 * Work of many users, a bounded part of it at one time: each user in turn, and none takes all of
 * the room. Pure. (`Turns` in src/sys is another thing: it bounds each name alone, and whoever waits
 * there may give up.)
 */

interface Waiting {
  start(): void
}

export class FairTurns {
  readonly #most: number
  readonly #mostOfOne: number
  /** By user, whose turn is next first. */
  readonly #waiting = new Map<string, Waiting[]>()
  readonly #running = new Map<string, number>()
  #count = 0

  constructor(most: number, mostOfOne: number) {
    this.#most = most
    this.#mostOfOne = mostOfOne
  }

  run<T>(owner: string, act: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const start = (): void => {
        void act()
          .then(resolve, reject)
          .finally(() => this.#ended(owner))
      }
      const own = this.#waiting.get(owner)
      if (own === undefined) this.#waiting.set(owner, [{ start }])
      else own.push({ start })
      this.#startNext()
    })
  }

  #ended(owner: string): void {
    this.#count--
    const left = this.#running.get(owner)! - 1
    if (left === 0) this.#running.delete(owner)
    else this.#running.set(owner, left)
    this.#startNext()
  }

  #startNext(): void {
    while (this.#count < this.#most) {
      const next = [...this.#waiting.keys()].find(owner => (this.#running.get(owner) ?? 0) < this.#mostOfOne)
      if (next === undefined) return
      const own = this.#waiting.get(next)!
      // The others come first now.
      this.#waiting.delete(next)
      const { start } = own.shift()!
      if (own.length > 0) this.#waiting.set(next, own)
      this.#count++
      this.#running.set(next, (this.#running.get(next) ?? 0) + 1)
      start()
    }
  }
}
