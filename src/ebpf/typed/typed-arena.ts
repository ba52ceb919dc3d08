/**
 * Values of C types anywhere in an arena: what programs made there, by the pointers that they keep.
 *
 *   const arena = new TypedArena(object.arena!, spec.btf!.types)
 *   for (const node of arena.list('node', object.arena!.get('head') as bigint, 'next')) console.log(node.id)
 *
 * Pointers are as programs store them, and anybody may have stored them: each is held against the
 * arena before anything behind it is touched. Pure memory.
 */
import { FormatError, InputError, NotFoundError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { arrayCodec, type Chars, type Codec, codecOf } from '../btf/typed-value.ts'
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
   * NotFoundError: the object has no such type, or the arena is unmapped.
   */
  at<K extends keyof T & string>(type: K, pointer: bigint): T[K] {
    const codec = this.#codec(type)
    return liveValue(this.#memory, codec, this.#offOf(pointer, codec.sizeBytes, type) * 8) as T[K]
  }

  /** Sets what `pointer` leads to. Errors as of `at`; RangeError and TypeError as of `writeValue`. */
  set<K extends keyof T & string>(type: K, pointer: bigint, value: Input<T[K]>): void {
    const codec = this.#codec(type)
    setLive(this.#memory, codec, this.#offOf(pointer, codec.sizeBytes, type) * 8, value, type)
  }

  /** `count` values that lie one behind the other, as an array that reads and writes through. */
  array<K extends keyof T & string>(type: K, pointer: bigint, count: number): T[K][] {
    if (!Number.isSafeInteger(count) || count < 0)
      throw new InputError(`An array cannot have ${count} elements`, { context: { count } })
    const codec = this.#codec(type)
    const off = this.#offOf(pointer, codec.sizeBytes * count, `${count} of ${type}`)
    return liveValue(this.#memory, arrayCodec(codec, count), off * 8) as T[K][]
  }

  /** `count` bytes at `pointer`, in place. */
  bytes(pointer: bigint, count: number): Uint8Array {
    if (!Number.isSafeInteger(count) || count < 0)
      throw new InputError(`There are no ${count} bytes`, { context: { count } })
    const off = this.#offOf(pointer, count, `${count} bytes`)
    return this.#bytes().subarray(off, off + count)
  }

  /**
   * The structs of a linked list, from `head` on, by the pointer `next` in each; a null pointer ends
   * it. The pointer is read before the struct is handed out. FormatError: one leads out of the arena,
   * or there are more of them than fit into it, so that they go in a circle.
   */
  *list<K extends keyof T & string>(type: K, head: bigint, next: keyof T[K] & string): Generator<T[K]> {
    const { sizeBytes } = this.#codec(type)
    let left = this.#bytes().length / Math.max(1, sizeBytes)
    for (let pointer = head; pointer !== 0n; left--) {
      if (left < 1)
        throw new FormatError('arena', `the list of ${type} at 0x${head.toString(16)} goes in a circle`)
      const value = this.at(type, pointer)
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
  #offOf(pointer: bigint, sizeBytes: number, what: string): number {
    const { address } = this.raw
    const room = this.#bytes().length
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
    throw new NotFoundError('The arena is not mapped any more', {
      hint: 'Dispose of the object when its arena is not used any more',
    })
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
