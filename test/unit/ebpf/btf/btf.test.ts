import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { findEnums } from '../../../../src/ebpf/btf/enums.ts'
import { FormatError } from '../../../../src/errors.ts'

const VMLINUX = '/sys/kernel/btf/vmlinux'
const needsVmlinux = existsSync(VMLINUX) ? {} : { skip: `${VMLINUX} is missing` }
const HEADER_BYTES = 24

/** A blob with every kind, and ids by a name for each. */
function everyKind() {
  const b = new BtfBuilder()
  const int = b.int('int', 4, { signed: true })
  const u64 = b.int('u64', 8)
  const long = b.typedef('long_t', u64)
  const konst = b.const(b.volatile(long))
  const array = b.array(konst, int, 10)
  const pair = b.struct('pair', 16, [
    { name: 'a', type: int, bitOff: 0 },
    { name: 'b', type: u64, bitOff: 64 },
  ])
  const bits = b.struct('bits', 4, [
    { name: 'low', type: int, bitOff: 0, bitSize: 3 },
    { name: 'high', type: int, bitOff: 3, bitSize: 29 },
  ])
  const union = b.union('either', 16, [
    { name: 'pair', type: pair, bitOff: 0 },
    { name: 'number', type: u64, bitOff: 0 },
  ])
  const color = b.enum('color', { RED: 0, GREEN: 5, LAST: 0x8000_0000 })
  const error = b.enum('error', { OK: 0, FAILED: -1 })
  const wide = b.enum64('wide', { BIG: 0xffff_0000_0000_0001n })
  const signedWide = b.enum64('signed_wide', { LOW: -5n })
  const fwd = b.fwd('later', 'union')
  const ptr = b.ptr(b.typeTag('rcu', b.restrict(pair)))
  const proto = b.funcProto(int, [
    { name: 'ctx', type: ptr },
    { name: '', type: 0 },
  ])
  const func = b.func('main', proto)
  const variable = b.var('counter', u64, 'static')
  const data = b.datasec('.data', 8, [{ type: variable, off: 0, size: 8 }])
  const float = b.float('double', 8)
  const tag = b.declTag('user', pair, 1)
  const ids = {
    int,
    u64,
    long,
    konst,
    array,
    pair,
    bits,
    union,
    color,
    error,
    wide,
    signedWide,
    fwd,
    ptr,
    proto,
  }
  return { bytes: b.build(), ids: { ...ids, func, variable, data, float, tag } }
}

/** Opens and reads all there is. */
function readAll(bytes: Uint8Array): number {
  const btf = Btf.parse(bytes)
  let failures = 0
  const attempt = (read: () => unknown) => {
    try {
      read()
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      failures++
    }
  }
  for (let id = 0; id <= btf.count + 1; id++) {
    attempt(() => btf.type(id))
    attempt(() => btf.resolve(id))
    attempt(() => btf.sizeof(id))
  }
  attempt(() => btf.find('pair', 'struct'))
  attempt(() => findEnums(bytes, ['color', 'bpf_cmd']))
  return failures
}

function returnsOrThrowsFormatError(bytes: Uint8Array): void {
  try {
    readAll(bytes)
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error))
  }
}

test('Btf.type() gives back what was built, for every kind', () => {
  const { bytes, ids } = everyKind()
  const btf = Btf.parse(bytes)
  const type = (id: number) => {
    const { id: same, ...rest } = btf.type(id)
    assert.equal(same, id)
    return rest
  }
  const int = { kind: 'int', signed: false, char: false, bool: false, bitOff: 0 }
  assert.deepEqual(type(ids.int), { ...int, name: 'int', size: 4, signed: true, bits: 32 })
  assert.deepEqual(type(ids.u64), { ...int, name: 'u64', size: 8, bits: 64 })
  assert.deepEqual(type(ids.long), { kind: 'typedef', name: 'long_t', type: ids.u64 })
  assert.deepEqual(type(ids.array), { kind: 'array', name: '', type: ids.konst, index: ids.int, count: 10 })
  assert.deepEqual(type(ids.pair), {
    kind: 'struct',
    name: 'pair',
    size: 16,
    members: [
      { name: 'a', type: ids.int, bitOff: 0, bitSize: 0 },
      { name: 'b', type: ids.u64, bitOff: 64, bitSize: 0 },
    ],
  })
  assert.deepEqual(type(ids.bits), {
    kind: 'struct',
    name: 'bits',
    size: 4,
    members: [
      { name: 'low', type: ids.int, bitOff: 0, bitSize: 3 },
      { name: 'high', type: ids.int, bitOff: 3, bitSize: 29 },
    ],
  })
  assert.equal(type(ids.union).kind, 'union')
  const color = [
    { name: 'RED', value: 0 },
    { name: 'GREEN', value: 5 },
    { name: 'LAST', value: 0x8000_0000 },
  ]
  assert.deepEqual(type(ids.color), { kind: 'enum', name: 'color', size: 4, signed: false, values: color })
  const error = [
    { name: 'OK', value: 0 },
    { name: 'FAILED', value: -1 },
  ]
  assert.deepEqual(type(ids.error), { kind: 'enum', name: 'error', size: 4, signed: true, values: error })
  const wide = { kind: 'enum64', size: 8 }
  const big = { name: 'BIG', value: 0xffff_0000_0000_0001n }
  assert.deepEqual(type(ids.wide), { ...wide, name: 'wide', signed: false, values: [big] })
  const low = { name: 'LOW', value: -5n }
  assert.deepEqual(type(ids.signedWide), { ...wide, name: 'signed_wide', signed: true, values: [low] })
  assert.deepEqual(type(ids.fwd), { kind: 'fwd', name: 'later', union: true })
  const params = [
    { name: 'ctx', type: ids.ptr },
    { name: '', type: 0 },
  ]
  assert.deepEqual(type(ids.proto), { kind: 'func_proto', name: '', type: ids.int, params })
  assert.deepEqual(type(ids.func), { kind: 'func', name: 'main', type: ids.proto, linkage: 1 })
  assert.deepEqual(type(ids.variable), { kind: 'var', name: 'counter', type: ids.u64, linkage: 0 })
  const vars = [{ type: ids.variable, off: 0, size: 8 }]
  assert.deepEqual(type(ids.data), { kind: 'datasec', name: '.data', size: 8, vars })
  assert.deepEqual(type(ids.float), { kind: 'float', name: 'double', size: 8 })
  assert.deepEqual(type(ids.tag), { kind: 'decl_tag', name: 'user', type: ids.pair, component: 1 })
})

test('Btf.find() looks up by name and kind', () => {
  const { bytes, ids } = everyKind()
  const btf = Btf.parse(bytes)
  assert.deepEqual(btf.find('pair'), [ids.pair])
  assert.deepEqual(btf.find('pair', 'union'), [])
  assert.deepEqual(btf.find('air'), [])
  assert.deepEqual(btf.find(''), [])
  assert.deepEqual([...btf.ofKind('enum')], [ids.color, ids.error])
  assert.equal(btf.name(ids.func), 'main')
  assert.equal(btf.kind(ids.func), 'func')
})

test('Btf.sizeof() sees through typedefs, qualifiers and arrays', () => {
  const { bytes, ids } = everyKind()
  const btf = Btf.parse(bytes)
  assert.equal(btf.sizeof(ids.array), 80)
  assert.equal(btf.sizeof(ids.ptr), 8)
  assert.equal(btf.sizeof(ids.union), 16)
  assert.equal(btf.sizeof(ids.variable), 8)
  assert.equal(btf.resolve(ids.konst)?.name, 'u64')
  assert.equal(btf.resolve(0), undefined)
  for (const id of [0, ids.func, ids.fwd]) assert.throws(() => btf.sizeof(id), FormatError)
})

test('Btf.resolve() and sizeof() throw FormatError when types form a cycle', () => {
  const b = new BtfBuilder()
  const typedef = b.typedef('loop', 2)
  b.const(1)
  const array = b.array(3, 3, 2)
  const btf = Btf.parse(b.build())
  assert.throws(() => btf.resolve(typedef), FormatError)
  assert.throws(() => btf.sizeof(array), FormatError)
})

test('Btf.parse() accepts bytes at any alignment', () => {
  const { bytes, ids } = everyKind()
  for (const shift of [1, 2, 3, 4]) {
    const moved = new Uint8Array(bytes.length + shift)
    moved.set(bytes, shift)
    assert.deepEqual(Btf.parse(moved.subarray(shift)).find('pair'), [ids.pair])
  }
})

test('Btf.parse() names what is wrong when the header is', () => {
  const { bytes } = everyKind()
  const patched = (at: number, value: number) => {
    const copy = bytes.slice()
    new DataView(copy.buffer).setUint32(at, value, true)
    return copy
  }
  const rejects = (input: Uint8Array, text: RegExp) =>
    assert.throws(
      () => Btf.parse(input),
      error => error instanceof FormatError && text.test(error.message),
    )
  rejects(new Uint8Array(), /0 bytes are too few/)
  rejects(new Uint8Array(24), /magic is 0x0/)
  rejects(patched(0, 0x1_9feb), /big-endian/)
  rejects(patched(0, 0x7_eb9f), /version 7/)
  rejects(patched(4, 8), /header length 8/)
  rejects(patched(12, 0xffff_fff0), /type section runs past the end/)
  rejects(patched(16, 0xffff_fff0), /string section runs past the end/)
  rejects(patched(20, 0), /start and end with a zero byte/)
  rejects(patched(HEADER_BYTES + 4, 0x7f00_0000), /kind 127 is not known/)
})

test('Btf.type() throws FormatError when a name is endless', () => {
  const b = new BtfBuilder()
  const long = b.int('x'.repeat(2000), 4)
  assert.throws(() => Btf.parse(b.build()).type(long), /longer than 1024 bytes/)
})

test('findEnums() returns the enums that are there, by name', () => {
  const { bytes } = everyKind()
  const found = findEnums(bytes, ['color', 'error', 'olor', 'missing'])
  assert.deepEqual([...found.keys()].sort(), ['color', 'error'])
  assert.equal(found.get('color')?.get('GREEN'), 5)
  assert.equal(found.get('error')?.get('FAILED'), -1)
})

test('findEnums() agrees with Btf when it reads the running kernel', needsVmlinux, () => {
  const bytes = readFileSync(VMLINUX)
  const btf = Btf.parse(bytes)
  const found = findEnums(bytes, ['bpf_cmd', 'bpf_map_type'])
  for (const name of ['bpf_cmd', 'bpf_map_type']) {
    const type = btf.type(btf.find(name, 'enum')[0]!)
    assert.ok(type.kind === 'enum')
    assert.deepEqual(
      [...found.get(name)!],
      type.values.map(({ name, value }) => [name, value]),
    )
  }
  assert.equal(found.get('bpf_cmd')?.get('BPF_PROG_LOAD'), 5)
})

test('Btf reads every type of the running kernel', needsVmlinux, () => {
  const btf = Btf.parse(readFileSync(VMLINUX))
  assert.ok(btf.count > 10_000)
  for (let id = 1; id <= btf.count; id++) btf.type(id)
})

test('Btf.parse() throws FormatError at every truncation', () => {
  const { bytes } = everyKind()
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => readAll(bytes.slice(0, length)), FormatError)
  }
})

test('Btf returns or throws FormatError when bytes are flipped', () => {
  const { bytes } = everyKind()
  const flip = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255))
  fc.assert(
    fc.property(fc.array(flip, { minLength: 1, maxLength: 8 }), flips => {
      const copy = bytes.slice()
      for (const [at, value] of flips) copy[at] = value
      returnsOrThrowsFormatError(copy)
    }),
    { numRuns: 3000 },
  )
})

test('Btf returns or throws FormatError when a piece of vmlinux is damaged', needsVmlinux, () => {
  const piece = pieceOf(readFileSync(VMLINUX), 150_000, 50_000)
  assert.ok(Btf.parse(piece).count > 1000)
  const damage = fc.record({
    flips: fc.array(fc.tuple(fc.nat(piece.length - 1), fc.nat(255)), { maxLength: 20 }),
    length: fc.oneof({ arbitrary: fc.constant(piece.length), weight: 9 }, fc.nat(piece.length)),
  })
  fc.assert(
    fc.property(damage, ({ flips, length }) => {
      const copy = piece.slice(0, length)
      for (const [at, value] of flips) if (at < length) copy[at] = value
      returnsOrThrowsFormatError(copy)
    }),
    { numRuns: 60 },
  )
})

/**
 * A blob of vmlinux's first types and strings, so that damage meets real data behind a valid
 * header.
 */
function pieceOf(vmlinux: Buffer, typesBytes: number, stringsBytes: number): Uint8Array {
  const header = vmlinux.readUInt32LE(4)
  const strings = header + vmlinux.readUInt32LE(16)
  const build = (length: number) => {
    const piece = Buffer.alloc(HEADER_BYTES + length + stringsBytes)
    vmlinux.copy(piece, 0, 0, HEADER_BYTES)
    vmlinux.copy(piece, HEADER_BYTES, header, header + length)
    vmlinux.copy(piece, HEADER_BYTES + length, strings, strings + stringsBytes - 1)
    for (const [i, word] of [HEADER_BYTES, 0, length, length, stringsBytes].entries()) {
      piece.writeUInt32LE(word, 4 + i * 4)
    }
    return new Uint8Array(piece)
  }
  // The cut must fall between two types; the message says where the last whole one ends.
  try {
    Btf.parse(build(typesBytes))
    return build(typesBytes)
  } catch (error) {
    return build(Number((error as FormatError).context['off']) - HEADER_BYTES)
  }
}

/** The base, and what is added to it, as two blobs: what a builder makes, cut in two. */
function splitBlob(base: (b: BtfBuilder) => void, more: (b: BtfBuilder) => void) {
  const short = new BtfBuilder()
  base(short)
  const long = new BtfBuilder()
  base(long)
  more(long)
  const parts = (blob: Uint8Array) => {
    const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength)
    const types = view.getUint32(12, true)
    const from = HEADER_BYTES + types
    return { types: blob.subarray(HEADER_BYTES, from), strings: blob.subarray(from) }
  }
  const baseBlob = short.build()
  const whole = long.build()
  const [a, b] = [parts(baseBlob), parts(whole)]
  const types = b.types.subarray(a.types.length)
  const strings = b.strings.subarray(a.strings.length)
  const blob = Buffer.concat([whole.subarray(0, HEADER_BYTES), types, strings])
  const header = [HEADER_BYTES, 0, types.length, types.length, strings.length]
  for (const [i, word] of header.entries()) blob.writeUInt32LE(word, 4 + 4 * i)
  return { base: Btf.parse(baseBlob), blob: new Uint8Array(blob) }
}

function splitExample() {
  return splitBlob(
    b => {
      b.int('int', 4, { signed: true })
      b.struct('shared', 4, [{ name: 'a', type: 1, bitOff: 0 }])
    },
    b => {
      b.typedef('own_t', 2)
      b.struct('shared', 8, [{ name: 'own', type: 3, bitOff: 0 }])
      b.struct('shared___old', 8, [])
    },
  )
}

test('parse() continues ids and strings of the base when BTF is split', () => {
  const { base, blob } = splitExample()
  const split = Btf.parse(blob, base)
  assert.deepEqual([base.firstId, base.count, split.firstId, split.count], [1, 2, 3, 5])
  assert.equal(split.name(1), 'int')
  assert.equal(split.name(3), 'own_t')
  assert.equal(split.kind(2), 'struct')
  assert.equal(split.resolve(3)?.id, 2)
  assert.equal(split.sizeof(3), 4)
  const own = split.type(4)
  assert.ok(own.kind === 'struct')
  assert.deepEqual(own.members, [{ name: 'own', type: 3, bitOff: 0, bitSize: 0 }])
  assert.deepEqual([...split.ofKind('struct')], [2, 4, 5])
  assert.throws(() => split.type(6), FormatError)
  assert.throws(() => base.type(3), FormatError)
})

test('find() finds types of the base first, by searching and by the index alike', () => {
  const { base, blob } = splitExample()
  const split = Btf.parse(blob, base)
  for (let i = 0; i < 10; i++) {
    assert.deepEqual(split.find('shared'), [2, 4])
    assert.deepEqual(split.find('shared', 'typedef'), [])
    assert.deepEqual(split.find('shared___old'), [5])
    assert.deepEqual(split.find('own_t', 'typedef'), [3])
    assert.deepEqual(split.find('own'), [])
    assert.deepEqual(split.find(''), [])
  }
})

test('findFlavours() finds own types by their names without flavour', () => {
  const { base, blob } = splitExample()
  assert.deepEqual(Btf.parse(blob, base).findFlavours('shared'), [4, 5])
  assert.deepEqual(base.findFlavours('shared'), [2])
  assert.deepEqual(base.findFlavours('none'), [])
  const b = new BtfBuilder()
  for (const name of ['___a', 'a___', 'a____b', 'a___b___c', 'a___b', '_a___b', 'a___é'])
    b.struct(name, 0, [])
  const odd = Btf.parse(b.build())
  assert.deepEqual(odd.findFlavours('a'), [5, 7])
  assert.deepEqual(odd.findFlavours('a___b'), [4])
  assert.deepEqual(odd.findFlavours('_a'), [6])
  assert.deepEqual(odd.findFlavours('___a'), [1])
  assert.deepEqual(odd.findFlavours('a___'), [2])
  assert.deepEqual(odd.findFlavours('a____b'), [3])
})

test('find() with the index agrees with a search when it reads the running kernel', needsVmlinux, () => {
  const bytes = readFileSync(VMLINUX)
  const indexed = Btf.parse(bytes)
  for (let i = 0; i < 10; i++) indexed.find('task_struct')
  for (const name of ['task_struct', 'bpf_prog_load', 'int', 'u32', 'no_such_type', 'list_head'])
    assert.deepEqual(indexed.find(name), Btf.parse(bytes).find(name))
})

test('Btf reads the types of every loaded module', needsVmlinux, t => {
  const modules = readdirSync('/sys/kernel/btf').filter(name => name !== 'vmlinux')
  if (modules.length === 0) return t.skip('no module with types is loaded')
  const base = Btf.parse(readFileSync(VMLINUX))
  for (const name of modules) {
    const split = Btf.parse(readFileSync(`/sys/kernel/btf/${name}`), base)
    assert.equal(split.firstId, base.count + 1)
    for (let id = split.firstId; id <= split.count; id++) assert.equal(split.type(id).id, id)
  }
})

test('Btf throws FormatError when split BTF is damaged', () => {
  const { base, blob } = splitExample()
  assert.throws(() => Btf.parse(blob), FormatError)
  for (let at = 0; at < blob.length; at++) {
    const damaged = blob.slice()
    damaged[at]! ^= 0xff
    try {
      const split = Btf.parse(damaged, base)
      for (let id = 1; id <= split.count; id++) split.type(id)
      split.findFlavours('shared')
    } catch (error) {
      assert.ok(error instanceof FormatError, `byte ${at}: ${error}`)
    }
  }
})
