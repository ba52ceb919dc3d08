/** Static linking beside bpftool: what is linked, what it does, and what is refused. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { parseElf } from '../../../src/ebpf/elf/elf.ts'
import { linkProgram } from '../../../src/ebpf/load/linker.ts'
import { type LoadedObject, loadObject } from '../../../src/ebpf/load/object.ts'
import { GlobalVariables } from '../../../src/ebpf/object/global-variables.ts'
import { type ObjectSpec, parseObject } from '../../../src/ebpf/object/spec.ts'
import { linkObjects } from '../../../src/ebpf/static-link/static-linker.ts'
import { BpftokenError, FormatError } from '../../../src/errors.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { SID, sidCommand } from '../../helpers/sid.ts'

before(() => traceFds())
after(() => assert.deepEqual(openFds(), []))

const hasBpftool = existsSync(join(SID, 'usr/sbin/bpftool'))
const needsBpftool = hasBpftool ? {} : { skip: '.cache/sid has no bpftool: run make debs' }

const path = (name: string): string => join(ROOT, `test/fixtures/linked/${name}.bpf.o`)
const ours = (...files: string[]) =>
  linkObjects(files.map(file => ({ name: file.split('/').at(-1)!, bytes: readFileSync(file) })))

/** What bpftool links; a text: why it does not. */
function theirs(scratch: Scratch, ...files: string[]): Uint8Array | string {
  const out = join(scratch.path, 'bpftool.o')
  const command = `exec ${sidCommand('bpftool')} gen object ${[out, ...files].map(one => `'${one}'`).join(' ')}`
  const { status, stderr } = spawnSync('sh', ['-c', command], { encoding: 'utf8' })
  return status === 0 ? readFileSync(out) : stderr.trim()
}

function variable(object: LoadedObject, section: string, name: string): number {
  const map = object.spec.maps.find(one => one.name === section)!
  return Number(
    new GlobalVariables(object.spec.btf!.types, map.valueTypeId).get(object.map(section).lookup(0)!, name),
  )
}

/** Both programs, run once each; what they leave in their variables. */
async function outcome(bytes: Uint8Array): Promise<Record<string, unknown>> {
  using object = await loadObject(parseObject(bytes, { name: 'linked' }), { token: null })
  const packet = { dataIn: new Uint8Array(60) }
  for (const name of ['first', 'second'])
    assert.equal((await object.program(name).testRun(packet)).returned, 2)
  return {
    tags: [...object.programs].map(([name, program]) => [name, program.info().tag]).sort(),
    first_total: variable(object, '.data', 'first_total'),
    second_total: variable(object, '.data', 'second_total'),
    maps: [...object.maps]
      .map(([name, { type, keyBytes, valueBytes, maxEntries }]) => [
        name,
        type,
        keyBytes,
        valueBytes,
        maxEntries,
      ])
      .sort(),
    ours: [...object.map('ours').keys()].length,
    theirs: [...object.map('theirs').keys()].length,
  }
}

test(
  'two objects are linked: weak and strong, externs, maps, data, hidden and static things',
  needsTokens(),
  async () => {
    const { bytes, unresolved } = ours(path('first'), path('second'))
    assert.deepEqual(unresolved, [])
    const found = await outcome(bytes)
    // first: 5 + sum (0+1+2 and three times helper's: 1+2+3) + helper(1) 2 + choose() 2, the strong one,
    // + weak_value 200, the strong one, + second_constant 20 + hidden_function(2) 9.
    assert.equal(found['first_total'], 5 + 9 + 2 + 2 + 200 + 20 + 9)
    assert.deepEqual([found['ours'], found['theirs']], [2, 1])
    const spec = parseObject(bytes)
    const { types } = spec.btf!
    for (const [name, kind] of [
      ['message', 'struct'],
      ['shared_map', 'struct'],
      ['declared_only', 'struct'],
      ['outer_type', 'struct'],
      ['unsigned int', 'int'],
    ] as const)
      assert.equal(
        types.find(name, kind).length,
        1,
        `${name} is there ${types.find(name, kind).length} times`,
      )
    assert.equal(types.find('outer_type', 'fwd').length, 0, 'the declaration was taken for the struct')
    for (const section of ['.data', '.rodata', '.bss', '.maps', '.kconfig'])
      assert.equal(types.find(section, 'datasec').length, 1)
  },
)

test('the linked object does what the one of bpftool does, with programs of the same tags', {
  ...needsTokens(),
  ...needsBpftool,
}, async () => {
  using scratch = new Scratch()
  const files = [path('first'), path('second')]
  const [mine, other] = [ours(...files).bytes, theirs(scratch, ...files)]
  assert.ok(typeof other !== 'string', String(other))
  assert.deepEqual(await outcome(mine), await outcome(other))
  const [a, b] = [parseObject(mine).btf!.types, parseObject(other).btf!.types]
  assert.ok(a.count <= b.count, `${a.count} types, bpftool ${b.count}`)
})

test(
  'a map may be declared before it is defined, where bpftool forgets its place',
  needsTokens(),
  async () => {
    const { maps: _, ...there } = await outcome(ours(path('second'), path('first')).bytes)
    const { maps: __, ...here } = await outcome(ours(path('first'), path('second')).bytes)
    // But for the room that alignment takes.
    assert.deepEqual(there, here)
  },
)

test('what was linked can be linked again, in parts', needsTokens(), async () => {
  using scratch = new Scratch()
  const alone = join(scratch.path, 'alone.o')
  const { bytes, unresolved } = ours(path('first'))
  assert.deepEqual([...unresolved].sort(), ['second_constant', 'second_total', 'twice'])
  writeFileSync(alone, bytes)
  assert.deepEqual(
    await outcome(ours(alone, path('second')).bytes),
    await outcome(ours(path('first'), path('second')).bytes),
  )
})

for (const [name, code, message] of [
  [
    'twice-defined',
    'BPFTOKEN_CONFLICT',
    /"first_total" is defined by first.bpf.o and by twice-defined.bpf.o/,
  ],
  ['other-type', 'BPFTOKEN_CONFLICT', /"first_total" .* it is of 8 and 4 bytes/],
  ['other-prototype', 'BPFTOKEN_CONFLICT', /"strong_here" .* it has 0 and 1 parameters/],
  ['other-map', 'BPFTOKEN_CONFLICT', /"ours" .* maxEntries is 16 and 17/],
  ['other-license', 'BPFTOKEN_CONFLICT', /The "license" of other-license.bpf.o differs/],
  ['rodata-pointer', 'BPFTOKEN_NOT_SUPPORTED', /points into section "\.rodata\.str1\.1" without naming/],
] as const)
  test(`${name} is refused, as bpftool refuses it`, t => {
    using scratch = new Scratch()
    assert.throws(() => ours(path('first'), path('second'), path(name)), { code, message })
    if (!hasBpftool) return t.skip(needsBpftool.skip!)
    const answer = theirs(scratch, path('first'), path('second'), path(name))
    assert.equal(typeof answer, 'string')
  })

/**
 * What debuggers want of code is left out by us. bpftool copies it, and refuses what it cannot.
 */
function refusesFrames(answer: Uint8Array | string, files: readonly string[]): boolean {
  return (
    typeof answer === 'string' &&
    answer.includes('relocation against STT_SECTION in non-exec section') &&
    files.some(file => parseElf(readFileSync(file)).sections.some(({ name }) => name === '.eh_frame'))
  )
}

/** All that the loader makes of an object, but the numbers of types and the order of things. */
function loadable(bytes: Uint8Array): unknown {
  let spec: ObjectSpec
  try {
    spec = parseObject(bytes)
  } catch (error) {
    // A library, which nobody can load before it is linked with something.
    if (!(error instanceof FormatError)) throw error
    return error.message
  }
  const programs = spec.programs.map(program => {
    try {
      const { code, references, jumpTables, coreRelos, lineInfo, funcInfo } = linkProgram(
        spec.functions,
        program.function,
      )
      const relos = coreRelos.map(({ slot, relos }) => [
        slot,
        relos.map(({ typeId, ...rest }) => ({ ...rest, type: spec.btf!.types.name(typeId) })),
      ])
      return {
        name: program.name,
        section: program.section,
        code: Buffer.from(code).toString('base64'),
        references: references.map(reference => ({ ...reference })),
        jumpTables,
        relos,
        lines: lineInfo?.data.length,
        functions: funcInfo?.data.length,
      }
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      return { name: program.name, problem: error.message }
    }
  })
  const maps = spec.maps.map(({ keyTypeId, valueTypeId, inner, contents, structOps, ...map }) => ({
    ...map,
    isTyped: [keyTypeId !== 0, valueTypeId !== 0],
    inner: inner && { ...inner, keyTypeId: 0, valueTypeId: 0 },
    contents: contents && Buffer.from(contents).toString('base64'),
  }))
  const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1)
  return {
    license: spec.license,
    programs: programs.sort(byName),
    maps: maps.sort(byName),
    externs: spec.externs.map(({ name, kind, weak }) => [name, kind, weak]),
  }
}

test('each object of the corpus is linked alone as bpftool does, to what the loader makes the same of', {
  ...needsCorpus(),
  ...needsBpftool,
}, t => {
  using scratch = new Scratch()
  const count = { linked: 0, refused: 0, frames: 0, bigEndian: 0 }
  const different: string[] = []
  for (const object of corpusObjects()) {
    const file = corpusFile(object)
    const other = theirs(scratch, file)
    let mine: Uint8Array | string
    try {
      mine = ours(file).bytes
    } catch (error) {
      if (!(error instanceof BpftokenError)) throw error
      mine = error.message
    }
    if (typeof mine === 'string' || typeof other === 'string') {
      if (typeof mine !== 'string' && refusesFrames(other, [file])) count.frames++
      else if (typeof mine !== typeof other)
        different.push(
          `${object.name}: ours ${typeof mine === 'string' ? mine : 'links'}, bpftool ${typeof other === 'string' ? other : 'links'}`,
        )
      else count.refused++
      continue
    }
    try {
      assert.deepEqual(loadable(mine), loadable(other))
      assert.equal(parseElf(mine).littleEndian, object.endian === 'little')
      count.linked++
      if (object.endian === 'big') count.bigEndian++
    } catch (error) {
      different.push(`${object.name}: ${(error as Error).message.slice(0, 400)}`)
    }
  }
  t.diagnostic(JSON.stringify(count))
  assert.deepEqual(different, [])
  assert.ok(count.linked > 100)
  assert.ok(count.bigEndian > 10)
})

test('pairs of objects of the corpus are linked or refused as bpftool does', {
  ...needsCorpus(),
  ...needsBpftool,
}, t => {
  using scratch = new Scratch()
  const count = { linked: 0, refused: 0 }
  const different: string[] = []
  // Of one byte order each; the many little-endian ones are not all taken.
  const pairs = (['little', 'big'] as const).flatMap(order => {
    const objects = corpusObjects().filter(({ endian }) => endian === order)
    return objects
      .slice(1)
      .flatMap((object, i) => (order === 'big' || i % 3 === 0 ? [[objects[i]!, object]] : []))
  })
  for (const pair of pairs) {
    const files = pair.map(corpusFile)
    const named = pair.map(({ name }) => name).join(' + ')
    const other = theirs(scratch, ...files)
    let mine: Uint8Array | string
    try {
      mine = ours(...files).bytes
    } catch (error) {
      if (!(error instanceof BpftokenError)) throw error
      mine = error.message
    }
    if (typeof mine !== 'string' && refusesFrames(other, files)) continue
    if (typeof mine !== typeof other)
      different.push(
        `${named}: ours ${typeof mine === 'string' ? mine : 'links'}, bpftool ${typeof other === 'string' ? other : 'links'}`,
      )
    else if (typeof mine === 'string') count.refused++
    else {
      count.linked++
      try {
        assert.deepEqual(loadable(mine), loadable(other as Uint8Array))
      } catch (error) {
        different.push(`${named}: ${(error as Error).message.slice(0, 400)}`)
      }
    }
  }
  t.diagnostic(JSON.stringify(count))
  assert.deepEqual(different, [])
})

test('what is linked is a file that tools of ELF take', needsTokens(), t => {
  const readelf = spawnSync('readelf', ['--version'])
  if (readelf.error !== undefined) return t.skip('there is no readelf')
  using scratch = new Scratch()
  const file = join(scratch.path, 'linked.o')
  writeFileSync(file, ours(path('first'), path('second')).bytes)
  const said = spawnSync('readelf', ['--wide', '--all', file], { encoding: 'utf8' })
  assert.equal(said.status, 0)
  assert.doesNotMatch(said.stderr, /Warning|Error/i)
  return assert.match(said.stdout, /LOCAL.*\n(?:.*\n)*?.*GLOBAL/)
})
