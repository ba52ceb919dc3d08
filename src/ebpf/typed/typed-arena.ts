/**
 * Values of C types anywhere in an arena: what programs made there, by the pointers that they keep.
 *
 *   const arena = new TypedArena(object.arena!, spec.btf!.types)
 *   for (const node of arena.list('node', object.arena!.get('head') as bigint, 'next')) console.log(node.id)
 *
 * Pointers are as programs store them, and anybody may have stored them: each is held against the
 * arena before anything behind it is touched. Pure memory.
 */
import { FormatError, InputError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { arrayCodec, type Chars, type Codec, codecOf } from '../btf/typed-value.ts'
import { notMapped } from '../load/not-mapped.ts'
import { typeNamed } from './event-types.ts'
import { liveValue, type Memory, setLive } from './live-value.ts'
import type { Input } from './typed-map.ts'

/** What there is to read: an `Arena`, or memory that stands for one. */
export interface ArenaMemory {
  readonly address: bigint
  /** Empty once it is unmapped. */
  readonly bytes: Uint8Array
}

const LOW = 0xffff_ffffn

export class TypedArena<T extends object = Readonly<Record<string, unknown>>> {
  readonly raw: ArenaMemory
  readonly #types: Btf
  readonly #chars: Chars
  readonly #memory: Memory
  readonly #codecs = new Map<string, Codec>()

  /** `types`: those of the object that has the arena. */
  constructor(raw: ArenaMemory, types: Btf, chars: Chars = 'bytes') {
    this.raw = raw
    this.#types = types
    this.#chars = chars
    this.#memory = { name: 'arena', writable: true, bytes: () => this.#bytes() }
  }

  /**
   * What `pointer` leads to. Structs, unions and arrays read and write through; others are what they
   * are now. FormatError: it leads out of the arena, also where just the end of the type would.
   * NotFoundError: the arena is unmapped, which each method says before anything else, or the object
   * has no such type.
   */
  at<K extends keyof T & string>(type: K, pointer: bigint): T[K] {
    const { length: room } = this.#bytes()
    const codec = this.#codec(type)
    return liveValue(this.#memory, codec, this.#offOf(pointer, codec.sizeBytes, type, room) * 8) as T[K]
  }

  /** Sets what `pointer` leads to. Errors as of `at`; RangeError and TypeError as of `writeValue`. */
  set<K extends keyof T & string>(type: K, pointer: bigint, value: Input<T[K]>): void {
    const { length: room } = this.#bytes()
    const codec = this.#codec(type)
    setLive(this.#memory, codec, this.#offOf(pointer, codec.sizeBytes, type, room) * 8, value, type)
  }

  /** `count` values that lie one behind the other, as an array that reads and writes through. */
  array<K extends keyof T & string>(type: K, pointer: bigint, count: number): T[K][] {
    const { length: room } = this.#bytes()
    if (!Number.isSafeInteger(count) || count < 0)
      throw new InputError(`An array cannot have ${count} elements`, { context: { count } })
    const codec = this.#codec(type)
    const off = this.#offOf(pointer, codec.sizeBytes * count, `${count} of ${type}`, room)
    return liveValue(this.#memory, arrayCodec(codec, count), off * 8) as T[K][]
  }

  /** `count` bytes at `pointer`, in place. */
  bytes(pointer: bigint, count: number): Uint8Array {
    const all = this.#bytes()
    if (!Number.isSafeInteger(count) || count < 0)
      throw new InputError(`There are no ${count} bytes`, { context: { count } })
    const off = this.#offOf(pointer, count, `${count} bytes`, all.length)
    return all.subarray(off, off + count)
  }

  /**
   * The structs of a linked list, from `head` on, by the pointer `next` in each; a null pointer ends
   * it. The pointer is read before the struct is handed out. FormatError: one leads out of the arena,
   * or they go in a circle, which is noticed once it was gone round some times.
   */
  *list<K extends keyof T & string>(type: K, head: bigint, next: keyof T[K] & string): Generator<T[K]> {
    const { length: room } = this.#bytes()
    const { sizeBytes } = this.#codec(type)
    const circle = new Circle(room / Math.max(1, sizeBytes))
    for (let pointer = head; pointer !== 0n; ) {
      const value = this.at(type, pointer)
      if (circle.isClosedBy(this.#offOf(pointer, sizeBytes, type, room)))
        throw new FormatError('arena', `the list of ${type} at 0x${head.toString(16)} goes in a circle`)
      const following: unknown = value[next]
      if (typeof following !== 'bigint')
        throw new InputError(`Member "${next}" of ${type} is no pointer`, { context: { type, member: next } })
      pointer = following
      yield value
    }
  }

  /** The pointer to byte `off` of the arena, for programs and for `at`. FormatError: it has less. */
  pointerAt(off: number): bigint {
    const room = this.#bytes().length
    if (!Number.isSafeInteger(off) || off < 0 || off >= room)
      throw new FormatError('arena', `byte ${off} is not within its ${room} bytes`)
    return this.raw.address + BigInt(off)
  }

  /**
   * Byte offset of what a pointer leads to. Programs address an arena by the low half of a pointer
   * alone, and what they store may have nothing in the upper one.
   */
  #offOf(pointer: bigint, sizeBytes: number, what: string, room: number): number {
    const { address } = this.raw
    if (typeof pointer !== 'bigint')
      throw new InputError(`A pointer is a bigint, not ${typeof pointer}`, { context: { type: what } })
    const whole = pointer > 0n && pointer >> 32n === 0n ? (address & ~LOW) | pointer : pointer
    const off = whole - address
    if (pointer !== 0n && off >= 0n && off + BigInt(sizeBytes) <= BigInt(room)) return Number(off)
    const said = pointer === 0n ? 'a null pointer' : `0x${pointer.toString(16)}`
    const place = `is at 0x${address.toString(16)} and has ${room} bytes`
    throw new FormatError('arena', `${said} does not lead to ${what} in it; it ${place}`)
  }

  #bytes(): Uint8Array {
    const { bytes } = this.raw
    if (bytes.length > 0) return bytes
    throw notMapped()
  }

  #codec(type: string): Codec {
    let codec = this.#codecs.get(type)
    if (codec === undefined) {
      codec = codecOf(this.#types, typeNamed(this.#types, type), this.#chars)
      this.#codecs.set(type, codec)
    }
    return codec
  }
}

/**
 * Whether a walk from place to place goes in a circle (R. P. Brent, 1980): each place is held against
 * one that is passed on the way, which is another after twice as many steps. So it takes some rounds,
 * and no memory. To come back once is no circle: a program may move a struct while we walk.
 */
class Circle {
  readonly #most: number
  #steps = 0
  #mark: number | undefined
  #nextMarkAt = 0
  #returns = 0

  /** `most`: as many places as there are. */
  constructor(most: number) {
    this.#most = most
  }

  isClosedBy(place: number): boolean {
    if (place === this.#mark) this.#returns++
    else if (this.#steps >= this.#nextMarkAt) {
      this.#mark = place
      this.#nextMarkAt = 2 * this.#steps + 1
      this.#returns = 0
    }
    this.#steps++
    return this.#returns > 1 || this.#steps > this.#most
  }
}
