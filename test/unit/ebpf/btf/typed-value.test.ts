import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder, type MemberSpec } from '../../../../src/ebpf/btf/builder.ts'
import { readValue, type TypedValue, writeValue } from '../../../../src/ebpf/btf/typed-value.ts'
import { FormatError } from '../../../../src/errors.ts'

/** A type as data: how to write it as BTF, its size, and which values it has. */
interface Model {
  readonly sizeBytes: number
  readonly define: (btf: BtfBuilder) => number
  readonly values: fc.Arbitrary<TypedValue>
  /** An integer of one byte: arrays of it are bytes. */
  readonly isByte?: boolean
  /** Fits bit fields. */
  readonly bitField?: (bits: number) => fc.Arbitrary<TypedValue>
}

function integers(bits: number, signed: boolean): fc.Arbitrary<bigint> {
  const half = 1n << BigInt(bits - 1)
  return signed ? fc.bigInt(-half, half - 1n) : fc.bigInt(0n, 2n * half - 1n)
}

const sized = (sizeBytes: number, bits: number, signed: boolean): fc.Arbitrary<TypedValue> =>
  sizeBytes > 4 ? integers(bits, signed) : integers(bits, signed).map(Number)

const scalars: Model[] = [
  ...[1, 2, 4, 8, 16].flatMap(size =>
    [true, false].map(
      (signed): Model => ({
        sizeBytes: size,
        define: btf => btf.int(`i${size}`, size, { signed }),
        values: sized(size, size * 8, signed),
        isByte: size === 1,
        bitField: bits => sized(size, bits, signed),
      }),
    ),
  ),
  {
    sizeBytes: 1,
    define: btf => btf.int('bool', 1, { bool: true }),
    values: fc.boolean(),
    bitField: () => fc.boolean(),
  },
  {
    sizeBytes: 4,
    define: btf => btf.typedef('e_t', btf.const(btf.enum('e', { minus: -1 }))),
    values: sized(4, 32, true),
    bitField: bits => sized(4, bits, true),
  },
  { sizeBytes: 8, define: btf => btf.enum64('e64', { one: 1n }), values: integers(64, false) },
  { sizeBytes: 8, define: btf => btf.ptr(0), values: integers(64, false) },
  { sizeBytes: 8, define: btf => btf.float('double', 8), values: fc.double() },
  { sizeBytes: 4, define: btf => btf.float('float', 4), values: fc.float() },
]

function arrayOf(element: Model, given: number): Model {
  // Elements of no size are none.
  const count = element.sizeBytes === 0 ? 0 : given
  const length = { minLength: count, maxLength: count }
  return {
    sizeBytes: element.sizeBytes * count,
    define: btf => btf.array(element.define(btf), btf.int('int', 4), given),
    values: element.isByte === true ? fc.uint8Array(length) : fc.array(element.values, length),
  }
}

interface Part {
  readonly model: Model
  /** 0: no bit field. */
  readonly bits: number
  /** Inline, without name: only of structs. */
  readonly anonymous: boolean
}

let serial = 0

/** Packed, so that members also lie at odd places. */
function structOf(parts: readonly Part[]): Model {
  let end = 0
  const placed = parts.map(part => {
    if (part.bits === 0) end = Math.ceil(end / 8) * 8
    const bitOff = end
    end += part.bits === 0 ? part.model.sizeBytes * 8 : part.bits
    return { ...part, bitOff, name: `m${serial++}` }
  })
  const values = placed.map(({ model, bits, anonymous, name }): fc.Arbitrary<object> => {
    const of = bits === 0 ? model.values : model.bitField!(bits)
    return of.map(value => (anonymous ? (value as object) : { [name]: value }))
  })
  return {
    sizeBytes: Math.ceil(end / 8),
    define: btf => {
      const members = placed.map(
        ({ model, bits, bitOff, name, anonymous }): MemberSpec => ({
          ...{ name: anonymous ? '' : name, type: model.define(btf), bitOff, bitSize: bits },
        }),
      )
      return btf.struct('s', Math.ceil(end / 8), members)
    },
    values: fc.tuple(...values).map(all => Object.assign({}, ...all) as TypedValue),
  }
}

const scalar = fc.constantFrom(...scalars)
const { model } = fc.letrec<{ model: Model; array: Model; struct: Model; part: Part }>(tie => ({
  model: fc.oneof({ depthSize: 'small', withCrossShrink: true }, scalar, tie('array'), tie('struct')),
  array: fc.tuple(tie('model'), fc.nat(5)).map(([element, count]) => arrayOf(element, count)),
  part: fc.oneof(
    tie('model').map(model => ({ model, bits: 0, anonymous: false })),
    tie('struct').map(model => ({ model, bits: 0, anonymous: true })),
    fc
      .tuple(fc.constantFrom(...scalars.filter(({ bitField }) => bitField)), fc.nat(100))
      .map(([model, any]) => ({ model, bits: (any % (model.sizeBytes * 8)) + 1, anonymous: false })),
  ),
  struct: fc.array(tie('part'), { maxLength: 5 }).map(structOf),
}))

test('readValue() gives back what writeValue() wrote, of any type', () => {
  const cases = model.chain(one => fc.tuple(fc.constant(one), one.values, fc.nat(9)))
  fc.assert(
    fc.property(cases, fc.constantFrom(0, 0xff), ([one, value, off], fill) => {
      const builder = new BtfBuilder()
      const id = one.define(builder)
      const btf = Btf.parse(builder.build())
      const bytes = new Uint8Array(off + one.sizeBytes + 3).fill(fill)
      writeValue(btf, id, bytes, off, value)
      assert.deepEqual(readValue(btf, id, bytes, off), value)
      const around = [...bytes.subarray(0, off), ...bytes.subarray(off + one.sizeBytes)]
      assert.ok(around.every(byte => byte === fill))
    }),
  )
})

function compiled(define: (btf: BtfBuilder) => number) {
  const builder = new BtfBuilder()
  const id = define(builder)
  const btf = Btf.parse(builder.build())
  return {
    read: (...bytes: number[]) => readValue(btf, id, Uint8Array.from(bytes)),
    write: (sizeBytes: number, value: TypedValue): number[] => {
      const bytes = new Uint8Array(sizeBytes)
      writeValue(btf, id, bytes, 0, value)
      return [...bytes]
    },
  }
}

test('readValue() takes a bit field apart as compilers put it together', () => {
  // struct { u32 a:3; u32 b:7; s32 c:2; } = { 5, 100, -1 } is 0x00000f25
  const { read, write } = compiled(b => {
    const [u32, s32] = [b.int('u32', 4), b.int('s32', 4, { signed: true })]
    return b.struct('s', 4, [
      { name: 'a', type: u32, bitOff: 0, bitSize: 3 },
      { name: 'b', type: u32, bitOff: 3, bitSize: 7 },
      { name: 'c', type: s32, bitOff: 10, bitSize: 2 },
    ])
  })
  assert.deepEqual(read(0x25, 0x0f, 0, 0), { a: 5, b: 100, c: -1 })
  assert.deepEqual(write(4, { a: 5, b: 100, c: -1 }), [0x25, 0x0f, 0, 0])
})

test('readValue() reads every member of a union, and writeValue() writes the one that is given', () => {
  const { read, write } = compiled(b => {
    const [u8, u16] = [b.int('u8', 1), b.int('u16', 2)]
    const union = b.union('', 2, [
      { name: 'low', type: u8, bitOff: 0 },
      { name: 'both', type: u16, bitOff: 0 },
    ])
    return b.struct('s', 3, [
      { name: 'first', type: u8, bitOff: 0 },
      { name: '', type: union, bitOff: 8 },
    ])
  })
  assert.deepEqual(read(1, 2, 3), { first: 1, low: 2, both: 0x302 })
  assert.deepEqual(write(3, { low: 9 }), [0, 9, 0])
  assert.deepEqual(write(3, { both: 0x304 }), [0, 4, 3])
})

test('writeValue() fills a string up with zeros, and takes bytes only when they are as many', () => {
  const { write } = compiled(b => b.array(b.int('char', 1), b.int('int', 4), 4))
  assert.deepEqual(write(4, 'ab'), [97, 98, 0, 0])
  assert.deepEqual(write(4, 'abcd'), [97, 98, 99, 100])
  assert.deepEqual(write(4, Uint8Array.of(1, 2, 3, 4)), [1, 2, 3, 4])
  assert.throws(() => write(4, 'abcde'), RangeError)
  assert.throws(() => write(4, Uint8Array.of(1)), RangeError)
})

test('writeValue() takes numbers and bigints alike when they fit', () => {
  assert.deepEqual(compiled(b => b.int('u64', 8)).write(8, 1), [1, 0, 0, 0, 0, 0, 0, 0])
  assert.deepEqual(compiled(b => b.int('u16', 2)).write(2, 258n), [2, 1])
})

test('writeValue() names the member when a value does not fit', () => {
  const { write } = compiled(b => {
    const [u8, u32] = [b.int('u8', 1), b.int('u32', 4)]
    const inner = b.struct('inner', 4, [
      { name: 'count', type: b.array(b.int('s16', 2, { signed: true }), u32, 1), bitOff: 0 },
      { name: 'flag', type: u8, bitOff: 16, bitSize: 1 },
    ])
    return b.struct('outer', 12, [
      { name: 'stats', type: b.array(inner, u32, 2), bitOff: 0 },
      { name: 'f', type: b.float('float', 4), bitOff: 64 },
    ])
  })
  const ok = { count: [0], flag: 0 }
  const fails: [TypedValue, new () => Error, RegExp][] = [
    [
      { stats: [ok, { count: [32768] }] },
      RangeError,
      /^stats\[1\]\.count\[0\] takes -32768 to 32767, not 32768$/,
    ],
    [{ stats: [ok, { count: [1.5] }] }, RangeError, /^stats\[1\]\.count\[0\] takes a whole number/],
    [{ stats: [{ flag: 2 }, ok] }, RangeError, /^stats\[0\]\.flag takes 0 to 1, not 2$/],
    [{ stats: [ok] }, RangeError, /^stats takes 2 elements, not 1$/],
    [{ f: 1e300 }, RangeError, /^f takes a 32-bit float/],
    [{ f: 1n }, TypeError, /^f takes a number, not bigint$/],
    [{ stats: 1 }, TypeError, /^stats takes an array of 2, not number$/],
    [{ state: 1 }, TypeError, /has no member "state"$/],
    [3, TypeError, /^the value takes an object, not number$/],
    [{ stats: [{ flag: true }, ok] }, TypeError, /flag takes a whole number, not boolean$/],
  ]
  for (const [value, kind, message] of fails)
    assert.throws(
      () => write(12, value),
      (error: unknown) => error instanceof kind && message.test(error.message),
      `${message}`,
    )
  assert.ok(write(12, { stats: [ok, { count: [32767], flag: 1 }], f: Number.POSITIVE_INFINITY }))
})

test('readValue() makes a plain member of any name', () => {
  const { read } = compiled(b => b.struct('s', 1, [{ name: '__proto__', type: b.int('u8', 1), bitOff: 0 }]))
  const value = read(7) as object
  assert.equal(Object.getPrototypeOf(value), Object.prototype)
  assert.equal(Object.getOwnPropertyDescriptor(value, '__proto__')!.value, 7)
})

test('readValue() throws when there is no such value', () => {
  assert.throws(() => compiled(b => b.int('u32', 4)).read(1, 2, 3), RangeError)
  assert.throws(() => compiled(b => b.funcProto(0, [])).read(), TypeError)
  assert.throws(() => compiled(b => b.fwd('later', 'struct')).read(), TypeError)
  assert.throws(() => compiled(b => b.float('half', 2)).read(0, 0), TypeError)
})

test('readValue() throws FormatError when types cannot be, however they are put together', () => {
  const u32 = (b: BtfBuilder) => b.int('u32', 4)
  const bad: ((b: BtfBuilder) => number)[] = [
    b => b.struct('itself', 4, [{ name: 'a', type: 1, bitOff: 0 }]),
    b => b.struct('s', 4, [{ name: 'outside', type: u32(b), bitOff: 8 }]),
    b => b.struct('s', 8, [{ name: 'wide', type: u32(b), bitOff: 0, bitSize: 33 }]),
    b => b.struct('s', 8, [{ name: 'p', type: b.array(u32(b), u32(b), 2), bitOff: 0, bitSize: 3 }]),
    b => {
      let id = u32(b)
      for (let i = 0; i < 40; i++)
        id = b.union('', 4, [
          { name: `a${i}`, type: id, bitOff: 0 },
          { name: `b${i}`, type: id, bitOff: 0 },
        ])
      return id
    },
    b => {
      let id = u32(b)
      for (let i = 0; i < 100; i++) id = b.array(id, 1, 1)
      return id
    },
  ]
  for (const define of bad) assert.throws(() => compiled(define).read(0, 0, 0, 0, 0, 0, 0, 0), FormatError)
  // The same without what is wrong.
  assert.deepEqual(
    compiled(b => b.struct('s', 4, [{ name: 'a', type: u32(b), bitOff: 0 }])).read(1, 0, 0, 0),
    { a: 1 },
  )
  // Four thousand million elements of no size are none.
  assert.deepEqual(compiled(b => b.array(b.struct('e', 0, []), u32(b), 0xffff_ffff)).read(), [])
})

test('writeValue() takes no number that JavaScript may have rounded, but the bigint', () => {
  const builder = new BtfBuilder()
  const u64 = builder.int('u64', 8)
  const s64 = builder.int('s64', 8, { signed: true })
  const btf = Btf.parse(builder.build())
  const bytes = new Uint8Array(8)
  for (const [type, value] of [
    [u64, 2 ** 53],
    // Both are written as 2^53 + 1.
    [u64, Number('9007199254740993')],
    [s64, -(2 ** 53) - 1],
    [u64, 2 ** 63],
  ] as const)
    assert.throws(() => writeValue(btf, type, bytes, 0, value), {
      name: 'RangeError',
      message: /as a bigint/,
    })
  for (const [type, value] of [
    [u64, 2 ** 53 - 1],
    [u64, 9007199254740993n],
    [s64, -(2 ** 53) + 1],
    [u64, 2n ** 64n - 1n],
    [u64, -0],
  ] as const) {
    writeValue(btf, type, bytes, 0, value)
    assert.equal(readValue(btf, type, bytes), BigInt(value))
  }
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 0.5, 1e300, -1])
    assert.throws(() => writeValue(btf, u64, bytes, 0, value), { name: 'RangeError' })
})

test('text keeps its first character, also where that marks an order of bytes', () => {
  const builder = new BtfBuilder()
  const chars = builder.array(builder.int('char', 1), builder.int('int', 4), 8)
  const btf = Btf.parse(builder.build())
  const bytes = new Uint8Array(8)
  for (const text of ['\ufeffabc', 'abc']) {
    writeValue(btf, chars, bytes, 0, text)
    assert.equal(readValue(btf, chars, bytes, 0, 'text'), text)
  }
})
