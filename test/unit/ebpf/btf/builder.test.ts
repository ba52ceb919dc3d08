import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { FormatError } from '../../../../src/errors.ts'

// What each kind looks like after the round trip is in btf.test.ts.

test('BtfBuilder.build() lays out header, types and strings back to back', () => {
  const b = new BtfBuilder()
  assert.equal(b.int('int', 4, { signed: true }), 1)
  const bytes = Buffer.from(b.build())
  assert.equal(
    bytes.toString('hex'),
    // magic version flags hdr_len, type_off type_len str_off str_len
    '9feb0100180000000000000010000000100000000500000001000000000000010400000020000001' + '00696e7400',
  )
})

test('BtfBuilder.build() stores a name once when it is used twice', () => {
  const b = new BtfBuilder()
  const int = b.int('same', 4)
  b.struct('same', 4, [{ name: 'same', type: int, bitOff: 0 }])
  const bytes = Buffer.from(b.build())
  assert.equal(bytes.indexOf('same'), bytes.lastIndexOf('same'))
})

test('BtfBuilder.build() can be read back when types are many and names are any', () => {
  const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter(s => !s.includes('\0'))
  const members = fc.uniqueArray(name, { maxLength: 40 })
  fc.assert(
    fc.property(fc.array(fc.tuple(name, members), { maxLength: 30 }), specs => {
      const b = new BtfBuilder()
      const int = b.int('int', 4)
      const ids = specs.map(([name, members]) =>
        b.struct(
          name,
          members.length * 4,
          members.map((name, i) => ({ name, type: int, bitOff: i * 32 })),
        ),
      )
      const btf = Btf.parse(b.build())
      assert.equal(btf.count, specs.length + 1)
      for (const [i, [name, members]] of specs.entries()) {
        const type = btf.type(ids[i]!)
        assert.ok(type.kind === 'struct')
        assert.equal(type.name, name)
        assert.equal(type.size, members.length * 4)
        assert.deepEqual(
          type.members.map(m => [m.name, m.bitOff]),
          members.map((name, i) => [name, i * 32]),
        )
      }
    }),
  )
})

test('BtfBuilder throws FormatError when a name or a count cannot be written', () => {
  const b = new BtfBuilder()
  assert.throws(() => b.int('a\0b', 4), FormatError)
  const many = Object.fromEntries(Array.from({ length: 0x10000 }, (_, i) => [`V${i}`, i]))
  assert.throws(() => b.enum('many', many), FormatError)
})
