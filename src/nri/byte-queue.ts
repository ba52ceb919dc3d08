/**
 * Bytes in the order in which they came, taken in pieces of other lengths. They lie in one buffer,
 * which doubles: however small the pieces are in which they come, each is copied a few times.
 */
export class ByteQueue {
  #buffer = Buffer.alloc(0)
  #start = 0
  #end = 0

  get length(): number {
    return this.#end - this.#start
  }

  push(bytes: Uint8Array): void {
    if (this.#end + bytes.length > this.#buffer.length) {
      const kept = this.#buffer.subarray(this.#start, this.#end)
      const grown = Buffer.allocUnsafe(2 * (kept.length + bytes.length))
      grown.set(kept)
      this.#buffer = grown
      this.#start = 0
      this.#end = kept.length
    }
    this.#buffer.set(bytes, this.#end)
    this.#end += bytes.length
  }

  /** The first `length` bytes, which stay, and are valid until the next call; undefined while there are fewer. */
  peek(length: number): Buffer | undefined {
    return length > this.length ? undefined : this.#buffer.subarray(this.#start, this.#start + length)
  }

  /** Takes the first `length` bytes. RangeError: there are fewer. */
  take(length: number): Buffer {
    const first = this.peek(length)
    if (first === undefined) throw new RangeError(`${length} bytes are wanted, and ${this.length} there`)
    const taken = Buffer.from(first)
    this.#start += length
    if (this.#start === this.#end) {
      this.#buffer = Buffer.alloc(0)
      this.#start = 0
      this.#end = 0
    }
    return taken
  }
}
