/**
 * Work of many users, a bounded part of it at one time: each user in turn, and none takes all of
 * the room. Pure.
 */

interface Waiting {
  start(): void
}

export class FairTurns {
  readonly #most: number
  readonly #mostOfOne: number
  /** By user, whose turn is next first. */
  readonly #waiting = new Map<number, Waiting[]>()
  readonly #running = new Map<number, number>()
  #count = 0

  constructor(most: number, mostOfOne: number) {
    this.#most = most
    this.#mostOfOne = mostOfOne
  }

  run<T>(uid: number, act: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const start = (): void => {
        void act()
          .then(resolve, reject)
          .finally(() => this.#ended(uid))
      }
      const own = this.#waiting.get(uid)
      if (own === undefined) this.#waiting.set(uid, [{ start }])
      else own.push({ start })
      this.#startNext()
    })
  }

  #ended(uid: number): void {
    this.#count--
    const left = this.#running.get(uid)! - 1
    if (left === 0) this.#running.delete(uid)
    else this.#running.set(uid, left)
    this.#startNext()
  }

  #startNext(): void {
    while (this.#count < this.#most) {
      const next = [...this.#waiting.keys()].find(uid => (this.#running.get(uid) ?? 0) < this.#mostOfOne)
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
