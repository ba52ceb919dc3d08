/**
 * Ring buffers: records from BPF programs to us (`RingBuffer`) and from us to programs
 * (`UserRingBuffer`).
 *
 * Layout of the mapping (kernel/bpf/ringbuf.c, struct bpf_ringbuf), native endian:
 *
 *   0 * page   u64 consumer position    `ringbuf`: writable by us; `user_ringbuf`: by the kernel
 *   1 * page   u64 producer position    the other way round
 *   2 * page   data, `maxEntries` bytes, and then the same pages once more, so that a record that
 *              runs over the end lies in one piece
 *
 * Positions count bytes since the beginning and wrap around at 2^64; modulo size they are offsets
 * into data. A record is aligned to 8 bytes: u32 length with BUSY and DISCARD in its upper bits,
 * u32 for the kernel's use, then the bytes. Positions and lengths are read and written atomically,
 * because the other side is on another CPU: a record's bytes are there once its length is seen
 * without BUSY.
 */
import { arch } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { FormatError } from '../errors.ts'
import { type Mapping, mapShared, PAGE_BYTES } from '../sys/memory.ts'
import { readable } from '../sys/poll.ts'
import { bpf_ringbuf_bits } from '../uapi/bpf.ts'
import type { BpfMap } from './map.ts'

const HEADER_BYTES = bpf_ringbuf_bits.BPF_RINGBUF_HDR_SZ
const BUSY = bpf_ringbuf_bits.BPF_RINGBUF_BUSY_BIT | 0
const DISCARD = bpf_ringbuf_bits.BPF_RINGBUF_DISCARD_BIT
const LENGTH = ~(BUSY | DISCARD)
/**
 * Between two looks at a record that is reserved but not yet submitted, for which poll would not
 * wait.
 */
const BUSY_WAIT_MS = 1

/** How much of a ring a record of that many bytes takes, its header included. */
export function recordBytes(length: number): number {
  return Math.ceil((HEADER_BYTES + length) / 8) * 8
}

/** Only when somebody else who holds the map wrote into the consumer's page. */
function notOurs(what: string): FormatError {
  return new FormatError('ring buffer', what, { hint: 'Let one consumer only read a ring buffer' })
}

/** Called with a record's place: `data` is valid during the call only. */
export type RecordVisitor = (data: Buffer, start: number, end: number) => void

/** A record that may have been read before. */
export interface RememberedRecord {
  readonly record: Uint8Array
  /** Where the ring's next record begins, in bytes since the ring began. */
  readonly end: bigint
}

const MOST_AT_ONCE = 2 ** 30

/**
 * These processors show a record's bytes no later than its length, if they are read in this order;
 * on others a length has to be read atomically for that, which takes longer than all the rest.
 */
const inOrder = arch() === 'x64'

/** The two positions and the data of a mapped ring. Pure memory: unit tests make one up. */
export class Ring {
  readonly consumer: BigUint64Array
  readonly producer: BigUint64Array
  readonly data: Uint8Array
  /** The same data, to be read from. */
  readonly bytes: Buffer
  /** The same data as 32-bit words, for headers. */
  readonly words: Int32Array
  readonly sizeBytes: number
  /** A visitor of ours runs. */
  #visiting = false

  /** `consumer` is the first page; `rest` is the producer's page and twice the data. */
  constructor(consumer: ArrayBuffer, rest: ArrayBuffer, sizeBytes: number) {
    this.consumer = new BigUint64Array(consumer, 0, 1)
    this.producer = new BigUint64Array(rest, 0, 1)
    this.data = new Uint8Array(rest, PAGE_BYTES, 2 * sizeBytes)
    this.bytes = Buffer.from(rest, PAGE_BYTES, 2 * sizeBytes)
    this.words = new Int32Array(rest, PAGE_BYTES, sizeBytes / 4)
    this.sizeBytes = sizeBytes
  }

  /** Where a position lies in the data. */
  at(position: bigint): number {
    return Number(position % BigInt(this.sizeBytes))
  }

  /** Bytes that are produced and not consumed. */
  used(consumer: bigint, producer: bigint): number {
    return Number(BigInt.asUintN(64, producer - consumer))
  }

  /** The memory was given back. */
  get isGone(): boolean {
    return this.consumer.length === 0
  }

  #requireReadable(): void {
    if (this.isGone) throw new TypeError('the ring buffer is closed')
    if (this.#visiting) throw new TypeError('a visitor of a ring buffer must not read from it')
  }

  /** As `used`. FormatError: no kernel leaves positions so. */
  #toRead(consumer: bigint, producer: bigint): number {
    const used = this.used(consumer, producer)
    if (used > this.sizeBytes || used % 8 !== 0 || consumer % 8n !== 0n)
      throw this.#skipped(producer, `${used} bytes are in use of ${this.sizeBytes}`)
    return used
  }

  /** Where one record cannot be, the place of the next is not known: all are passed over. */
  #skipped(producer: bigint, what: string): FormatError {
    Atomics.store(this.consumer, 0, producer)
    return notOurs(what)
  }

  /**
   * Takes the next record out; undefined: there is none, or the next one is still being written.
   * FormatError: what is there is no record; all of it is skipped.
   */
  read(): Uint8Array | undefined {
    this.#requireReadable()
    for (;;) {
      const consumer = Atomics.load(this.consumer, 0)
      const producer = Atomics.load(this.producer, 0)
      const used = this.#toRead(consumer, producer)
      if (used === 0) return undefined
      const at = this.at(consumer)
      const header = Atomics.load(this.words, at >> 2)
      if ((header & BUSY) !== 0) return undefined
      const length = header & LENGTH
      const bytes = recordBytes(length)
      if (bytes > used) throw this.#skipped(producer, `a record of ${bytes} bytes where ${used} are in use`)
      const start = at + HEADER_BYTES
      const record = (header & DISCARD) === 0 ? this.data.slice(start, start + length) : undefined
      // Copied before the place is given back to the kernel.
      Atomics.store(this.consumer, 0, BigInt.asUintN(64, consumer + BigInt(bytes)))
      if (record !== undefined) return record
    }
  }

  /**
   * Copies of the records that are still in memory, read or not, the oldest first, where every
   * record of the ring has this length. Nothing is taken out. What a program overwrites meanwhile is
   * left out.
   */
  remembered(length: number): RememberedRecord[] {
    this.#requireReadable()
    const bytes = BigInt(recordBytes(length))
    const records: RememberedRecord[] = []
    const producer = Atomics.load(this.producer, 0)
    const oldest = producer > BigInt(this.sizeBytes) ? producer - BigInt(this.sizeBytes) : 0n
    for (let start = ((oldest + bytes - 1n) / bytes) * bytes; start + bytes <= producer; start += bytes) {
      const at = this.at(start)
      // With BUSY or DISCARD it is no length.
      if (Atomics.load(this.words, at >> 2) !== length) continue
      const record = this.data.slice(at + HEADER_BYTES, at + HEADER_BYTES + length)
      records.push({ record, end: start + bytes })
    }
    // The kernel writes the header of a new record before it says so by its position.
    const overwritten = Atomics.load(this.producer, 0) + bytes - BigInt(this.sizeBytes)
    return records.filter(({ end }) => end - bytes >= overwritten)
  }

  /**
   * Gives the place of each complete record to `visit`, `limit` at most, and their number: without a
   * copy or an object for each. Their room is the kernel's again a quarter of the ring later, and
   * when this ends, also if `visit` throws. It also ends when `visit` has the memory given back.
   * FormatError as of `read`. TypeError: `visit` reads.
   */
  visit(visit: RecordVisitor, limit: number): number {
    this.#requireReadable()
    let count = 0
    this.#visiting = true
    try {
      for (let seen = -1; seen !== 0 && count < limit && !this.isGone; count += seen)
        seen = this.#visitSome(visit, Math.min(limit - count, MOST_AT_ONCE))
    } finally {
      this.#visiting = false
    }
    return count
  }

  /** Of a quarter of the ring at most, whose room it gives back. 0: there are no more now. */
  #visitSome(visit: RecordVisitor, limit: number): number {
    // Integers, and no closure: so the compiler keeps all of it in registers.
    const { words, bytes: data, sizeBytes } = this
    const most = limit | 0
    const start = this.consumer[0]!
    const producer = Atomics.load(this.producer, 0)
    const used = this.#toRead(start, producer) >>> 0
    const quarter = sizeBytes >>> 2
    let at = this.at(start) >>> 0
    let taken = 0
    let count = 0
    try {
      while (count < most && taken < used && (taken < quarter || count === 0)) {
        const header = inOrder || words.length === 0 ? words[at >> 2] : Atomics.load(words, at >> 2)
        // The visitor had the memory given back; or its sign: BUSY.
        if (header === undefined || header < 0) break
        const length = header & LENGTH
        const bytes = (length + (HEADER_BYTES + 7)) & ~7
        if (bytes > used - taken) {
          const left = used - taken
          taken = used
          throw notOurs(`a record of ${bytes} bytes where ${left} are in use`)
        }
        const record = at + HEADER_BYTES
        taken += bytes
        at = (at + bytes) & (sizeBytes - 1)
        if ((header & DISCARD) !== 0) continue
        count++
        visit(data, record, record + length)
      }
    } finally {
      if (taken > 0 && !this.isGone)
        Atomics.store(this.consumer, 0, BigInt.asUintN(64, start + BigInt(taken)))
    }
    return count
  }

  /** Adds a record; false: no room now. */
  write(record: Uint8Array): boolean {
    const producer = Atomics.load(this.producer, 0)
    const used = this.used(Atomics.load(this.consumer, 0), producer)
    const bytes = recordBytes(record.length)
    if (bytes > this.sizeBytes)
      throw new RangeError(`a record of ${record.length} bytes never fits into ${this.sizeBytes}`)
    if (used + bytes > this.sizeBytes) return false
    const at = this.at(producer)
    this.data.set(record, at + HEADER_BYTES)
    Atomics.store(this.words, at >> 2, record.length)
    // Published last: the kernel reads the header once it sees the position.
    Atomics.store(this.producer, 0, BigInt.asUintN(64, producer + BigInt(bytes)))
    return true
  }
}

function mapRing(map: BpfMap, writable: 'consumer' | 'producer'): { ring: Ring; mappings: Mapping[] } {
  const size = map.maxEntries
  const first = mapShared(map.fd, PAGE_BYTES, 0, writable === 'consumer')
  try {
    const rest = mapShared(map.fd, PAGE_BYTES + 2 * size, PAGE_BYTES, writable === 'producer')
    return { ring: new Ring(first.buffer, rest.buffer, size), mappings: [first, rest] }
  } catch (error) {
    first[Symbol.dispose]()
    throw error
  }
}

/**
 * The reading end of a `ringbuf` map; there may be one at a time. Since Linux 5.8. mmap(2) of the
 * map, which needs no capability; EPERM: it was opened read-only. The caller disposes of it, and of
 * the map afterwards.
 */
export class RingBuffer implements Disposable {
  readonly #map: BpfMap
  readonly #ring: Ring
  readonly #mappings: Mapping[]
  readonly #end = new AbortController()

  constructor(map: BpfMap) {
    this.#map = map
    const { ring, mappings } = mapRing(map, 'consumer')
    this.#ring = ring
    this.#mappings = mappings
  }

  /** The next record, copied out; undefined: none is complete. */
  read(): Uint8Array | undefined {
    return this.#ring.read()
  }

  /** How many bytes of records were read since the ring began. */
  get position(): bigint {
    return Atomics.load(this.#ring.consumer, 0)
  }

  /** See `Ring.remembered`. */
  remembered(length: number): RememberedRecord[] {
    return this.#ring.remembered(length)
  }

  /** Gives every complete record to `take`, `limit` at most, and their number. Does not wait. */
  drain(take: (record: Uint8Array) => void, limit = Number.POSITIVE_INFINITY): number {
    let count = 0
    while (count < limit) {
      const record = this.#ring.read()
      if (record === undefined) break
      count++
      take(record)
      if (this.#ring.isGone) break
    }
    return count
  }

  /**
   * The same without a copy or an object for each record: `visit` gets the memory, and where in it
   * the record is. That is good until `visit` returns, which must not read meanwhile.
   */
  visit(visit: RecordVisitor, limit = Number.POSITIVE_INFINITY): number {
    return this.#ring.visit(visit, limit)
  }

  /**
   * Every record, as it comes, until this is disposed of: leave the loop, or abort, which throws the
   * signal's reason.
   */
  async *records(options: { signal?: AbortSignal } = {}): AsyncGenerator<Uint8Array> {
    const { signal } = options
    while (!this.#ring.isGone) {
      signal?.throwIfAborted()
      const record = this.#ring.read() ?? (await this.#wait(signal))
      if (record !== undefined) yield record
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    return this.records()
  }

  async #wait(signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    try {
      await readable(this.#map.fd, signal, this.#end.signal)
    } catch (error) {
      if (!this.#ring.isGone) throw error
    }
    if (this.#ring.isGone) return undefined
    const record = this.#ring.read()
    if (record === undefined) await sleep(BUSY_WAIT_MS)
    return record
  }

  [Symbol.dispose](): void {
    for (const mapping of this.#mappings) mapping[Symbol.dispose]()
    this.#end.abort()
  }
}

/**
 * The writing end of a `user_ringbuf` map, which a program empties with bpf_user_ringbuf_drain().
 * Since Linux 6.1. There may be one at a time. The caller disposes of it, and of the map
 * afterwards.
 */
export class UserRingBuffer implements Disposable {
  readonly #ring: Ring
  readonly #mappings: Mapping[]

  constructor(map: BpfMap) {
    const { ring, mappings } = mapRing(map, 'producer')
    this.#ring = ring
    this.#mappings = mappings
  }

  /**
   * Adds a record; false: no room until a program has read some. RangeError: it is larger than the
   * ring.
   */
  write(record: Uint8Array): boolean {
    return this.#ring.write(record)
  }

  [Symbol.dispose](): void {
    for (const mapping of this.#mappings) mapping[Symbol.dispose]()
  }
}
