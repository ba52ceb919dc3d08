/**
 * Fixed-layout structs over a DataView: `struct(size, fields)` and the field makers.
 *
 * The only place, with the tables built from it, that knows byte offsets. All integers are native
 * endian, as the kernel ABI is; both architectures we build for are little-endian. Does no I/O.
 */

export interface Field<T> {
  readonly off: number
  readonly size: number
  get(view: DataView, base: number): T
  set(view: DataView, base: number, value: T): void
}

const LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

export function u8(off: number): Field<number> {
  return { off, size: 1, get: (v, b) => v.getUint8(b + off), set: (v, b, x) => v.setUint8(b + off, x) }
}
export function u16(off: number): Field<number> {
  return {
    off,
    size: 2,
    get: (v, b) => v.getUint16(b + off, LITTLE),
    set: (v, b, x) => v.setUint16(b + off, x, LITTLE),
  }
}
export function u32(off: number): Field<number> {
  return {
    off,
    size: 4,
    get: (v, b) => v.getUint32(b + off, LITTLE),
    set: (v, b, x) => v.setUint32(b + off, x, LITTLE),
  }
}
export function s32(off: number): Field<number> {
  return {
    off,
    size: 4,
    get: (v, b) => v.getInt32(b + off, LITTLE),
    set: (v, b, x) => v.setInt32(b + off, x, LITTLE),
  }
}
export function u64(off: number): Field<bigint> {
  return {
    off,
    size: 8,
    get: (v, b) => v.getBigUint64(b + off, LITTLE),
    set: (v, b, x) => v.setBigUint64(b + off, x, LITTLE),
  }
}
/** A fixed array of `size` bytes. Writing a shorter value leaves the rest as it is. */
export function bytes(off: number, size: number): Field<Uint8Array> {
  return {
    off,
    size,
    get: (v, b) => new Uint8Array(v.buffer, v.byteOffset + b + off, size).slice(),
    set: (v, b, x) => new Uint8Array(v.buffer, v.byteOffset + b + off, size).set(x),
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the field's value type is recovered by Values below
export type Fields = Record<string, Field<any>>
export type Values<F extends Fields> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never }

export interface Struct<F extends Fields> {
  /** Bytes of the whole struct. */
  readonly size: number
  readonly fields: F
  /** A zeroed buffer of `length` (default: the whole struct) with the given fields set. */
  encode(values: Partial<Values<F>>, length?: number): Uint8Array
  /** All fields that lie within `data`; fields beyond its end (older kernel) read as undefined. */
  decode(data: Uint8Array): Partial<Values<F>>
}

export function struct<const F extends Fields>(size: number, fields: F): Struct<F> {
  return {
    size,
    fields,
    encode(values, length = size) {
      const out = new Uint8Array(length)
      const view = new DataView(out.buffer)
      for (const name in values) fields[name]!.set(view, 0, values[name])
      return out
    },
    decode(data) {
      const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
      const out: Partial<Values<F>> = {}
      for (const name in fields) {
        const field = fields[name]!
        if (field.off + field.size <= data.byteLength) out[name] = field.get(view, 0)
      }
      return out
    },
  }
}

/** A struct within a struct. */
export function nested<F extends Fields>(
  off: number,
  of: Struct<F>,
): Field<Partial<Values<F>>> & { of: Struct<F> } {
  const whole = bytes(off, of.size)
  return {
    off,
    size: of.size,
    of,
    get: (v, b) => of.decode(whole.get(v, b)),
    set: (v, b, x) => whole.set(v, b, of.encode(x)),
  }
}
