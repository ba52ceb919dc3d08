/** The static linker on its own: hostile files, types that are the same. Beside bpftool: test/kernel/objects. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { parseElf, SHF, SHT, STB, STT } from '../../../../src/ebpf/elf/elf.ts'
import { parseObject } from '../../../../src/ebpf/object/spec.ts'
import { type WrittenSection, writeElf } from '../../../../src/ebpf/static-link/elf-writer.ts'
import { readRawTypes, TextTable, writeRawTypes } from '../../../../src/ebpf/static-link/raw-types.ts'
import { withoutDoubles } from '../../../../src/ebpf/static-link/same-types.ts'
import { linkObjects } from '../../../../src/ebpf/static-link/static-linker.ts'
import { BpftokenError, FormatError } from '../../../../src/errors.ts'
import { mutate, Random, seedOf } from '../../../corpus/mutate.ts'
import { ROOT } from '../../../helpers/machine.ts'

const file = (name: string): Buffer => readFileSync(join(ROOT, `test/fixtures/${name}.bpf.o`))

/** The blob with what is there twice left out. */
function reduced(bytes: Uint8Array): { btf: Btf; newId: Uint32Array } {
  const texts = new TextTable()
  const { types, newId } = withoutDoubles(readRawTypes(bytes, texts).types)
  return { btf: Btf.parse(writeRawTypes(types, texts).bytes), newId }
}

test('readRawTypes() and writeRawTypes() give back what they were given', () => {
  for (const name of ['typed', 'network', 'kernel', 'linked/first']) {
    const [bytes] = [readBtf(file(name))]
    const texts = new TextTable()
    const { bytes: written } = writeRawTypes(readRawTypes(bytes, texts).types, texts)
    const [a, b] = [Btf.parse(bytes), Btf.parse(written)]
    assert.equal(a.count, b.count)
    for (let id = 1; id <= a.count; id++) assert.deepEqual(b.type(id), a.type(id))
  }
})

function readBtf(object: Buffer): Uint8Array {
  const at = object.indexOf(Buffer.from([0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0]))
  return object.subarray(at)
}

test('withoutDoubles() keeps one of each, though they refer to each other in circles', () => {
  const b = new BtfBuilder()
  const make = (name: string, number: string): number => {
    const int = b.int('int', 4)
    // struct NAME { struct NAME *next; int NUMBER; }, whose id is the next but one.
    const pointer = b.ptr(int + 2)
    return b.struct(name, 16, [
      { name: 'next', type: pointer, bitOff: 0 },
      { name: number, type: int, bitOff: 64 },
    ])
  }
  const ids = [make('list', 'number'), make('list', 'number'), make('list', 'other'), make('tree', 'number')]
  const { btf, newId } = reduced(b.build())
  assert.equal(newId[ids[0]!], newId[ids[1]!])
  assert.equal(new Set(ids.map(id => newId[id])).size, 3)
  // One int, three structs, each with its pointer.
  assert.equal(btf.count, 7)
  const list = btf.type(newId[ids[0]!]!)
  assert.ok(list.kind === 'struct')
  assert.equal(btf.resolve((btf.type(list.members[0]!.type) as { type: number }).type)!.id, list.id)
})

test('withoutDoubles() takes a declaration for the one struct of its name, and for none of two', () => {
  const build = (second: string): Btf => {
    const b = new BtfBuilder()
    const int = b.int('int', 4)
    const forward = b.fwd('thing', 'struct')
    b.struct('user', 8, [{ name: 'thing', type: b.ptr(forward), bitOff: 0 }])
    const one = b.struct('thing', 4, [{ name: 'a', type: int, bitOff: 0 }])
    b.struct('user', 8, [{ name: 'thing', type: b.ptr(one), bitOff: 0 }])
    b.struct('thing', 4, [{ name: second, type: int, bitOff: 0 }])
    return reduced(b.build()).btf
  }
  const same = build('a')
  assert.deepEqual(
    [same.find('thing', 'fwd').length, same.find('user').length, same.find('thing').length],
    [0, 1, 1],
  )
  const other = build('b')
  assert.deepEqual([other.find('thing', 'fwd').length, other.find('user').length], [1, 2])
})

test('withoutDoubles() leaves variables and sections alone, and ends for types of any depth', () => {
  const b = new BtfBuilder()
  const int = b.int('int', 4)
  const vars = [b.var('x', int, 'static'), b.var('x', int, 'static')]
  b.datasec(
    '.bss',
    8,
    vars.map((type, i) => ({ type, off: i * 4, size: 4 })),
  )
  let chain = int
  for (let i = 0; i < 3000; i++) chain = b.ptr(chain)
  const { btf, newId } = reduced(b.build())
  assert.notEqual(newId[vars[0]!], newId[vars[1]!])
  assert.equal(btf.count, 1 + 2 + 1 + 3000)
})

test('linkObjects() wants an object', () => {
  assert.throws(() => linkObjects([]), { code: 'BPFTOKEN_INPUT' })
  assert.throws(() => linkObjects([{ name: 'x', bytes: new Uint8Array(3) }]), { code: 'BPFTOKEN_FORMAT' })
})

test('hostile changes of objects are linked, or refused with an error of ours', t => {
  const FIXED_SEED = 20261127
  const seeds = ['linked/first', 'linked/second', 'typed', 'network', 'kernel'].map(name =>
    seedOf(name, file(name)),
  )
  const untilMs = Date.now() + 5000
  let [count, linked] = [0, 0]
  for (; Date.now() < untilMs; count++) {
    const random = new Random(FIXED_SEED + count)
    const bytes = mutate(seeds[count % seeds.length]!, random)
    try {
      linkObjects([
        { name: 'good', bytes: file('linked/first') },
        { name: 'changed', bytes },
      ])
      linked++
    } catch (error) {
      assert.ok(error instanceof BpftokenError, `case ${count}: ${String((error as Error).stack)}`)
    }
  }
  t.diagnostic(`${count} inputs, ${linked} of them linked`)
})

/** An object of one function and a place in `.data` that points at its section; or an empty `.data`. */
function pointing(isEmpty: boolean, little: boolean): Uint8Array {
  const plain = { entryBytes: 0, alignBytes: 8, relocations: [] }
  const code = { name: 'code', type: SHT.PROGBITS, flags: SHF.EXECINSTR, sizeBytes: 8 }
  // r2 = 256, in which both halves of the registers and the number tell the order.
  const move = Uint8Array.from(little ? [0xb7, 2, 0, 0, 0, 1, 0, 0] : [0xb7, 0x20, 0, 0, 0, 0, 1, 0])
  const text: WrittenSection = { ...plain, ...code, data: move }
  const symbol = { name: '', bind: STB.LOCAL, type: STT.SECTION, visibility: 0, section: text, value: 0 }
  const place = { ...symbol, sizeBytes: 0 }
  const bytes = new Uint8Array(isEmpty ? 0 : 8)
  const data: WrittenSection = {
    ...plain,
    ...{ name: '.data', type: SHT.PROGBITS, flags: 0, sizeBytes: bytes.length, data: bytes },
    relocations: isEmpty ? [] : [{ off: 0, symbol: place, type: 2 }],
  }
  return writeElf([text, data], [place], little)
}

test('what points at a section is moved, also behind an object whose own section is empty', () => {
  for (const little of [true, false])
    for (const [objects, values] of [
      [[true, false], [8n]],
      [
        [false, true, false],
        [0n, 16n],
      ],
    ] as const) {
      const inputs = objects.map((isEmpty, i) => ({ name: `${i}.o`, bytes: pointing(isEmpty, little) }))
      const elf = parseElf(linkObjects(inputs).bytes)
      assert.equal(elf.littleEndian, little)
      const find = (name: string): Uint8Array => elf.sections.find(one => one.name === name)!.data
      const data = find('.data')
      const view = new DataView(data.buffer, data.byteOffset, data.length)
      assert.deepEqual(
        values.map((_, i) => view.getBigUint64(i * 8, little)),
        values,
      )
      assert.equal(data.length, values.length * 8)
      const one = parseElf(inputs[0]!.bytes).sections.find(({ name }) => name === 'code')!.data
      assert.deepEqual(
        [...find('code')],
        objects.flatMap(() => [...one]),
      )
    }
})

test('objects of two byte orders are refused, whichever comes first', () => {
  for (const order of [
    [true, false],
    [false, true],
  ] as const)
    assert.throws(
      () => linkObjects(order.map((little, i) => ({ name: `${i}.o`, bytes: pointing(false, little) }))),
      { code: 'BPFTOKEN_CONFLICT', message: /1\.o is for machines of another byte order than 0\.o/ },
    )
})

test('more sections than ELF can number are refused, as many as it can are written', () => {
  const sections = (count: number): WrittenSection[] =>
    Array.from({ length: count }, (_, i) => ({
      ...{ name: `s${i}`, type: SHT.PROGBITS, flags: 0, entryBytes: 0, alignBytes: 1, sizeBytes: 0 },
      ...{ data: new Uint8Array(), relocations: [] },
    }))
  assert.equal(parseElf(writeElf(sections(0xff00 - 3), [], true)).sections.length, 0xff00)
  assert.throws(() => writeElf(sections(0xff00 - 2), [], true), { code: 'BPFTOKEN_NOT_SUPPORTED' })
})

test('a type of as many words as there may be is written', () => {
  const b = new BtfBuilder()
  const int = b.int('int', 4)
  b.struct(
    'wide',
    4 * 65535,
    Array.from({ length: 65535 }, (_, i) => ({ name: `m${i}`, type: int, bitOff: i * 32 })),
  )
  const { btf } = reduced(b.build())
  const wide = btf.type(2)
  assert.ok(wide.kind === 'struct')
  assert.deepEqual([wide.members.length, wide.members.at(-1)!.name], [65535, 'm65534'])
})

test('an object whose externs another one defines is refused with what to do, and linked it is read', () => {
  const [first, second] = [file('linked/first'), file('linked/second')]
  assert.throws(
    () => parseObject(first, { name: 'first' }),
    (error: unknown) =>
      error instanceof FormatError &&
      /extern "twice" is in no section that the kernel fills in/.test(error.message) &&
      /^Link the object with the one that defines it/.test(error.hint ?? ''),
  )
  const { bytes } = linkObjects([
    { name: 'first', bytes: first },
    { name: 'second', bytes: second },
  ])
  assert.deepEqual(
    parseObject(bytes, { name: 'both' })
      .programs.map(({ name }) => name)
      .sort(),
    ['first', 'second', 'walk'],
  )
})
