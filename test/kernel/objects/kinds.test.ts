/**
 * Kinds of objects that loaders have stumbled over, loaded and run: externs of another type, arenas,
 * exception callbacks, jump tables, what other loaders write into maps, and types that the kernel
 * does not take. The right outcome is libbpf's.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { programFile } from '../../../src/ebpf/attach/program-file.ts'
import { attachProgram } from '../../../src/ebpf/attach/section.ts'
import { parseElf } from '../../../src/ebpf/elf/elf.ts'
import { Features } from '../../../src/ebpf/kernel/features.ts'
import { type LoadedObject, type LoadOptions, loadObject } from '../../../src/ebpf/load/object.ts'
import { BpfMap, MAP_FLAGS } from '../../../src/ebpf/map.ts'
import { type ObjectSpec, parseObject } from '../../../src/ebpf/object/spec.ts'
import type { MapType } from '../../../src/ebpf/type-names.ts'
import {
  ConflictError,
  NotFoundError,
  NotSupportedError,
  SyscallError,
  VerifierError,
} from '../../../src/errors.ts'
import { planRights } from '../../../src/needs/plan.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { askOracle, needsOracle } from '../../corpus/oracle.ts'
import { isRoot, needsTokens, ROOT } from '../../helpers/machine.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { privateBpffs } from '../ebpf/fixture.ts'
import { LoadLab } from './load-lab.ts'

const fixture = (name: string): string => join(ROOT, `test/fixtures/${name}.bpf.o`)
const specOf = (name: string): ObjectSpec => parseObject(readFileSync(fixture(name)), { name })

before(() => traceFds())
after(async () => {
  await endExecutors()
  assert.deepEqual(openFds(), [])
})

function load(name: string, options: LoadOptions = {}): Promise<LoadedObject> {
  return loadObject(specOf(name), { token: null, ...options })
}

async function loads(name: string, options: LoadOptions = {}): Promise<void> {
  using _ = await load(name, options)
}

test('externs with the type that the kernel has are taken, others are refused', needsTokens(), async () => {
  for (const program of ['right', 'flavour', 'weak', 'task', 'pointer_to_other', 'missing_variable'])
    await loads('externs', { only: [program] })
  for (const program of ['more_parameters', 'other_result', 'pointer_to_number', 'pointer_to_declared'])
    await assert.rejects(
      loads('externs', { only: [program] }),
      (error: unknown) =>
        error instanceof ConflictError && /with a prototype that is incompatible with/.test(error.message),
      program,
    )
  await assert.rejects(
    loads('externs', { only: ['other_variable'] }),
    (error: unknown) =>
      error instanceof ConflictError && /"runqueues" with a type that is incompatible/.test(error.message),
  )
  await assert.rejects(loads('externs', { only: ['variable_flavour'] }), NotFoundError)
})

test('what a program throws is caught by the function that its tag names', needsTokens(), async () => {
  using object = await load('callbacks')
  const run = (bytes: number) => object.program('throws').testRun({ dataIn: new Uint8Array(bytes) })
  // first() is its argument + 4; second() 5 times it.
  assert.equal((await run(20)).returned, 20 * 5 + 20)
  assert.equal((await run(200)).returned, 41 * 5 + 1)
  await assert.rejects(loads('callbacks', { only: ['lost'] }), /wants "nobody" for its exceptions/)
})

test('programs and their loader share an arena, and the variables in it', needsTokens(), async t => {
  if ((await new Features(null).has('arena')) !== true) return t.skip('this kernel has no arenas')
  using object = await load('modern/arena')
  const arena = object.arena!
  assert.equal(arena.bytes.length, 10 * 4096)
  assert.equal(arena.get('counter'), 7)
  const { returned } = await object.program('count').testRun()
  assert.equal(returned, 8)
  assert.equal(arena.get('counter'), 8)
  assert.deepEqual(arena.get('zeros'), [0, 8, 0, 0])
  arena.set('counter', 41)
  assert.equal((await object.program('count').testRun()).returned, 42)
})

test('an arena is where its map_extra says, again and again', needsTokens(), async t => {
  if ((await new Features(null).has('arena')) !== true) return t.skip('this kernel has no arenas')
  const self = async (): Promise<bigint> => {
    using object = await load('modern/arena-at')
    await object.program('point').testRun()
    return object.arena!.get('self') as bigint
  }
  const first = await self()
  assert.equal(first >> 20n, 1n << 24n)
  assert.equal(await self(), first)
  using object = await load('modern/arena-at')
  // Two in one process cannot both be there.
  await assert.rejects(loads('modern/arena-at'), ConflictError)
  assert.ok(object.arena !== undefined)
})

test(
  'a jump table is loaded where the kernel has them, and nowhere in the way of others',
  needsTokens(),
  async t => {
    const options = { only: ['ordered', 'bounded'] }
    if ((await new Features(null).has('load_acquire')) === true) await loads('modern/newer', options)
    try {
      using object = await load('modern/newer', { only: ['jump_table'] })
      const { returned } = await object.program('jump_table').testRun({ dataIn: new Uint8Array(64) })
      // rx_queue_index is 0: sink = 0 * 0 + 5, and 5 + (0 ^ 5).
      assert.equal(returned, 10)
    } catch (error) {
      assert.ok(error instanceof NotSupportedError, String(error))
      assert.match(error.message, /"jump_table" has a jump table, which this kernel does not know/)
      t.diagnostic('this kernel has no jump tables')
    }
  },
)

test('what means something to another loader is refused, or taken as it is told', needsTokens(), async () => {
  await assert.rejects(
    loads('foreign'),
    (error: unknown) =>
      error instanceof NotSupportedError && /"replaced" is pinned as 16/.test(error.message),
  )
  using bpffs = privateBpffs()
  const options = { pinRoot: bpffs.path }
  using object = await load('foreign', { ...options, maps: { replaced: { pin: 'none' } } })
  assert.throws(() => BpfMap.open(`${bpffs.path}/replaced`), SyscallError)
  assert.deepEqual(object.warnings.length, 2)
  assert.match(object.warnings.join('\n'), /Map "ring": a ringbuf has no keys and values/)
  assert.match(object.warnings.join('\n'), /Map "perf": a perf_event_array/)
  assert.equal(object.map('ring').info().valueBytes, 0)
  const names = [...object.maps.values()].map(map => map.info().name)
  for (const name of ['.data.my_own-se', '.data.hidden', '.rodata.tunable', '.bss.hot', 'foreign.data'])
    assert.ok(names.includes(name.replace('-', '_')), `${name} is not among ${names.join(' ')}`)
  await loads('foreign', { ...options, maps: { replaced: { pin: 'by-name' } } })
  using pinned = BpfMap.open(`${bpffs.path}/replaced`)
  assert.equal(pinned.type, 'hash')
})

test('a legacy map is pinned as aya says, and used again where it is alike', needsTokens(), async () => {
  using bpffs = privateBpffs()
  const maps = { global: { pin: 'none' as const } }
  const options = { pinRoot: bpffs.path, maps }
  await loads('legacy', options)
  using object = await load('legacy', options)
  using pinned = BpfMap.open(`${bpffs.path}/pinned`)
  assert.equal(pinned.info().id, object.map('pinned').info().id)
  await assert.rejects(
    loads('legacy', { ...options, maps: { ...maps, pinned: { maxEntries: 3 } } }),
    (error: unknown) => error instanceof ConflictError && /: maxEntries is 16, not 3$/.test(error.message),
  )
})

test('a pinned map that differs is refused, with each thing that differs', needsTokens(), async () => {
  using bpffs = privateBpffs()
  using other = BpfMap.create({
    ...{ type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 16, token: null },
    flags: MAP_FLAGS.BPF_F_MMAPABLE,
  })
  other.pin(`${bpffs.path}/pinned`)
  await assert.rejects(
    loads('legacy', { pinRoot: bpffs.path, maps: { global: { pin: 'none' } } }),
    (error: unknown) =>
      error instanceof ConflictError &&
      /type is array, not hash, valueBytes is 4, not 8, flags is 1024, not 0$/.test(error.message),
  )
})

test('types that the kernel refuses are left out, unless something needs them', needsTokens(), async () => {
  const broken = (name: string): ObjectSpec => {
    const spec = specOf(name)
    const bytes = spec.btf!.bytes.slice()
    // A version that no kernel knows.
    bytes[2] = 9
    return { ...spec, btf: { ...spec.btf!, bytes } }
  }
  using object = await loadObject(broken('uprobe'), { token: null })
  assert.match(object.warnings[0]!, /does not have the object's types, so names and source lines are missing/)
  assert.ok(object.programs.size > 0)
  using _ = await loadObject(broken('callbacks'), { token: null, only: [] })
  await assert.rejects(
    loadObject(broken('callbacks'), { token: null }),
    (error: unknown) =>
      error instanceof SyscallError &&
      error.op === 'BPF_BTF_LOAD' &&
      /needed for the exception callback of program "throws"/.test(error.hint ?? '') &&
      error.cause instanceof VerifierError,
  )
  await assert.rejects(loadObject(broken('congestion'), { token: null }), /BPF_BTF_LOAD/)
})

test(
  'a member of struct_ops that the kernel lacks is refused, or left out with its program',
  needsTokens(),
  async () => {
    const bytes = Buffer.from(readFileSync(fixture('congestion')))
    const btf = parseElf(bytes).sections.find(({ name }) => name === '.BTF')!.data
    const at = bytes.indexOf('\0undo_cwnd\0', btf.byteOffset - bytes.byteOffset)
    assert.ok(at > 0)
    bytes.write('undo_cwnx', at + 1)
    const spec = parseObject(bytes, { name: 'congestion' })
    await assert.rejects(
      loadObject(spec, { token: null }),
      (error: unknown) =>
        error instanceof NotSupportedError &&
        /member "undo_cwnx" is program "undo_cwnd", and this kernel's tcp_congestion_ops has no such/.test(
          error.message,
        ),
    )
    using object = await loadObject(spec, { token: null, programs: { undo_cwnd: { load: false } } })
    assert.deepEqual([...object.programs.keys()].sort(), ['cong_avoid', 'ssthresh'])
  },
)

test(
  'without the right for types an object is loaded under a token, where none needs them',
  needsTokens(),
  async () => {
    const lab = await LoadLab.start(['bpf', 'net_admin', 'perfmon', 'sys_admin'])
    try {
      const masks = { ...EVERYTHING, cmds: EVERYTHING.cmds & ~(1n << 18n) }
      const answer = await lab.load(masks, { file: fixture('uprobe') })
      assert.ok(answer.ok, JSON.stringify(answer))
      assert.equal((await lab.load(masks, { file: fixture('callbacks') })).ok, false)
      assert.equal((await lab.load(EVERYTHING, { file: fixture('callbacks') })).ok, true)
    } finally {
      lab[Symbol.dispose]()
      await lab.ended
    }
  },
)

test(
  'reading through pointers of the kernel is planned with perfmon, and handing them on without',
  needsTokens(),
  async () => {
    const spec = specOf('pointers')
    const planned = spec.programs.map(({ name }) => {
      const plan = planRights([{ name: 'one', spec }], { loader: 'bpftoken', programs: [name] })
      return { name, masks: plan.masks, perfmon: plan.capabilities.some(one => one.name === 'perfmon') }
    })
    for (const held of [true, false]) {
      const lab = await LoadLab.start(['bpf', 'net_admin', ...(held ? ['perfmon'] : [])])
      try {
        for (const { name, masks, perfmon } of planned) {
          const answer = await lab.load(masks, { file: fixture('pointers'), only: [name] })
          assert.equal(
            answer.ok,
            held || !perfmon,
            `${name} ${held ? 'with' : 'without'} perfmon: ${answer.message}`,
          )
        }
      } finally {
        lab[Symbol.dispose]()
        await lab.ended
      }
    }
    assert.deepEqual(
      planned
        .filter(({ perfmon }) => !perfmon)
        .map(({ name }) => name)
        .sort(),
      ['hands_on', 'own_context'],
    )
  },
)

test('a type of map that nobody knows is refused by the kernel, in words', needsTokens(), async () => {
  const spec = specOf('legacy')
  const maps = spec.maps.map(map => ({ ...map, type: '99' as MapType, foreign: undefined, pinByName: false }))
  await assert.rejects(
    loadObject({ ...spec, maps }, { token: null }),
    (error: unknown) =>
      error instanceof SyscallError &&
      error.errnoName === 'EINVAL' &&
      /Map type 99 is newer than bpftoken/.test(error.hint ?? ''),
  )
})

test('a uprobe is set in the library that programs get by that name', needsTokens(), async t => {
  assert.match(programFile('libc.so.6'), /^\/.*libc\.so\.6$/)
  assert.equal(programFile('/some/where'), '/some/where')
  assert.match(programFile('sh'), /^\/.*\/sh$/)
  assert.throws(() => programFile('no-such-program'), NotFoundError)
  assert.throws(() => programFile('libno-such.so.1'), NotFoundError)
  using object = await load('uprobe')
  if (!isRoot) return t.skip('needs root')
  using _ = attachProgram(object, 'at_malloc')
  assert.throws(() => attachProgram(object, 'nowhere'), NotFoundError)
  assert.throws(() => attachProgram(object, 'not_there'), NotFoundError)
})

test('each of these objects that libbpf loads here gets the same tags from us', needsOracle(), async () => {
  const names = ['callbacks', 'trace', 'kernel', 'network', 'modern/arena']
  const answers = askOracle(
    'load',
    names.map(name => fixture(name)),
  )
  let compared = 0
  for (const [i, name] of names.entries()) {
    if (answers[i]!.error !== 0) continue
    using bpffs = privateBpffs()
    using object = await load(name, { pinRoot: bpffs.path })
    for (const { name: program, tag } of answers[i]!.programs!) {
      if (tag === undefined) continue
      compared++
      assert.equal(object.program(program).info().tag, tag, `${name}: ${program}`)
    }
  }
  assert.ok(compared > 0)
})
