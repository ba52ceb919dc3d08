/** What instructions refer to, beyond maps and functions: arenas, jump tables, tags, and nonsense. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { inCache } from '../../../../src/ebpf/attach/program-file.ts'
import { parseElf } from '../../../../src/ebpf/elf/elf.ts'
import { linkProgram } from '../../../../src/ebpf/load/linker.ts'
import { whyBroken } from '../../../../src/ebpf/object/reach.ts'
import { type ObjectSpec, parseObject } from '../../../../src/ebpf/object/spec.ts'
import { needTypes } from '../../../../src/ebpf/object/types-needed.ts'
import { FormatError } from '../../../../src/errors.ts'
import { planRights } from '../../../../src/needs/plan.ts'
import { ROOT } from '../../../helpers/machine.ts'

const bytesOf = (name: string): Buffer => readFileSync(join(ROOT, `test/fixtures/${name}.bpf.o`))
const specOf = (name: string): ObjectSpec => parseObject(bytesOf(name), { name })

/** Names of the functions of a program, in the order of their places. */
function orderOf(spec: ObjectSpec, name: string): string[] {
  const program = spec.programs.find(one => one.name === name)!
  const { funcInfo } = linkProgram(spec.functions, program.function)
  const words = new Uint32Array(funcInfo!.data.slice().buffer)
  const names = new Map(spec.functions.map(one => [one.typeId, one.name]))
  return Array.from({ length: words.length / 2 }, (_, i) => names.get(words[2 * i + 1]!)!)
}

test('functions are placed depth first, and what catches exceptions comes last', () => {
  assert.deepEqual(orderOf(specOf('callbacks'), 'throws'), [
    ...['throws', 'first', 'deepest', 'second', 'nonnull'],
    'caught',
  ])
})

test('a reference that is not understood concerns the programs that reach it, and no other', () => {
  const spec = specOf('callbacks')
  const [throws, lost] = ['throws', 'lost'].map(name => spec.programs.find(one => one.name === name)!)
  assert.equal(whyBroken(spec, throws!), undefined)
  assert.match(whyBroken(spec, lost!)!, /"lost" at 0: wants "nobody" for its exceptions/)
  assert.throws(() => linkProgram(spec.functions, lost!.function), FormatError)
  const plan = (programs: string[]) =>
    planRights([{ name: 'one', spec }], { loader: 'bpftoken', programs }).problems
  assert.deepEqual(plan(['throws']), [])
  assert.match(plan(['lost'])[0]!, /program "lost" cannot be loaded/)
})

test('a relocation of a section that is not known leaves the other programs alone', () => {
  const bytes = Buffer.from(bytesOf('modern/newer'))
  const elf = parseElf(bytes)
  // The section's name, so that nobody knows it.
  const at = bytes.indexOf('.jumptables\0')
  bytes.write('.jumpstairs', at)
  const spec = parseObject(bytes, { name: 'newer' })
  assert.equal(spec.programs.length, 3)
  const broken = spec.programs.filter(program => whyBroken(spec, program) !== undefined)
  assert.deepEqual(
    broken.map(({ name }) => name),
    ['jump_table'],
  )
  assert.ok(elf.sections.length > 0)
})

test('jump tables lead to slots of the whole program, and are rights of theirs', () => {
  const spec = specOf('modern/newer')
  const program = spec.programs.find(({ name }) => name === 'jump_table')!
  const { code, jumpTables } = linkProgram(spec.functions, program.function)
  assert.equal(jumpTables.length, 1)
  const { slots, targets } = jumpTables[0]!
  assert.equal(slots.length, 1)
  assert.equal(targets.length, 16)
  for (const target of targets) assert.ok(target > slots[0]! && target < code.length / 8)
  const words = (programs: string[]) =>
    planRights([{ name: 'one', spec }], { loader: 'bpftoken', programs }).rights.map(({ word }) => word)
  assert.ok(words(['jump_table']).includes('insn_array'))
  assert.ok(!words(['ordered']).includes('insn_array'))
})

test('the variables of an arena are its data, and want no map of their own', () => {
  const spec = specOf('modern/arena')
  assert.deepEqual(
    spec.maps.map(({ name, type }) => [name, type]),
    [['arena', 'arena']],
  )
  assert.equal(spec.arena!.map, 'arena')
  assert.equal(spec.arena!.sizeBytes, 20)
  const plan = planRights([{ name: 'one', spec }], { loader: 'bpftoken' })
  assert.deepEqual(
    plan.rights.filter(({ domain }) => domain === 'maps').map(({ word }) => word),
    ['arena'],
  )
  assert.equal(specOf('modern/arena-at').maps[0]!.extra, 1n << 44n)
})

test('what another loader says in a definition is kept and told', () => {
  const { maps } = specOf('legacy')
  assert.deepEqual(
    maps.map(({ name, pinByName, foreign }) => [name, pinByName, foreign]),
    [
      ['plain', false, undefined],
      ['pinned', true, undefined],
      ['global', false, 'has a definition of 28 bytes with 0, 2 at its end'],
    ],
  )
  const foreign = specOf('foreign')
  assert.equal(foreign.maps.find(({ name }) => name === 'replaced')!.foreign, 'is pinned as 16')
  const { notes } = planRights([{ name: 'one', spec: foreign }], { loader: 'cilium-ebpf' })
  assert.ok(notes.some(note => /map "replaced" is pinned as 16/.test(note)))
})

test('types are needed for what the kernel finds by them, and optional otherwise', () => {
  const needed = (name: string) => {
    const spec = specOf(name)
    return needTypes(
      spec,
      spec.programs.filter(({ autoload }) => autoload),
    )
  }
  assert.deepEqual(needed('callbacks'), ['the exception callback of program "throws"'])
  assert.deepEqual(needed('modern/arena'), [])
  assert.match(needed('congestion').join(), /^struct_ops map "/)
  const right = (name: string) =>
    planRights([{ name, spec: specOf(name) }], { loader: 'bpftoken' }).rights.find(
      ({ word }) => word === 'btf_load',
    )!
  assert.equal(right('callbacks').certain, true)
  assert.equal(right('modern/arena').certain, false)
  assert.match(right('modern/arena').loses!, /names and source lines are missing/)
})

test('addresses of symbols without a type are told as what no workload has', () => {
  const spec = specOf('externs')
  const plan = (program: string) =>
    planRights([{ name: 'one', spec }], { loader: 'libbpf', programs: [program] })
  assert.match(plan('address').problems[0]!, /uses the address of "init_task", declared without a type/)
  assert.match(plan('weak_address').notes.join('\n'), /uses the address of "no_such_symbol"/)
  assert.deepEqual(plan('weak_address').problems, [])
  assert.deepEqual(plan('variable').problems, [])
})

test('inCache() finds a library of the right machine, and nothing in other bytes', () => {
  const strings = 'libx.so\0/wrong\0/right\0'
  const cache = Buffer.alloc(48 + 3 * 24 + strings.length)
  cache.write('glibc-ld.so.cache1.1')
  cache.writeUInt32LE(3, 20)
  const stringsOff = 48 + 3 * 24
  const entry = (n: number, flags: number, value: number, capabilities = 0n) => {
    const at = 48 + n * 24
    cache.writeInt32LE(flags, at)
    cache.writeUInt32LE(stringsOff, at + 4)
    cache.writeUInt32LE(stringsOff + value, at + 8)
    cache.writeBigUInt64LE(capabilities, at + 16)
  }
  entry(0, 0x0003, 8)
  entry(1, 0x0303, 8, 1n << 62n)
  entry(2, 0x0303, 15)
  cache.write(strings, stringsOff, 'latin1')
  assert.equal(inCache(cache, 'libx.so', 0x0303), '/right')
  assert.equal(inCache(Buffer.concat([Buffer.alloc(16), cache]), 'libx.so', 0x0303), '/right')
  assert.equal(inCache(cache, 'liby.so', 0x0303), undefined)
  assert.equal(inCache(cache.subarray(0, 60), 'libx.so', 0x0303), undefined)
  assert.equal(inCache(Buffer.from('no cache'), 'libx.so', 0x0303), undefined)
})
