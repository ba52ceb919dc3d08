import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { BTF_FEATURES, type BtfFeature, sanitizeBtf } from '../../../../src/ebpf/btf/sanitize.ts'

/** One of each kind that can be lacking; ids by name. */
function sample() {
  const b = new BtfBuilder()
  const int = b.int('int', 4, { signed: true })
  const variable = b.var('counter', int)
  const proto = b.funcProto(int, [
    { name: 'a', type: int },
    { name: '', type: int },
  ])
  const ids = {
    int,
    variable,
    proto,
    func: b.func('run', proto),
    section: b.datasec('.data.a', 8, [{ type: variable, off: 4, size: 4 }]),
    optional: b.datasec('?.data', 8, [{ type: variable, off: 4, size: 4 }]),
    float: b.float('float', 4),
    declTag: b.declTag('arg:ctx', int),
    typeTag: b.typeTag('user', int),
    enum32: b.enum('sign', { minus: -1 }),
    enum64: b.enum64('big', { one: 1n, huge: 2n ** 40n }),
  }
  return { ids, bytes: b.build() }
}

function lacking(...features: BtfFeature[]) {
  const { ids, bytes } = sample()
  const btf = Btf.parse(sanitizeBtf(bytes, new Set(features)))
  return { ids, type: (name: keyof typeof ids) => btf.type(ids[name]) }
}

test('sanitizeBtf() changes nothing when nothing is lacking', () => {
  const { bytes } = sample()
  assert.deepEqual(sanitizeBtf(bytes, new Set()), bytes)
})

test('sanitizeBtf() keeps ids, names and sizes when everything is lacking', () => {
  const { ids, bytes } = sample()
  const [before, after] = [Btf.parse(bytes), Btf.parse(sanitizeBtf(bytes, new Set(BTF_FEATURES)))]
  // One more: what stands in for the values of 64-bit enums.
  assert.equal(after.count, before.count + 1)
  const kinds = Object.fromEntries(Object.entries(ids).map(([name, id]) => [name, after.kind(id)]))
  assert.deepEqual(kinds, {
    ...{ int: 'int', variable: 'int', proto: 'enum', func: 'typedef', section: 'struct', optional: 'struct' },
    ...{ float: 'struct', declTag: 'int', typeTag: 'const', enum32: 'enum', enum64: 'union' },
  })
})

test('sanitizeBtf() makes structs of data sections', () => {
  const { ids, type } = lacking('btf_datasec')
  assert.deepEqual(type('section'), {
    ...{ id: ids.section, kind: 'struct', name: '_data_a', size: 8 },
    members: [{ name: 'counter', type: ids.variable, bitOff: 32, bitSize: 0 }],
  })
  assert.equal(type('optional').name, '__data')
  assert.deepEqual(type('variable'), {
    ...{ id: ids.variable, kind: 'int', name: 'counter', size: 1, bits: 8, bitOff: 0 },
    ...{ signed: false, char: false, bool: false },
  })
})

test('sanitizeBtf() renames a section with a question mark, and leaves the other as it is', () => {
  const { type } = lacking('btf_qmark_datasec')
  assert.deepEqual([type('optional').kind, type('optional').name], ['datasec', '_.data'])
  assert.deepEqual([type('section').kind, type('section').name], ['datasec', '.data.a'])
})

test('sanitizeBtf() makes functions static, or typedefs of enums', () => {
  const { ids, type } = lacking('btf_func_global')
  assert.deepEqual(type('func'), { id: ids.func, kind: 'func', name: 'run', type: ids.proto, linkage: 0 })
  const none = lacking('btf_func')
  assert.deepEqual(none.type('func'), { id: ids.func, kind: 'typedef', name: 'run', type: ids.proto })
  assert.deepEqual(none.type('proto'), {
    ...{ id: ids.proto, kind: 'enum', name: '', size: 4, signed: false },
    values: [
      { name: 'a', value: ids.int },
      { name: 'param', value: ids.int },
    ],
  })
})

test('sanitizeBtf() makes unions of 64-bit enums, and takes the sign off the others', () => {
  const { ids, type } = lacking('btf_enum64')
  assert.deepEqual(type('enum32'), {
    ...{ id: ids.enum32, kind: 'enum', name: 'sign', size: 4, signed: false },
    values: [{ name: 'minus', value: 0xffffffff }],
  })
  const placeholder = ids.enum64 + 1
  assert.deepEqual(type('enum64'), {
    ...{ id: ids.enum64, kind: 'union', name: 'big', size: 8 },
    members: [
      { name: 'one', type: placeholder, bitOff: 0, bitSize: 0 },
      { name: 'huge', type: placeholder, bitOff: 0, bitSize: 0 },
    ],
  })
})

test('sanitizeBtf() makes floats and tags anonymous', () => {
  const { ids, type } = lacking('btf_float', 'btf_type_tag')
  assert.deepEqual(type('float'), { id: ids.float, kind: 'struct', name: '', size: 4, members: [] })
  assert.deepEqual(type('typeTag'), { id: ids.typeTag, kind: 'const', name: '', type: ids.int })
})
