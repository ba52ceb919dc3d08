/**
 * Maps whose keys and values are JavaScript values by their types in BTF, instead of bytes. All of
 * them have the map itself as `raw`, for what is not here.
 */
import { FormatError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { type Chars, codecOf, readValue, type TypedValue, writeValue } from '../btf/typed-value.ts'
import { type BpfMap, ELEMENT_FLAGS, type Key } from '../map.ts'
import { joinPerCpu, possibleCpus, splitPerCpu } from '../per-cpu.ts'
import { PerfBuffer, type PerfBufferOptions } from '../perf-events.ts'
import { RingBuffer } from '../ringbuf.ts'

/**
 * What may be given where `T` is read: members that are left out are zero, or of global variables
 * what they were; of a union give one member. Bytes may be text.
 */
export type Input<T> = T extends Uint8Array
  ? Uint8Array | string
  : T extends readonly (infer E)[]
    ? readonly Input<E>[]
    : T extends object
      ? { readonly [K in keyof T]?: Input<T[K]> }
      : T

/** How one type goes in and out. `id` 0: it has none, and is bytes. */
export class Values<T> {
  readonly #btf: Btf | undefined
  readonly #id: number
  readonly #chars: Chars
  readonly sizeBytes: number

  constructor(btf: Btf | undefined, id: number, sizeBytes: number, chars: Chars) {
    this.#btf = id === 0 ? undefined : btf
    this.#id = id
    this.#chars = chars
    this.sizeBytes = this.#btf === undefined ? sizeBytes : codecOf(this.#btf, id, chars).sizeBytes
  }

  /** FormatError: too few bytes. What is behind them is left alone. */
  read(bytes: Uint8Array): T {
    if (this.#btf === undefined) return bytes as T
    if (bytes.length < this.sizeBytes)
      throw new FormatError('BPF data', `${bytes.length} bytes where the type has ${this.sizeBytes}`, {
        hint: 'Name the type that the program writes',
      })
    return readValue(this.#btf, this.#id, bytes, 0, this.#chars) as T
  }

  write(value: Input<T>): Uint8Array {
    if (this.#btf === undefined) return value as Uint8Array
    const bytes = new Uint8Array(this.sizeBytes)
    writeValue(this.#btf, this.#id, bytes, 0, value as TypedValue)
    return bytes
  }
}

/** What maps with keys have in common. */
export abstract class KeyedMap<K, V> {
  readonly raw: BpfMap
  readonly #keys: Values<K>
  protected readonly values: Values<V>

  constructor(raw: BpfMap, keys: Values<K>, values: Values<V>) {
    this.raw = raw
    this.#keys = keys
    this.values = values
  }

  has(key: Input<K>): boolean {
    return this.raw.lookup(this.keyBytes(key)) !== undefined
  }

  /** Removes `key`; false: it was not there. */
  delete(key: Input<K>): boolean {
    return this.raw.delete(this.keyBytes(key))
  }

  /** As `BpfMap.keys`. */
  *keys(): Generator<K> {
    for (const key of this.raw.keys()) yield this.#keys.read(key)
  }

  protected keyBytes(key: Input<K>): Key {
    return this.#keys.write(key)
  }

  /** As `BpfMap.entries`, with the values as bytes. */
  protected *entriesInBytes(): Generator<[key: K, bytes: Uint8Array]> {
    for (const [key, bytes] of this.raw.entries()) yield [this.#keys.read(key), bytes]
  }
}

/** Hashes, arrays and the like: a value for each key. */
export class TypedMap<K, V> extends KeyedMap<K, V> {
  /** The value of `key`; undefined: there is none. */
  get(key: Input<K>): V | undefined {
    const bytes = this.raw.lookup(this.keyBytes(key))
    return bytes && this.values.read(bytes)
  }

  /** As `BpfMap.update`; `flags` are `ELEMENT_FLAGS`. */
  set(key: Input<K>, value: Input<V>, flags: number = ELEMENT_FLAGS.any): void {
    this.raw.update(this.keyBytes(key), this.values.write(value), flags)
  }

  /** As `BpfMap.entries`. */
  *entries(): Generator<[key: K, value: V]> {
    for (const [key, bytes] of this.entriesInBytes()) yield [key, this.values.read(bytes)]
  }

  [Symbol.iterator](): Generator<[key: K, value: V]> {
    return this.entries()
  }
}

/** Maps with a value for each CPU under each key. */
export class TypedPerCpuMap<K, V> extends KeyedMap<K, V> {
  /** The value on each possible CPU; undefined: there is none. */
  get(key: Input<K>): V[] | undefined {
    return this.raw.lookupPerCpu(this.keyBytes(key))?.map(bytes => this.values.read(bytes))
  }

  /** One value for each possible CPU. RangeError: there are more or fewer. */
  set(key: Input<K>, values: readonly Input<V>[], flags: number = ELEMENT_FLAGS.any): void {
    if (values.length !== possibleCpus())
      throw new RangeError(`there are ${possibleCpus()} CPUs, not ${values.length}`)
    const bytes = joinPerCpu(
      values.map(value => this.values.write(value)),
      this.raw.valueBytes,
    )
    this.raw.update(this.keyBytes(key), bytes, flags)
  }

  /** As `BpfMap.entries`. */
  *entries(): Generator<[key: K, values: V[]]> {
    for (const [key, bytes] of this.entriesInBytes()) {
      const slots = splitPerCpu(bytes, this.raw.valueBytes)
      yield [key, slots.map(slot => this.values.read(slot))]
    }
  }

  [Symbol.iterator](): Generator<[key: K, values: V[]]> {
    return this.entries()
  }
}

/** Queues and stacks. */
export class TypedQueue<V> {
  readonly raw: BpfMap
  readonly #values: Values<V>

  constructor(raw: BpfMap, values: Values<V>) {
    this.raw = raw
    this.#values = values
  }

  /** As `BpfMap.push`. */
  push(value: Input<V>, flags: number = ELEMENT_FLAGS.any): void {
    this.raw.push(this.#values.write(value), flags)
  }

  /** Takes the next value out; undefined: empty. */
  pop(): V | undefined {
    const bytes = this.raw.pop()
    return bytes && this.#values.read(bytes)
  }

  /** The next value, which stays; undefined: empty. */
  peek(): V | undefined {
    const bytes = this.raw.peek()
    return bytes && this.#values.read(bytes)
  }
}

/** The records of a ring buffer. There may be one reader at a time. */
export class TypedEvents<T> implements Disposable {
  readonly raw: BpfMap
  readonly #values: Values<T>
  #ring: RingBuffer | undefined

  constructor(raw: BpfMap, values: Values<T>) {
    this.raw = raw
    this.#values = values
  }

  /** The next record; undefined: none is complete. FormatError: it is shorter than its type. */
  read(): T | undefined {
    const record = this.#open().read()
    return record && this.#values.read(record)
  }

  /** Every record, as it comes. As `RingBuffer.records`. */
  async *records(options: { signal?: AbortSignal } = {}): AsyncGenerator<T> {
    for await (const record of this.#open().records(options)) yield this.#values.read(record)
  }

  [Symbol.asyncIterator](): AsyncGenerator<T> {
    return this.records()
  }

  #open(): RingBuffer {
    this.#ring ??= new RingBuffer(this.raw)
    return this.#ring
  }

  /** Ends reading; the map goes on. */
  [Symbol.dispose](): void {
    this.#ring?.[Symbol.dispose]()
    this.#ring = undefined
  }
}

/** The records of a perf event array. There may be one reader at a time. */
export class TypedPerfEvents<T> implements Disposable {
  readonly raw: BpfMap
  readonly #values: Values<T>
  #buffer: PerfBuffer | undefined

  constructor(raw: BpfMap, values: Values<T>) {
    this.raw = raw
    this.#values = values
  }

  /** Begins to read, anew if it was begun before; without it the first call of another begins. */
  open(options: PerfBufferOptions = {}): PerfBuffer {
    this[Symbol.dispose]()
    this.#buffer = new PerfBuffer(this.raw, options)
    return this.#buffer
  }

  /** The next record of some CPU; undefined: there is none. FormatError: it is shorter than its type. */
  read(): T | undefined {
    const record = (this.#buffer ?? this.open()).read()
    return record && this.#values.read(record.data)
  }

  /** Every record, as it comes. As `PerfBuffer.records`. */
  async *records(options: { signal?: AbortSignal } = {}): AsyncGenerator<T> {
    for await (const { data } of (this.#buffer ?? this.open()).records(options)) yield this.#values.read(data)
  }

  [Symbol.asyncIterator](): AsyncGenerator<T> {
    return this.records()
  }

  /** Ends reading; the map goes on. */
  [Symbol.dispose](): void {
    this.#buffer?.[Symbol.dispose]()
    this.#buffer = undefined
  }
}
