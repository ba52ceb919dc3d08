/**
 * Objects of shapes that no compiler makes, of any size: many things that all lead to one big thing,
 * so that whoever looks at it anew for each takes time by the square. Each shape is told by how many
 * there are, `count`; the bytes grow with that. Pure.
 */
import { LD_IMM64 } from '../../src/ebpf/asm/insn.ts'
import { BtfBuilder } from '../../src/ebpf/btf/builder.ts'
import { SHF, SHN, SHT, STB, STT } from '../../src/ebpf/elf/elf.ts'
import {
  plainSection,
  type WrittenRelocation,
  type WrittenSection,
  type WrittenSymbol,
  writeElf,
} from '../../src/ebpf/static-link/elf-writer.ts'

const EXIT = [0x95, 0, 0, 0, 0, 0, 0, 0]
const CALL_RELATIVE = [0x85, 0x10, 0, 0]

function section(name: string, data: Uint8Array, more: Partial<WrittenSection> = {}): WrittenSection {
  return { ...plainSection(name, data), flags: SHF.ALLOC, ...more }
}

function code(
  name: string,
  data: Uint8Array | readonly number[],
  relocations: WrittenRelocation[] = [],
): WrittenSection {
  return section(name, Uint8Array.from(data), { flags: SHF.ALLOC | SHF.EXECINSTR, relocations })
}

function symbol(
  name: string,
  of: WrittenSection | number,
  value: number,
  sizeBytes: number,
  more: Partial<WrittenSymbol> = {},
): WrittenSymbol {
  return { name, section: of, value, sizeBytes, bind: STB.GLOBAL, type: STT.OBJECT, visibility: 0, ...more }
}

const func = { type: STT.FUNC }
const extern = { type: STT.NOTYPE }

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

/** One program that does nothing, so that something is to be loaded. */
function minimal(): { text: WrittenSection; main: WrittenSymbol } {
  const text = code('xdp', EXIT)
  return { text, main: symbol('main', text, 0, 8, func) }
}

function object(btf: BtfBuilder, sections: WrittenSection[], symbols: WrittenSymbol[]): Uint8Array {
  const { text, main } = minimal()
  btf.func('main', btf.funcProto(0, []))
  return writeElf([text, ...sections, plainSection('.BTF', btf.build())], [main, ...symbols])
}

/** A struct of as many members, all of the type `int`. */
function bigStruct(btf: BtfBuilder, name: string, count: number, member = (i: number) => `m${i}`) {
  const int = btf.int('int', 4, { signed: true })
  const members = upTo(count).map(i => ({ name: member(i), type: int, bitOff: i * 32 }))
  return btf.struct(name, count * 4, members)
}

/** As if variables of these types were in a section. Those of maps have to be global. */
function variables(btf: BtfBuilder, name: string, types: readonly number[], each = 0): number {
  const linkage = name === '.maps' ? 'global' : 'static'
  const vars = types.map((type, i) => ({ type: btf.var(`v${i}`, type, linkage), off: i * each, size: each }))
  return btf.datasec(name, types.length * each, vars)
}

function mapsOfOneStruct(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const int = btf.int('int', 4)
  const array = btf.ptr(btf.array(int, int, 2))
  const members = upTo(count).map(() => ({ name: 'type', type: array, bitOff: 0 }))
  const struct = btf.struct('', 8, members)
  variables(
    btf,
    '.maps',
    upTo(count).map(() => struct),
    8,
  )
  const maps = section('.maps', new Uint8Array(count * 8))
  return object(
    btf,
    [maps],
    upTo(count).map(i => symbol(`v${i}`, maps, i * 8, 8)),
  )
}

function structOpsOfOneStruct(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 'ops', count)
  const empty = btf.struct(
    'none',
    0,
    upTo(count).map(i => ({ name: `m${i}`, type: struct, bitOff: 0 })),
  )
  variables(
    btf,
    '.struct_ops',
    upTo(count).map(() => empty),
  )
  return object(btf, [section('.struct_ops', new Uint8Array(8))], [])
}

function structOpsPrograms(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const proto = btf.ptr(btf.funcProto(0, []))
  const struct = btf.struct(
    'ops',
    count * 8,
    upTo(count).map(i => ({ name: `m${i}`, type: proto, bitOff: i * 64 })),
  )
  variables(btf, '.struct_ops', [struct], count * 8)
  const text = code(
    'struct_ops',
    upTo(count).flatMap(() => EXIT),
  )
  const programs = upTo(count).map(i => symbol(`p${i}`, text, i * 8, 8, func))
  const relocations = programs.map((one, i) => ({ off: i * 8, symbol: one, type: 2 }))
  const ops = section('.struct_ops', new Uint8Array(count * 8), { relocations })
  return object(btf, [text, ops], programs)
}

function dataSections(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const names = upTo(Math.min(count, 60_000)).map(i => `.data.${i}`)
  for (const name of names) btf.datasec(name, 1, [])
  return object(
    btf,
    names.map(name => section(name, new Uint8Array(1), { flags: SHF.ALLOC | SHF.WRITE })),
    [],
  )
}

function sameNames(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const int = btf.int('int', 4)
  const member = { name: 'm', type: int, bitOff: 0 }
  const types = upTo(count).map(i =>
    i % 3 === 0
      ? btf.struct('a', 4, [member])
      : i % 3 === 1
        ? btf.typedef('a', int)
        : btf.enum('a', { a: 1 }),
  )
  variables(btf, '.data', types, 4)
  return object(btf, [section('.data', new Uint8Array(count * 4))], [])
}

function typedefsOfOneStruct(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 's', count)
  const types = upTo(count).map(i => btf.typedef(`t${i}`, struct))
  const all = btf.struct(
    'all',
    0xffff_fff0,
    types.map((type, i) => ({ name: `m${i}`, type, bitOff: 0 })),
  )
  variables(btf, '.data', [...types, all, ...types.map(type => btf.ptr(type))], 8)
  return object(btf, [section('.data', new Uint8Array((count * 2 + 1) * 8))], [])
}

/** Each level has the next one twice: two to the power of the depth. */
function doubled(count: number, leaf: (btf: BtfBuilder) => number): Uint8Array {
  const btf = new BtfBuilder()
  let type = leaf(btf)
  for (let level = 0; level < 50; level++)
    type = btf.struct('', 0xffff_fff0, [
      { name: '', type, bitOff: 0 },
      { name: '', type, bitOff: 0 },
    ])
  const types = upTo(count).map(i => btf.struct(`s${i}`, 0xffff_fff0, [{ name: '', type, bitOff: 0 }]))
  variables(btf, '.data', types, 8)
  return object(btf, [section('.data', new Uint8Array(count * 8))], [])
}

/** Structs that all have one big one within them without a name. */
function sharedAnonymous(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const shared = bigStruct(btf, '', count)
  const types = upTo(count).map(i => btf.struct(`s${i}`, count * 4, [{ name: '', type: shared, bitOff: 0 }]))
  variables(btf, '.data', types, 8)
  return object(btf, [section('.data', new Uint8Array(count * 8))], [])
}

/** Told apart one by one, from the end on. */
function chain(count: number): Uint8Array {
  const btf = new BtfBuilder()
  let type = btf.int('int', 4)
  const links = upTo(count).map(() => {
    type = btf.ptr(type)
    return type
  })
  btf.struct(
    'all',
    8,
    links.map((type, i) => ({ name: `m${i}`, type, bitOff: 0 })),
  )
  return object(btf, [], [])
}

function externsOfOneStruct(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 's', count)
  const tristate = btf.enum('libbpf_tristate', Object.fromEntries(upTo(count).map(i => [`e${i}`, i])))
  const names = (of: string) => upTo(count).map(i => `${of}${i}`)
  const listed = (of: string, type: number, section: string, each: number) =>
    btf.datasec(
      section,
      0,
      names(of).map((name, i) => ({ type: btf.var(name, type, 'extern'), off: i * each, size: each })),
    )
  listed('k', struct, '.ksyms', 4)
  listed('c', tristate, '.kconfig', 4)
  return object(
    btf,
    [],
    [...names('k'), ...names('c')].map(name => symbol(name, SHN.UNDEF, 0, 0, extern)),
  )
}

/** Each program calls the first of many functions, each of which calls the next. */
function sharedFunctions(count: number): Uint8Array {
  const text = code(
    '.text',
    upTo(count).flatMap(i => [...CALL_RELATIVE, ...word(i === count - 1 ? -2 : 1), ...EXIT]),
  )
  const functions = upTo(count).map(i => symbol(`f${i}`, text, i * 16, 16, func))
  const relocations = upTo(count).map(i => ({ off: i * 16, symbol: functions[0]!, type: 10 }))
  const programs = code(
    'xdp',
    upTo(count).flatMap(() => [...CALL_RELATIVE, ...word(-1), ...EXIT]),
    relocations,
  )
  const mains = upTo(count).map(i => symbol(`p${i}`, programs, i * 16, 16, func))
  return writeElf([text, programs], [...functions, ...mains])
}

function word(value: number): number[] {
  return [...new Uint8Array(Int32Array.of(value).buffer)]
}

/** Tables that lie over each other. */
function jumpTables(count: number): Uint8Array {
  const tables = section('.jumptables', new Uint8Array(count * 8))
  const each = upTo(count).map(i =>
    symbol(`t${i}`, tables, i * 8, (count - i) * 8, { bind: STB.LOCAL, type: STT.OBJECT }),
  )
  const relocations = each.map((one, i) => ({ off: i * 16, symbol: one, type: 1 }))
  const text = code(
    'xdp',
    [...upTo(count).flatMap(() => [LD_IMM64, ...Array<number>(15).fill(0)]), ...EXIT],
    relocations,
  )
  return writeElf([text, tables], [...each, symbol('main', text, 0, count * 16 + 8, func)])
}

function legacyMaps(count: number): Uint8Array {
  const sizeBytes = 28 * count
  const maps = section('maps', new Uint8Array(sizeBytes))
  const { text, main } = minimal()
  return writeElf([text, maps], [main, ...upTo(count).map(i => symbol(`m${i}`, maps, 0, sizeBytes))])
}

function legacySections(count: number): Uint8Array {
  const sections = upTo(Math.min(count, 60_000)).map(i => section(`maps/${i}`, new Uint8Array(28)))
  const { text, main } = minimal()
  return writeElf([text, ...sections], [main, ...sections.map((one, i) => symbol(`m${i}`, one, 0, 28))])
}

/** .BTF.ext of one table: records of one section each. */
function ext(
  table: number,
  recordWords: number,
  groups: readonly (readonly [number, number[]])[],
): WrittenSection {
  const words = [recordWords * 4, ...groups.flatMap(([name, record]) => [name, 1, ...record])]
  const bytes = new Uint8Array(32 + words.length * 4)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, 0xeb9f, true)
  view.setUint8(2, 1)
  view.setUint32(4, 32, true)
  view.setUint32(8 + table * 8 + 4, words.length * 4, true)
  for (const [i, value] of words.entries()) view.setUint32(32 + i * 4, value, true)
  return plainSection('.BTF.ext', bytes)
}

/** Names that are the tails of one long one. */
function tails(count: number): Uint8Array {
  const btf = new BtfBuilder()
  btf.typedef('x'.repeat(count * 12), btf.int('int', 4))
  const groups = upTo(count).map(i => [i + 1, [0, i + 1, i + 1, 0]] as const)
  const { text, main } = minimal()
  const sections = [text, plainSection('.BTF', btf.build())]
  return writeElf(
    [
      ...sections,
      ext(
        1,
        4,
        groups.map(([name, record]) => [name, [...record]]),
      ),
    ],
    [main],
  )
}

/** Relocations about as many types that all have one name, and about the members of a big struct. */
function flavours(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 'big', count)
  const int = btf.int('int', 4)
  const zero = btf.typedef('0', int)
  const types = upTo(count).map(() => btf.struct('a', 4, [{ name: 'm', type: int, bitOff: 0 }]))
  const paths = upTo(count).map(i => [btf.typedef(`0:${i}`, zero), i] as const)
  const blob = btf.build()
  const strings = Buffer.from(blob).indexOf('\x000\0', blob.length - count * 12 - 4096 < 0 ? 0 : 0, 'latin1')
  const base = new DataView(blob.buffer, blob.byteOffset).getUint32(16, true) + 24
  const off = (text: string, from: number) =>
    Buffer.from(blob).indexOf(`\0${text}\0`, from, 'latin1') + 1 - base
  let from = strings
  const groups: [number, number[]][] = []
  const text = code(
    'xdp',
    upTo(count * 2)
      .flatMap(() => [0xb7, 0, 0, 0, 1, 0, 0, 0])
      .concat(EXIT),
  )
  const name = off('a', base)
  const zeroOff = off('0', base)
  for (const [i, type] of types.entries()) groups.push([name, [i * 8, type, zeroOff, 8]])
  for (const [, i] of paths) {
    const at = off(`0:${i}`, from)
    from = at + base - 1
    groups.push([name, [(count + i) * 8, struct, at, 2]])
  }
  const named = code('a', text.data)
  return writeElf(
    [named, plainSection('.BTF', blob), ext(2, 4, groups)],
    [symbol('main', named, 0, count * 16 + 8, func)],
  )
}

function exceptionCallbacks(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const proto = btf.funcProto(0, [])
  for (const i of upTo(count)) btf.declTag(`exception_callback:f${i}`, btf.func(`p${i}`, proto))
  const text = code(
    '.text',
    upTo(count).flatMap(() => EXIT),
  )
  const programs = code(
    'xdp',
    upTo(count).flatMap(() => EXIT),
  )
  const symbols = upTo(count).flatMap(i => [
    symbol(`f${i}`, text, i * 8, 8, func),
    symbol(`p${i}`, programs, i * 8, 8, func),
  ])
  return writeElf([text, programs, plainSection('.BTF', btf.build())], symbols)
}

/** Structs within structs, further down than anybody may go by calling itself. */
function nested(count: number): Uint8Array {
  const btf = new BtfBuilder()
  let type = btf.int('int', 4)
  for (const i of upTo(count))
    type = i % 2 === 0 ? btf.struct('', 4, [{ name: 'm', type, bitOff: 0 }]) : btf.array(type, 1, 1)
  variables(btf, '.data', [type], 4)
  const data = section('.data', new Uint8Array(4), { flags: SHF.ALLOC | SHF.WRITE })
  const load = [LD_IMM64, ...Array<number>(15).fill(0)]
  const one = symbol('v0', data, 0, 4, { bind: STB.LOCAL })
  const text = code('xdp', [...load, ...EXIT], [{ off: 0, symbol: one, type: 1 }])
  const main = symbol('main', text, 0, 24, func)
  return writeElf([text, data, plainSection('.BTF', btf.build())], [main, one])
}

/** Loads of the address of one map whose value is big, again and again. */
function references(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 's', count)
  const data = section('.data', new Uint8Array(8), { flags: SHF.ALLOC | SHF.WRITE })
  variables(
    btf,
    '.data',
    upTo(count).map(() => struct),
  )
  const one = symbol('v0', data, 0, 8)
  const relocations = upTo(count).map(i => ({ off: i * 16, symbol: one, type: 1 }))
  const text = code(
    'xdp',
    [...upTo(count).flatMap(() => [LD_IMM64, ...Array<number>(15).fill(0)]), ...EXIT],
    relocations,
  )
  const main = symbol('main', text, 0, count * 16 + 8, func)
  return writeElf([text, data, plainSection('.BTF', btf.build())], [main, one])
}

function eventMaps(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const int = btf.int('int', 4)
  const array = btf.ptr(btf.array(int, int, 27))
  const map = btf.struct('', 8, [{ name: 'type', type: array, bitOff: 0 }])
  variables(
    btf,
    '.maps',
    upTo(count).map(() => map),
    8,
  )
  const kept = upTo(count).map(i => btf.ptr(btf.struct(`e${i}`, 4, [{ name: 'm', type: int, bitOff: 0 }])))
  btf.datasec(
    '.bss',
    count * 8,
    kept.map((type, i) => ({ type: btf.var(`k${i}`, type), off: i * 8, size: 8 })),
  )
  const bss = section('.bss', new Uint8Array(0), { type: SHT.NOBITS, sizeBytes: count * 8 })
  return object(btf, [section('.maps', new Uint8Array(count * 8)), bss], [])
}

/** Its variables are zeros, as many as an arena is said to have room for. */
function arena(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const int = btf.int('int', 4)
  const of = (n: number) => btf.ptr(btf.array(int, int, n))
  const map = btf.struct('', 16, [
    { name: 'type', type: of(33), bitOff: 0 },
    { name: 'max_entries', type: of(0xffff_ffff), bitOff: 64 },
  ])
  variables(btf, '.maps', [map], 16)
  const data = section('.addr_space.1', new Uint8Array(0), { type: SHT.NOBITS, sizeBytes: count * 2 ** 30 })
  return object(btf, [section('.maps', new Uint8Array(16)), data], [])
}

/** A loop in which what is known of the stack is lost by one place in each round. */
function slowlyLost(count: number): Uint8Array {
  const shifts = upTo(63).flatMap(i => [
    ...[0x79, 0xa2, ...half(-8 * (i + 2)), ...word(0)],
    ...[0x7b, 0x2a, ...half(-8 * (i + 1)), ...word(0)],
  ])
  const padding = Math.min(count, 32_000)
  const jump = -(padding + shifts.length / 8 + 1)
  const stores = upTo(64).flatMap(i => [0x7b, 0x1a, ...half(-8 * (i + 1)), ...word(0)])
  const text = code('xdp', [
    ...stores,
    ...upTo(padding).flatMap(() => [0xb7, 3, 0, 0, ...word(0)]),
    ...shifts,
    ...[0x7a, 0x0a, ...half(-512), ...word(0)],
    ...[0x15, 3, ...half(jump - 1), ...word(0)],
    ...EXIT,
  ])
  return writeElf([text], [symbol('main', text, 0, text.data.length, func)])
}

function half(value: number): number[] {
  return [...new Uint8Array(Int16Array.of(value).buffer)]
}

/** Global variables that are all of one big type. */
function globalsOfOneStruct(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 's', count)
  const names = upTo(count).map(i => `v${i}`)
  btf.datasec(
    '.data',
    count * 4,
    names.map((name, i) => ({ type: btf.var(name, struct), off: i * 4, size: 4 })),
  )
  const data = section('.data', new Uint8Array(count * 4), { flags: SHF.ALLOC | SHF.WRITE })
  return object(
    btf,
    [data],
    names.map((name, i) => symbol(name, data, i * 4, 4, { bind: STB.WEAK })),
  )
}

/** Externs of the linker's that are all of one big type. */
function externGlobals(count: number): Uint8Array {
  const btf = new BtfBuilder()
  const struct = bigStruct(btf, 's', count)
  const names = upTo(count).map(i => `v${i}`)
  btf.datasec(
    '.data',
    0,
    names.map(name => ({ type: btf.var(name, struct, 'extern'), off: 0, size: 4 })),
  )
  return object(
    btf,
    [],
    names.map(name => symbol(name, SHN.UNDEF, 0, 0, extern)),
  )
}

function manyAligned(count: number): Uint8Array {
  const sections = upTo(Math.min(count, 60_000)).map(() =>
    section('.data', new Uint8Array(1), { alignBytes: 1, flags: SHF.ALLOC | SHF.WRITE }),
  )
  const { text } = minimal()
  const bytes = writeElf([text, ...sections], [])
  // What is written is not laid out as it says.
  const view = new DataView(bytes.buffer)
  const table = Number(view.getBigUint64(40, true))
  for (const i of sections.keys()) view.setBigUint64(table + (i + 2) * 64 + 48, 4096n, true)
  return bytes
}

/** By name; each is about as big as `count` things take. */
export const SHAPES: Readonly<Record<string, (count: number) => Uint8Array>> = {
  'maps of one struct': mapsOfOneStruct,
  'struct_ops of one struct': structOpsOfOneStruct,
  'programs of struct_ops': structOpsPrograms,
  'data sections': dataSections,
  'types of one name': sameNames,
  'typedefs of one struct': typedefsOfOneStruct,
  'doubled members': count =>
    doubled(count, btf => btf.struct('', 4, [{ name: 'm', type: btf.int('int', 4), bitOff: 0 }])),
  'doubled nothing': count => doubled(count, btf => btf.struct('', 0, [])),
  'a shared anonymous struct': sharedAnonymous,
  'a chain of pointers': chain,
  'externs of one struct': externsOfOneStruct,
  'shared functions': sharedFunctions,
  'jump tables over each other': jumpTables,
  'old maps over each other': legacyMaps,
  'sections of old maps': legacySections,
  'tails of one name': tails,
  'flavours of one name': flavours,
  'exception callbacks': exceptionCallbacks,
  'structs within structs': nested,
  'references to a big map': references,
  'maps of events': eventMaps,
  'an arena of zeros': arena,
  'a stack slowly lost': slowlyLost,
  'variables of one struct': globalsOfOneStruct,
  'externs of the linker': externGlobals,
  'sections far apart': manyAligned,
}
