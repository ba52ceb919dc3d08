/** Things to dispose of together, the last one first. Node 20 has no DisposableStack. */
export class Owned implements Disposable {
  readonly #all: Disposable[] = []

  /** Takes ownership of `one` and gives it back. */
  add<T extends Disposable>(one: T): T {
    this.#all.push(one)
    return one
  }

  /** All that is owned here is owned by `other` from now on. */
  moveTo(other: Owned): void {
    for (const one of this.#all.splice(0)) other.add(one)
  }

  /** Of all of them, also if one throws; the first error is thrown in the end. */
  [Symbol.dispose](): void {
    const errors: unknown[] = []
    for (const one of this.#all.splice(0).reverse()) {
      try {
        one[Symbol.dispose]()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }
}
