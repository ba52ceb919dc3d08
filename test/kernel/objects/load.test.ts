/**
 * Objects that a compiler made, loaded and run for real: global data, ring buffer, maps in maps,
 * sub-programs, tail call, kfunc, iterator, struct_ops, XDP, tcx and cgroup; as root, and what the
 * kernel allows under a token as well.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { attachIterator } from '../../../src/ebpf/attach/attach.ts'
import { attachProgram, attachStructOpsMap } from '../../../src/ebpf/attach/section.ts'
import { kernelBtf } from '../../../src/ebpf/kernel/btf.ts'
import { Link } from '../../../src/ebpf/link.ts'
import { type LoadedObject, type LoadOptions, loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { VerifierError } from '../../../src/errors.ts'
import { cgroupRoot } from '../../../src/lending/recipient/cgroup.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { privateBpffs } from '../ebpf/fixture.ts'
import { LoadLab } from './load-lab.ts'

const fixture = (name: string): string => join(ROOT, `test/fixtures/${name}.bpf.o`)

before(() => traceFds())
after(async () => {
  await endExecutors()
  assert.deepEqual(openFds(), [])
})

function load(name: string, options: LoadOptions = {}): Promise<LoadedObject> {
  return loadObject(parseObject(readFileSync(fixture(name)), { name }), { token: null, ...options })
}

function variable(object: LoadedObject, map: string, name: string): number {
  const { types } = object.spec.btf!
  const section = types.type(types.find(map, 'datasec')[0]!)
  assert.ok(section.kind === 'datasec')
  const found = section.vars.find(({ type }) => types.name(type) === name)!
  const view = new DataView(object.map(map).lookup(0)!.buffer)
  return found.size === 8 ? Number(view.getBigUint64(found.off, true)) : view.getInt32(found.off, true)
}

const counted = (object: LoadedObject, map: string): number =>
  Number(new DataView(object.map(map).lookup(0)!.buffer).getBigUint64(0, true))

test(
  'a ring buffer shows the newest records again, read or not, also once it went around',
  needsTokens(),
  async () => {
    using object = await load('network', { maps: { events: { maxEntries: 4096 } } })
    const program = object.program('count')
    const run = async (bytes: number): Promise<void> => {
      await program.testRun({ dataIn: new Uint8Array(bytes) })
    }
    const lengths = (ring: RingBuffer) =>
      ring.remembered(8).map(({ record, end }) => [new Uint32Array(record.buffer)[0], Number(end)])
    using ring = new RingBuffer(object.map('events'))
    assert.deepEqual(lengths(ring), [])
    for (const bytes of [60, 100]) await run(bytes)
    const two = [
      [60, 16],
      [100, 32],
    ]
    assert.deepEqual(lengths(ring), two)
    assert.deepEqual([ring.drain(() => {}), ring.position], [2, 32n])
    // Also whoever looks for the first time.
    using other = new RingBuffer(object.map('events'))
    assert.deepEqual(lengths(other), two)
    for (let i = 2; i < 300; i++) {
      await run(60 + (i % 40))
      ring.drain(() => {})
    }
    // 256 records of 16 bytes, but for the one that the next would overwrite.
    assert.deepEqual(
      lengths(other),
      Array.from({ length: 255 }, (_, i) => [60 + ((45 + i) % 40), (46 + i) * 16]),
    )
  },
)

test(
  'network.bpf.o runs: data, ring buffer, maps in maps, sub-programs, tail call',
  needsTokens(),
  async () => {
    const factor = new Uint8Array(new Uint32Array([3]).buffer)
    using object = await load('network', { maps: { '.rodata': { contents: factor } } })
    assert.deepEqual([...object.programs.keys()].sort(), ['count', 'egress', 'ingress', 'tail'])
    using ring = new RingBuffer(object.map('events'))
    const program = object.program('count')
    for (const bytes of [60, 100])
      assert.equal(
        (await program.testRun({ dataIn: new Uint8Array(bytes) })).returned,
        2 /* XDP_PASS: the tail call */,
      )
    const events = [ring.read(), ring.read(), ring.read()].map(
      record => record && [...new Uint32Array(record.buffer)],
    )
    assert.deepEqual(events, [[60, 60 * 60 * 3], [100, 100 * 100 * 3], undefined])
    assert.equal(counted(object, 'first'), 1)
    assert.equal(counted(object, 'second'), 1)
    assert.equal(variable(object, '.bss', 'seen'), 2)
    assert.equal(variable(object, '.bss', 'hidden_sum'), 0 + 1 + 2 + 3)
    assert.ok([100, 250, 300, 1000].includes(variable(object, '.bss', 'hz')))
    assert.equal(variable(object, '.data', 'no_such'), 0)
    const [major, minor] = readFileSync('/proc/sys/kernel/osrelease', 'utf8').split('.').map(Number)
    assert.equal(variable(object, '.bss', 'version') >> 8, (major! << 8) | minor!)
  },
)

test('rodata cannot be changed once it is loaded, and data can', needsTokens(), async () => {
  using object = await load('network')
  assert.throws(() => object.map('.rodata').update(0, new Uint8Array(4)), { errnoName: 'EPERM' })
  const { valueBytes } = object.map('.data')
  object.map('.data').update(0, new Uint8Array(valueBytes))
})

test('a program of a section with ? is loaded when asked for, and no other then', needsTokens(), async () => {
  using object = await load('network', { only: ['optional'] })
  assert.deepEqual([...object.programs.keys()], ['optional'])
})

test('programs and maps that do not exist are named, with those that do', needsTokens(), async () => {
  await assert.rejects(load('network', { only: ['nobody'] }), { code: 'BPFTOKEN_NOT_FOUND', hint: /count/ })
  await assert.rejects(load('network', { maps: { nothing: {} } }), {
    code: 'BPFTOKEN_NOT_FOUND',
    hint: /events/,
  })
})

test('a map that is not made fails only the programs that use it, and is named', needsTokens(), async () => {
  const maps = { events: { create: false } }
  using object = await load('network', { only: ['tail'], maps })
  assert.equal(object.maps.has('events'), false)
  await assert.rejects(load('network', { only: ['count'], maps }), (error: unknown) => {
    assert.ok(error instanceof VerifierError)
    assert.match(error.message, /map "events", which was not made/)
    return true
  })
})

test('an iterator finds the fields of kernel types, moved or missing ones too', needsTokens(), async () => {
  using network = await load('network')
  using object = await load('kernel', { only: ['dump_maps'] })
  using link = attachIterator(object.program('dump_maps'))
  const output = link.readIterator()
  const records = new Map<number, number>()
  for (let at = 0; at + 8 <= output.length; at += 8)
    records.set(output.readUInt32LE(at), output.readUInt32LE(at + 4))
  const { id, maxEntries } = network.map('events').info()
  assert.equal(records.get(id), maxEntries)
  assert.equal(variable(object, '.bss', 'guarded_taken'), 0)
})

test('an access that this kernel cannot satisfy is named', needsTokens(), async () => {
  await assert.rejects(load('kernel', { only: ['unguarded'] }), (error: unknown) => {
    assert.ok(error instanceof VerifierError)
    assert.match(error.message, /bpf_map(___none)?::no_such_member/)
    return true
  })
})

test('kfuncs are called; a weak one that is missing is not', needsTokens(), async t => {
  if (kernelBtf().types.find('bpf_cpumask_create', 'func').length === 0)
    return t.skip('this kernel has no kfunc bpf_cpumask_create')
  using object = await load('kernel', { only: ['use_kfunc'] })
  assert.equal((await object.program('use_kfunc').testRun()).returned, 1)
})

test('struct_ops: a congestion control is there while its link is', needsTokens(), async () => {
  const available = (): string => readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8')
  {
    using object = await load('congestion')
    assert.deepEqual([...object.structOps.keys()], ['linked'])
    assert.doesNotMatch(available(), /bpftoken_cc/)
    using link = attachStructOpsMap(object, 'linked')
    assert.ok(link instanceof Link)
    assert.equal(link.info().type, 'struct_ops')
    assert.match(available(), /bpftoken_cc/)
  }
  await eventually(() => !/bpftoken_cc/.test(available()), 'it is still there')
  {
    using object = await load('congestion', {
      maps: { linked: { create: false }, unlinked: { create: true } },
    })
    using registration = attachStructOpsMap(object, 'unlinked')
    assert.ok(!(registration instanceof Link))
    assert.match(available(), /bpftoken_cc2/)
  }
  await eventually(() => !/bpftoken_cc2/.test(available()), 'it is registered still')
})

test('XDP, tcx and cgroup programs attach where they are told to', needsTokens(), async () => {
  using object = await load('network')
  for (const [name, spec, type] of [
    ['count', { kind: 'xdp', device: 'lo', mode: 'skb' }, 'xdp'],
    ['ingress', { kind: 'tcx', device: 'lo', direction: 'ingress' }, 'tcx'],
    ['egress', { kind: 'cgroup', path: cgroupRoot() ?? assert.fail('no cgroup2 is mounted') }, 'cgroup'],
  ] as const) {
    using link = attachProgram(object, name, spec)
    assert.equal(link.info().type, type)
    assert.equal(link.info().programId, object.program(name).info().id)
  }
  assert.throws(() => attachProgram(object, 'count'), { code: 'BPFTOKEN_INPUT', reason: 'no-place' })
})

test('a pinned link is opened again by its path, and what is no link is refused', needsTokens(), async () => {
  using object = await load('network')
  using bpffs = privateBpffs()
  {
    using link = attachProgram(object, 'count', { kind: 'xdp', device: 'lo', mode: 'skb' })
    link.pin(`${bpffs.path}/link`)
    using again = Link.open(`${bpffs.path}/link`)
    assert.equal(again.info().id, link.info().id)
  }
  object.map('events').pin(`${bpffs.path}/map`)
  assert.throws(() => Link.open(`${bpffs.path}/map`), TypeError)
})

test(
  'under a token the network object runs in its own network namespace, and without one nothing is loaded',
  needsTokens(),
  async () => {
    const lab = await LoadLab.start(['bpf', 'net_admin'])
    try {
      const request = { file: fixture('network'), packets: 3 }
      const lent = await lab.load(EVERYTHING, request)
      assert.deepEqual([lent.ok, lent.message], [true, undefined])
      assert.equal(lent.token, true)
      assert.deepEqual(lent.links, ['xdp', 'tcx', 'cgroup'])
      // IPv4 and UDP headers and, for XDP, the Ethernet header too.
      const length = 50 + 8 + 20 + 14
      assert.deepEqual(lent.events, Array.from({ length: 3 }, () => [length, length * length]).flat())
      assert.equal(lent.inner, 3)
      assert.equal(lent.ingressBytes, 3 * length)
      // The whole machine's, of which three are ours.
      assert.ok(lent.cgroupPackets! >= 3)
      const alone = await lab.load({ cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }, request)
      assert.deepEqual([alone.ok, alone.errnoName], [false, 'EPERM'])
      assert.match(alone.hint!, /No BPF token is in use/)
    } finally {
      lab[Symbol.dispose]()
      await lab.ended
    }
  },
)

test(
  'under a token struct_ops, iterator and kfunc load with CAP_PERFMON, and the lack of it is named',
  needsTokens(),
  async () => {
    for (const [capabilities, ok] of [
      [['bpf', 'net_admin', 'perfmon'], true],
      [['bpf', 'net_admin'], false],
    ] as const) {
      const lab = await LoadLab.start(capabilities)
      try {
        const congestion = await lab.load(EVERYTHING, { file: fixture('congestion') })
        assert.equal(congestion.ok, ok, congestion.message)
        const iterator = await lab.load(EVERYTHING, { file: fixture('kernel'), only: ['dump_maps'] })
        assert.equal(iterator.ok, ok, iterator.message)
        if (!ok) assert.match(iterator.hint!, /CAP_PERFMON/)
      } finally {
        lab[Symbol.dispose]()
        await lab.ended
      }
    }
  },
)

test('the objects are what their sources compile to', t => {
  const { status, stderr } = spawnSync(join(ROOT, 'scripts/build-bpf.sh'), ['--check'], { encoding: 'utf8' })
  if (status === 3) return t.skip(stderr.trim())
  return assert.equal(status, 0, stderr)
})
