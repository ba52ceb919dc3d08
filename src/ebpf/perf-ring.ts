/**
 * The memory of one perf event's ring, as the kernel writes it and we read it. Pure memory: unit
 * tests make one up.
 *
 * Layout of the mapping (include/uapi/linux/perf_event.h, struct perf_event_mmap_page), native
 * endian:
 *
 *   @1024   u64 head   written by the kernel: bytes since the beginning
 *   @1032   u64 tail   written by us; not in a ring that is overwritten
 *   1 * page           data, a power of two of pages
 *
 * A record is aligned to 8 bytes: u32 type, u16 for flags, u16 its size with these 8 bytes. A
 * sample's body is u32 length, and then the bytes. A record's end may be at the data's beginning;
 * its header never is in two pieces.
 */
import { FormatError } from '../errors.ts'
import { PAGE_BYTES } from '../sys/memory.ts'

const HEAD_AT = 1024 / 8
const TAIL_AT = 1032 / 8
const HEADER_BYTES = 8
/** The header, and the length of the bytes. */
const SAMPLE_BYTES = 12
const RECORD_LOST = 2
const RECORD_SAMPLE = 9
/** header, u64 id, u64 count */
const LOST_BYTES = 24

/** Called with a sample's place: `data` is valid during the call only. */
export type SampleVisitor = (data: Buffer, start: number, end: number, cpu: number) => void

export class PerfRing {
  readonly cpu: number
  readonly #positions: BigUint64Array
  readonly #data: Buffer
  readonly #view: DataView
  readonly #lost: (count: number, cpu: number) => void
  /** A function of the caller's runs: what is thrown is no fault of the ring. */
  #told = false
  /** Where a sample is put together that lies in two pieces; made when there is one. */
  #whole: Buffer | undefined

  /** `memory` is the whole mapping: a page, and 2^n pages of data. */
  constructor(memory: ArrayBuffer, cpu: number, lost: (count: number, cpu: number) => void) {
    this.cpu = cpu
    this.#positions = new BigUint64Array(memory, 0, PAGE_BYTES / 8)
    this.#data = Buffer.from(memory, PAGE_BYTES)
    this.#view = new DataView(memory, PAGE_BYTES)
    this.#lost = lost
  }

  /** The memory was given back. */
  get isGone(): boolean {
    return this.#positions.length === 0
  }

  /**
   * Gives samples to `visit`, `limit` at most, and their number. Their room is the kernel's again
   * afterwards, also if `visit` throws. Ends when `visit` has the memory given back. FormatError:
   * what is there is no record; all of it is skipped, so that the next call reads on behind it.
   * TypeError: `visit` reads this ring.
   */
  visit(visit: SampleVisitor, limit: number): number {
    if (this.#told) throw new TypeError('a visitor of a perf event ring must not read from it')
    const head = Atomics.load(this.#positions, HEAD_AT)
    const tail = this.#positions[TAIL_AT]!
    if (head === tail) return 0
    const size = this.#data.length
    const used = Number(BigInt.asUintN(64, head - tail))
    const start = Number(tail & BigInt(size - 1))
    let done = 0
    let count = 0
    try {
      if (used > size || used % 8 !== 0 || start % 8 !== 0)
        throw corrupt(`${used} bytes are in use of ${size}`)
      while (done < used && count < limit && !this.isGone) {
        const at = (start + done) & (size - 1)
        const bytes = this.#recordBytes(at, used - done)
        // What a visitor throws at concerns this record alone.
        done += bytes
        if (this.#record(at, bytes, visit)) count++
      }
      return count
    } catch (error) {
      if (!this.#told) done = used
      throw error
    } finally {
      this.#told = false
      if (!this.isGone) Atomics.store(this.#positions, TAIL_AT, BigInt.asUintN(64, tail + BigInt(done)))
    }
  }

  /**
   * The same for a ring that is overwritten, while nobody writes: newest first, until the one that
   * was overwritten in part.
   */
  visitBackward(visit: SampleVisitor): number {
    const head = Atomics.load(this.#positions, HEAD_AT)
    const size = this.#data.length
    const written = BigInt.asUintN(64, -head)
    const used = written < BigInt(size) ? Number(written) : size
    const start = Number(head & BigInt(size - 1))
    let count = 0
    for (let off = 0; off + HEADER_BYTES <= used; ) {
      const at = (start + off) & (size - 1)
      const bytes = this.#view.getUint16(at + 6, true)
      if (bytes === 0 || bytes % 8 !== 0 || off + bytes > used) break
      if (this.#record(at, bytes, visit)) count++
      off += bytes
    }
    return count
  }

  #recordBytes(at: number, left: number): number {
    const bytes = this.#view.getUint16(at + 6, true)
    if (bytes < HEADER_BYTES || bytes % 8 !== 0 || bytes > left)
      throw corrupt(`a record of ${bytes} bytes where ${left} are in use`)
    return bytes
  }

  /** Whether it is a sample. */
  #record(at: number, bytes: number, visit: SampleVisitor): boolean {
    const type = this.#view.getUint32(at, true)
    if (type !== RECORD_SAMPLE && type !== RECORD_LOST) return false
    const inPieces = at + bytes > this.#data.length
    const data = inPieces ? this.#joined(at, bytes) : this.#data
    const from = inPieces ? 0 : at
    if (type === RECORD_LOST) {
      if (bytes < LOST_BYTES) throw corrupt(`a record of lost ones has ${bytes} bytes`)
      this.#told = true
      this.#lost(Number(data.readBigUInt64LE(from + 16)), this.cpu)
      this.#told = false
      return false
    }
    const length = bytes < SAMPLE_BYTES ? -1 : data.readUInt32LE(from + HEADER_BYTES)
    if (length < 0 || length > bytes - SAMPLE_BYTES)
      throw corrupt(`a sample of ${length} bytes in a record of ${bytes}`)
    this.#told = true
    visit(data, from + SAMPLE_BYTES, from + SAMPLE_BYTES + length, this.cpu)
    this.#told = false
    return true
  }

  #joined(at: number, bytes: number): Buffer {
    this.#whole ??= Buffer.alloc(0x1_0000)
    const first = this.#data.copy(this.#whole, 0, at)
    this.#data.copy(this.#whole, first, 0, bytes - first)
    return this.#whole
  }
}

function corrupt(message: string): FormatError {
  return new FormatError('perf event ring', message, {
    hint: 'Let nobody else write to the memory of the event',
  })
}
