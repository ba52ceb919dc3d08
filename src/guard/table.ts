/**
 * A map of the guard as a table. Keys and values are typed, and only this file knows their bytes.
 * maps.ts lists the tables.
 */
import type { BpfMap } from '../ebpf/map.ts'
import { ConflictError } from '../errors.ts'
import type { Field, Fields, Struct } from '../uapi/codec.ts'
import type { DelegationId } from './id.ts'
import { GUARD_SLOTS } from './layout.ts'

/** How something is written in a map. `Given`: what may be left out when it is written. */
export interface Codec<T, Given = T> {
  readonly size: number
  encode(value: Given): Uint8Array
  decode(bytes: Uint8Array): T
}

/** A key that is only looked for, and never read back. */
export type KeyCodec<T> = Omit<Codec<T>, 'decode'>

/** All fields of a record: a map's values are as long as the struct. */
export type Row<F extends Fields> = {
  [Name in keyof F as Exclude<Name, 'reserved'>]: F[Name] extends { of: Struct<infer Inner> }
    ? Row<Inner>
    : F[Name] extends Field<infer T>
      ? T
      : never
}

/** The fields that are not given are zero. */
export function row<F extends Fields>(of: Struct<F>): Codec<Row<F>, Partial<Row<F>>> {
  return of as unknown as Codec<Row<F>, Partial<Row<F>>>
}

/** As `row`, of a key, whose fields are all given. */
export function keyRow<F extends Fields>(of: Struct<F>): Codec<Row<F>> {
  return row(of) as unknown as Codec<Row<F>>
}

/** A single number. */
export function number<T>(field: Field<T>): Codec<T> {
  return {
    size: field.size,
    encode(value) {
      const bytes = new Uint8Array(field.size)
      field.set(new DataView(bytes.buffer), 0, value)
      return bytes
    },
    decode: ({ buffer, byteOffset }) => field.get(new DataView(buffer, byteOffset), 0),
  }
}

/** What is written as something else. */
export function via<T, Written>(
  of: Codec<Written>,
  to: (value: T) => Written,
  from: (written: Written) => T,
): Codec<T> {
  return {
    size: of.size,
    encode: value => of.encode(to(value)),
    decode: bytes => from(of.decode(bytes)),
  }
}

/** A value for each key. */
export class Cells<Key, Value, Given = Value> {
  readonly map: BpfMap
  protected readonly key: KeyCodec<Key>
  protected readonly value: Codec<Value, Given>

  /** The map stays the caller's. ConflictError: it is of another layout. */
  constructor(map: BpfMap, key: KeyCodec<Key>, value: Codec<Value, Given>) {
    if (map.keyBytes !== key.size || map.valueBytes !== value.size)
      throw new ConflictError('A map of the guard is not as this program knows it', {
        context: { keyBytes: map.keyBytes, valueBytes: map.valueBytes },
        hint: 'Remove the guard with the version that installed it, then install this one',
      })
    this.map = map
    this.key = key
    this.value = value
  }

  get(key: Key): Value | undefined {
    const bytes = this.map.lookup(this.key.encode(key))
    return bytes && this.value.decode(bytes)
  }

  /** E2BIG: the map is full. */
  set(key: Key, value: Given): void {
    this.map.update(this.key.encode(key), this.value.encode(value))
  }
}

/** Cells whose keys come and go. */
export class Table<Key, Value, Given = Value> extends Cells<Key, Value, Given> {
  readonly #readKey: (bytes: Uint8Array) => Key

  constructor(map: BpfMap, key: Codec<Key>, value: Codec<Value, Given>) {
    super(map, key, value)
    this.#readKey = bytes => key.decode(bytes)
  }

  /** False: it was not there. */
  delete(key: Key): boolean {
    return this.map.delete(this.key.encode(key))
  }

  /** Whether the map takes these for one key. */
  isSameKey(one: Key, other: Key): boolean {
    return Buffer.from(this.key.encode(one)).equals(this.key.encode(other))
  }

  /**
   * Gives each key that is there the whole time exactly once, whatever comes and goes meanwhile.
   */
  *keys(): Generator<Key> {
    for (const key of this.map.keys()) yield this.#readKey(key)
  }

  /** As `keys`. */
  *values(): Generator<Value> {
    for (const [, value] of this.map.entries()) yield this.value.decode(value)
  }

  /** As `keys`. */
  *entries(): Generator<[Key, Value]> {
    for (const [key, value] of this.map.entries()) yield [this.#readKey(key), this.value.decode(value)]
  }

  /** All, by a single command. */
  readAll(): [Key, Value][] {
    return this.map.readAll().map(([key, value]) => [this.#readKey(key), this.value.decode(value)])
  }
}

/** The number of an element, which is always there. */
const ELEMENT: KeyCodec<number> = {
  size: 4,
  encode: at => new Uint8Array(Uint32Array.of(at).buffer),
}

/** The only record of its kind. */
export class Single<Value> extends Cells<number, Value, Partial<Value>> {
  constructor(map: BpfMap, value: Codec<Value, Partial<Value>>) {
    super(map, ELEMENT, value)
  }

  read(): Value {
    return this.get(0)!
  }

  /** All other fields stay as they are. */
  change(fields: Partial<Value>): void {
    this.set(0, { ...this.read(), ...fields })
  }
}

/** A place for each delegation that may live at one time: those of equal remainder share one. */
const SLOT: KeyCodec<DelegationId> = {
  size: ELEMENT.size,
  encode: id => ELEMENT.encode(Number(id % BigInt(GUARD_SLOTS))),
}

/**
 * A record for each delegation. After a delegation has ended, its place is free or belongs to
 * another one.
 */
export class Slots<Value> extends Cells<DelegationId, Value, Partial<Value>> {
  constructor(map: BpfMap, value: Codec<Value, Partial<Value>>) {
    super(map, SLOT, value)
  }

  override get(id: DelegationId): Value {
    return super.get(id)!
  }
}

/** Records that say whose they are, in their first field. */
export class OwnedSlots<Value extends { readonly id: bigint }> extends Cells<
  DelegationId,
  Value,
  Partial<Value>
> {
  constructor(map: BpfMap, value: Codec<Value, Partial<Value>>) {
    super(map, SLOT, value)
  }

  /** Undefined: the place is another one's, or free. */
  override get(id: DelegationId): Value | undefined {
    const found = super.get(id)
    return found?.id === id ? found : undefined
  }

  override set(id: DelegationId, fields: Omit<Partial<Value>, 'id'>): void {
    super.set(id, { ...fields, id } as unknown as Partial<Value>)
  }

  /** Frees the place. */
  clear(id: DelegationId): void {
    super.set(id, {})
  }

  /** The places that are not free. */
  all(): Value[] {
    return this.map
      .readAll()
      .filter(([, value]) => value.subarray(0, ID_BYTES).some(byte => byte !== 0))
      .map(([, value]) => this.value.decode(value))
  }
}

const ID_BYTES = 8
