/**
 * What is kept of what is over, by whose it is: so many of each owner, and so many in all. Where all
 * of it is too much, the owner that has the most loses its oldest: so nobody can push out what is
 * another's by having more. Pure.
 */
export class Shares<K> {
  readonly #perOwner: number
  readonly #inAll: number
  /** Whose each is; the oldest first. */
  readonly #owners = new Map<K, string>()
  /** The oldest of each owner first. */
  readonly #keys = new Map<string, Set<K>>()

  constructor(perOwner: number, inAll: number) {
    this.#perOwner = perOwner
    this.#inAll = inAll
  }

  get size(): number {
    return this.#owners.size
  }

  /** The oldest first. */
  keys(): IterableIterator<K> {
    return this.#owners.keys()
  }

  /** Those that are kept no more. One that is here already stays where it is. */
  add(key: K, owner: string): K[] {
    if (this.#owners.has(key)) return []
    this.#owners.set(key, owner)
    const own = this.#keys.get(owner) ?? new Set()
    this.#keys.set(owner, own.add(key))
    const dropped: K[] = []
    while (own.size > this.#perOwner) dropped.push(this.#dropOldest(own))
    while (this.#owners.size > this.#inAll) dropped.push(this.#dropOldest(this.#largest()))
    return dropped
  }

  delete(key: K): boolean {
    const owner = this.#owners.get(key)
    if (owner === undefined) return false
    this.#owners.delete(key)
    const own = this.#keys.get(owner)!
    own.delete(key)
    if (own.size === 0) this.#keys.delete(owner)
    return true
  }

  #dropOldest(own: ReadonlySet<K>): K {
    for (const key of own) {
      this.delete(key)
      return key
    }
    throw new RangeError('there is none')
  }

  #largest(): ReadonlySet<K> {
    let largest: ReadonlySet<K> = new Set()
    for (const own of this.#keys.values()) if (own.size > largest.size) largest = own
    return largest
  }
}
