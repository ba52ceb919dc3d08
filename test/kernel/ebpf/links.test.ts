/**
 * What may be attached besides what attach.test.ts tries: who stands before whom, iterators over
 * part of what there is, filters of the classic traffic control, sockets that share an address,
 * counters of the CPU; and what the kernel tells of all that.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { exit, mov64, R0 } from '../../../src/ebpf/asm/insn.ts'
import {
  attachCgroup,
  attachIterator,
  attachNetkit,
  attachPerfEvent,
  attachReuseport,
  attachTcx,
  detachReuseport,
} from '../../../src/ebpf/attach/attach.ts'
import { attachTc, removeClsact } from '../../../src/ebpf/attach/classic-tc.ts'
import { attachDirectly, detachDirectly } from '../../../src/ebpf/attach/direct.ts'
import { attachUprobeMulti } from '../../../src/ebpf/attach/many.ts'
import { attachTrampoline, attachUprobe } from '../../../src/ebpf/attach/trace.ts'
import { BtfBuilder } from '../../../src/ebpf/btf/builder.ts'
import { BtfObject } from '../../../src/ebpf/btf/object.ts'
import type { Link } from '../../../src/ebpf/link.ts'
import { type LoadedObject, loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import type { Program } from '../../../src/ebpf/prog.ts'
import { enableStats, fdinfo, queryAttached } from '../../../src/ebpf/query.ts'
import { SyscallError } from '../../../src/errors.ts'
import { cgroupRoot } from '../../../src/lending/recipient/cgroup.ts'
import { netlinkAttribute, netlinkRequest, routeSocket } from '../../../src/sys/netlink.ts'
import { interfaceIndex, setIntOption, socket } from '../../../src/sys/socket.ts'
import { datagram } from '../../helpers/datagram.ts'
import { kernelSince, ROOT } from '../../helpers/machine.ts'
import {
  count,
  countAndReturn,
  counter,
  errno,
  inOwnNetns,
  kernelTest,
  loadProgram,
  makeMap,
  u64,
} from './fixture.ts'

inOwnNetns(__filename)

const LOOPBACK = 1
const OBJECT = join(ROOT, 'test/fixtures/modern/links.bpf.o')

function load(...only: string[]): Promise<LoadedObject> {
  return loadObject(parseObject(readFileSync(OBJECT), { name: 'links' }), { token: null, only })
}

function since(major: number, minor: number, name: string, run: () => Promise<void>): void {
  if (kernelSince(major, minor)) kernelTest(name, run)
  else test(name, { skip: `it is since Linux ${major}.${minor}` })
}

/** Returns -1: the next one decides. */
const passing = (): Promise<Program> =>
  loadProgram({ type: 'sched_cls', insns: [mov64(R0, -1), exit()], token: null })

const idOf = (program: Program): number => program.info().id

since(6, 6, 'programs of a device stand where their anchor says, and query tells it', async () => {
  using a = await passing()
  using b = await passing()
  using c = await passing()
  const target = { ifindex: LOOPBACK, direction: 'ingress' } as const
  const order = (): number[] =>
    queryAttached({ ifindex: LOOPBACK }, 'tcx_ingress').programs.map(({ programId }) => programId)
  assert.deepEqual(order(), [])
  using linkA = attachTcx(a, target)
  using linkB = attachTcx(b, { ...target, before: linkA })
  const { revision, programs } = queryAttached({ ifindex: LOOPBACK }, 'tcx_ingress')
  assert.deepEqual(
    programs.map(({ programId, linkId }) => [programId, linkId]),
    [
      [idOf(b), linkB.info().id],
      [idOf(a), linkA.info().id],
    ],
  )
  assert.throws(() => attachTcx(c, { ...target, revision: revision + 1n }), errno('ESTALE'))
  using linkC = attachTcx(c, { ...target, after: { linkId: linkB.info().id }, revision })
  assert.deepEqual(order(), [idOf(b), idOf(c), idOf(a)])
  linkC.detach()
  // Without a link: by program, and in place of another.
  attachDirectly(c, { ifindex: LOOPBACK }, { attachType: 'tcx_ingress', before: 'all' })
  assert.deepEqual(order(), [idOf(c), idOf(b), idOf(a)])
  using d = await passing()
  attachDirectly(d, { ifindex: LOOPBACK }, { attachType: 'tcx_ingress', replace: c })
  assert.deepEqual(order(), [idOf(d), idOf(b), idOf(a)])
  assert.throws(
    () => detachDirectly(c, { ifindex: LOOPBACK }, { attachType: 'tcx_ingress' }),
    errno('ENOENT'),
  )
  detachDirectly(d, { ifindex: LOOPBACK }, { attachType: 'tcx_ingress' })
  assert.deepEqual(order(), [idOf(b), idOf(a)])
  assert.throws(() => attachTcx(c, { ...target, before: linkA, after: linkB }), TypeError)
})

const letting = (): Promise<Program> =>
  loadProgram({
    type: 'cgroup_skb',
    expectedAttachType: 'cgroup_inet_egress',
    insns: [mov64(R0, 1), exit()],
    token: null,
  })

kernelTest('programs of a cgroup are queried, with those of its parents, and replaced', async () => {
  const cgroup = mkdtempSync(join(cgroupRoot()!, 'bpftoken-links-'))
  try {
    using a = await letting()
    using b = await letting()
    using link = attachCgroup(a, { cgroup, attachType: 'cgroup_inet_egress' })
    const own = (): number[] =>
      queryAttached({ cgroup }, 'cgroup_inet_egress').programs.map(({ programId }) => programId)
    assert.deepEqual(own(), [idOf(a)])
    const effective = queryAttached({ cgroup }, 'cgroup_inet_egress', { effective: true })
    assert.ok(effective.programs.some(({ programId }) => programId === idOf(a)))
    const options = { attachType: 'cgroup_inet_egress', mode: 'multi' } as const
    attachDirectly(b, { cgroup }, options)
    assert.deepEqual(own(), [idOf(a), idOf(b)])
    using c = await letting()
    attachDirectly(c, { cgroup }, { ...options, replace: b })
    assert.deepEqual(own(), [idOf(a), idOf(c)])
    detachDirectly(c, { cgroup }, { attachType: 'cgroup_inet_egress' })
    assert.deepEqual(own(), [idOf(a)])
    link.update(b)
    assert.deepEqual(own(), [idOf(b)])
  } finally {
    rmdirSync(cgroup)
  }
})

since(6, 17, 'programs of a cgroup stand where their anchor says', async () => {
  const cgroup = mkdtempSync(join(cgroupRoot()!, 'bpftoken-links-'))
  try {
    using a = await letting()
    using b = await letting()
    const target = { cgroup, attachType: 'cgroup_inet_egress' } as const
    using linkA = attachCgroup(a, target)
    const { revision } = queryAttached({ cgroup }, 'cgroup_inet_egress')
    assert.throws(() => attachCgroup(b, { ...target, revision: revision + 1n }), errno('ESTALE'))
    using _b = attachCgroup(b, { ...target, before: linkA, revision })
    const { programs } = queryAttached({ cgroup }, 'cgroup_inet_egress')
    assert.deepEqual(
      programs.map(({ programId }) => programId),
      [idOf(b), idOf(a)],
    )
  } finally {
    rmdirSync(cgroup)
  }
})

kernelTest('a filter of the classic traffic control sees packets, is replaced, and is gone', async () => {
  using counts = counter()
  using others = counter()
  const spec = { type: 'sched_cls', token: null } as const
  using program = await loadProgram({ ...spec, insns: countAndReturn(counts, 0) })
  using other = await loadProgram({ ...spec, insns: countAndReturn(others, 0) })
  {
    using filter = attachTc(program, { ifindex: LOOPBACK, direction: 'ingress', name: 'ours' })
    assert.ok(filter.handle > 0 && filter.priority > 0)
    assert.match(execFileSync('tc', ['filter', 'show', 'dev', 'lo', 'ingress'], { encoding: 'utf8' }), /ours/)
    await datagram()
    assert.ok(count(counts) > 0)
    const place = {
      ifindex: LOOPBACK,
      direction: 'ingress',
      priority: filter.priority,
      handle: filter.handle,
    } as const
    assert.throws(() => attachTc(other, place), errno('EEXIST'))
    filter.replace(other)
    const seen = count(counts)
    await datagram()
    assert.equal(count(counts), seen)
    assert.ok(count(others) > 0)
    using egress = attachTc(program, { ifindex: LOOPBACK, direction: 'egress', priority: 7, handle: 9 })
    assert.deepEqual([egress.priority, egress.handle], [7, 9])
    await datagram()
    assert.ok(count(counts) > seen)
  }
  assert.equal(execFileSync('tc', ['filter', 'show', 'dev', 'lo', 'ingress'], { encoding: 'utf8' }), '')
  const before = count(others)
  await datagram()
  assert.equal(count(others), before)
  removeClsact(LOOPBACK)
  assert.throws(() => removeClsact(LOOPBACK), SyscallError)
  assert.throws(() => attachTc(program, { ifindex: 4_000_000, direction: 'ingress' }), errno('ENODEV'))
})

/** By netlink: the `ip` of Debian 12 does not know the kind. False: nor does this kernel. */
function addNetkit(name: string): boolean {
  const RTM_NEWLINK = 16
  const NLM_F_EXCL_AND_CREATE = 0x600
  const [IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND] = [3, 18, 1]
  const body = Buffer.concat([
    // struct ifinfomsg
    Buffer.alloc(16),
    netlinkAttribute(IFLA_IFNAME, Buffer.from(`${name}\0`)),
    netlinkAttribute(IFLA_LINKINFO, netlinkAttribute(IFLA_INFO_KIND, Buffer.from('netkit\0'))),
  ])
  using route = routeSocket()
  try {
    netlinkRequest(route, 'RTM_NEWLINK', RTM_NEWLINK, NLM_F_EXCL_AND_CREATE, body, name)
    return true
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'EOPNOTSUPP') return false
    throw error
  }
}

since(6, 7, 'a netkit device runs its program, where the kernel has such devices', async () => {
  using counts = counter()
  using program = await loadProgram({
    type: 'sched_cls',
    expectedAttachType: 'netkit_primary',
    insns: countAndReturn(counts, 0),
    token: null,
  })
  // The kernel calls the other end nk0.
  if (!addNetkit('ours0')) {
    assert.throws(() => attachNetkit(program, { ifindex: LOOPBACK, end: 'primary' }), errno('EINVAL'))
    return
  }
  assert.throws(() => attachNetkit(program, { ifindex: LOOPBACK, end: 'primary' }), errno('ENXIO'))
  const ifindex = interfaceIndex('ours0')
  {
    using link = attachNetkit(program, { ifindex, end: 'primary' })
    const { ifindex: told, attachType } = link.info()
    assert.deepEqual([told, attachType], [ifindex, 'netkit_primary'])
    const { programs } = queryAttached({ ifindex }, 'netkit_primary')
    assert.deepEqual(
      programs.map(({ programId, linkId }) => [programId, linkId]),
      [[idOf(program), link.info().id]],
    )
    for (const name of ['ours0', 'nk0']) execFileSync('ip', ['link', 'set', name, 'up'])
    execFileSync('ip', ['address', 'add', '192.0.2.1/24', 'dev', 'ours0'])
    for (let tries = 0; count(counts) === 0; tries++) {
      assert.ok(tries < 1000, 'sees no packet')
      execFileSync('bash', ['-c', 'echo x >/dev/udp/192.0.2.9/9 || true'])
      await sleep(10)
    }
  }
  execFileSync('ip', ['link', 'delete', 'ours0'])
})

kernelTest('of sockets that share an address the program chooses one', async () => {
  const SO_REUSEPORT = 15
  using none = socket(2, 2)
  using program = await loadProgram({ type: 'socket_filter', insns: [mov64(R0, 0), exit()], token: null })
  assert.throws(() => detachReuseport(none), SyscallError)
  using chooser = await loadProgram({
    type: 'sk_reuseport',
    expectedAttachType: 'sk_reuseport_select',
    insns: [mov64(R0, 1), exit()],
    token: null,
  })
  using one = socket(2, 2)
  setIntOption(one, 1, SO_REUSEPORT, 1)
  for (const each of [program, chooser]) {
    attachReuseport(one, each)
    detachReuseport(one)
    assert.throws(() => detachReuseport(one), errno('ENOENT'))
  }
})

kernelTest('an infrared receiver that is none is refused', async () => {
  using program = await loadProgram({ type: 'socket_filter', insns: [mov64(R0, 0), exit()], token: null })
  // A kernel without receivers does not know the type; with them, this is no receiver.
  assert.throws(
    () => attachDirectly(program, { lirc: '/dev/null' }, { attachType: 'lirc_mode2' }),
    (error: unknown) =>
      error instanceof SyscallError && ['EINVAL', 'ENOTTY', 'ENODEV'].includes(error.errnoName),
  )
})

kernelTest('a perf event runs a program as often as it says', async () => {
  using object = await load('sampled')
  const samples = (): bigint => Buffer.from(object.map('numbers').lookup(0)!).readBigUInt64LE(0)
  {
    using link = attachPerfEvent(object.program('sampled'), {
      event: 'contextSwitches',
      every: { events: 1n },
      pid: process.pid,
    })
    const { type, perfEvent } = link.info()
    assert.equal(type, 'perf_event')
    if (kernelSince(6, 6)) assert.deepEqual(perfEvent, { kind: 'event', type: 1, config: 3n })
    for (let i = 0; samples() < 5n; i++) {
      assert.ok(i < 5000, 'no samples')
      await sleep(1)
    }
  }
  const seen = samples()
  for (let i = 0; i < 5; i++) await sleep(1)
  assert.equal(samples(), seen)
  assert.throws(
    () => attachPerfEvent(object.program('sampled'), { event: 'cpuClock', every: { hertz: 99n } }),
    TypeError,
  )
})

const words32 = (bytes: Buffer): number[] =>
  Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(i * 4))

async function streamed(link: Link, chunkBytes: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of link.iteratorOutput({ chunkBytes })) {
    assert.ok(piece.length > 0 && piece.length <= chunkBytes)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

kernelTest('an iterator goes over all tasks, those of a process, or one thread', async () => {
  using object = await load('tasks')
  const program = object.program('tasks')
  const tasksOf = (target: Parameters<typeof attachIterator>[1]): [number, number][] => {
    using link = attachIterator(program, target)
    const words = words32(link.readIterator())
    return Array.from({ length: words.length / 2 }, (_, i) => [words[2 * i]!, words[2 * i + 1]!])
  }
  assert.ok(tasksOf({}).length > 1)
  // Numbers as the kernel has them, which a PID namespace may have otherwise.
  const threads = tasksOf({ task: { pid: process.pid } })
  const [[leader] = [0]] = threads
  assert.ok(threads.length > 1)
  assert.deepEqual(new Set(threads.map(([, tgid]) => tgid)), new Set([leader]))
  assert.deepEqual(tasksOf({ task: { tid: process.pid } }), [[leader, leader]])
  using link = attachIterator(program, { task: { pid: process.pid } })
  assert.deepEqual(link.info().iteratesTask, { tid: 0, pid: process.pid })
  // Read in pieces that no record fits, it is the same.
  const words = words32(await streamed(link, 6))
  assert.deepEqual(new Set(words.filter((_, i) => i % 2 === 1)), new Set([leader]))
  assert.deepEqual(tasksOf({ task: { pid: 2 ** 22 } }), [])
})

kernelTest('an iterator goes over a cgroup and what is below or above it', async () => {
  const parent = mkdtempSync(join(cgroupRoot()!, 'bpftoken-links-'))
  const child = mkdtempSync(join(parent, 'child-'))
  try {
    using object = await load('cgroups')
    const countOf = (
      at: string,
      order: 'self' | 'descendantsFirst' | 'descendantsLast' | 'ancestors',
    ): number => {
      using link = attachIterator(object.program('cgroups'), { cgroup: { at, order } })
      assert.ok(link.info().iteratesCgroup!.cgroupId > 0n)
      return link.readIterator().length / 8
    }
    assert.equal(countOf(parent, 'self'), 1)
    assert.equal(countOf(parent, 'descendantsFirst'), 2)
    assert.equal(countOf(parent, 'descendantsLast'), 2)
    assert.equal(countOf(child, 'ancestors'), countOf(parent, 'ancestors') + 1)
    assert.throws(
      () => attachIterator(object.program('cgroups'), { cgroup: { at: '/proc', order: 'self' } }),
      errno('EBADF'),
    )
  } finally {
    rmdirSync(child)
    rmdirSync(parent)
  }
})

kernelTest('an iterator over a map is read piece by piece, and left or aborted in between', async () => {
  using object = await load('elements')
  const map = object.map('numbers')
  for (let i = 0; i < 5000; i++) map.update(i, u64(i))
  using link = attachIterator(object.program('elements'), { map })
  assert.equal(link.info().mapId, map.info().id)
  const bytes = await streamed(link, 4096)
  const numbers = Array.from({ length: bytes.length / 8 }, (_, i) => Number(bytes.readBigUInt64LE(i * 8)))
  assert.deepEqual(
    numbers,
    Array.from({ length: 5000 }, (_, i) => i),
  )
  assert.deepEqual(link.readIterator(), bytes)
  let pieces = 0
  for await (const _ of link.iteratorOutput({ chunkBytes: 64 })) if (++pieces === 3) break
  assert.equal(pieces, 3)
  const controller = new AbortController()
  await assert.rejects(async () => {
    for await (const _ of link.iteratorOutput({ chunkBytes: 64, signal: controller.signal }))
      controller.abort(new Error('enough'))
  }, /enough/)
})

kernelTest('links tell what they were made for', async () => {
  using program = await loadProgram({ type: 'kprobe', insns: [mov64(R0, 0), exit()], token: null })
  using link = attachUprobe(program, { path: 'libc.so.6', symbol: 'getppid', cookie: 77n })
  if (kernelSince(6, 6)) {
    const { perfEvent } = link.info()
    assert.ok(perfEvent?.kind === 'uprobe' && /libc/.test(perfEvent.path) && perfEvent.off > 0)
  }
  assert.match(fdinfo(link).get('prog_id') ?? '', /^\d+$/)
  if (!kernelSince(6, 8)) return
  using many = await loadProgram({
    type: 'kprobe',
    expectedAttachType: 'trace_uprobe_multi',
    insns: [mov64(R0, 0), exit()],
    token: null,
  })
  using multi = attachUprobeMulti(many, { path: 'libc.so.6', symbols: ['getppid', 'getuid'], onReturn: true })
  const { uprobes } = multi.info()
  assert.match(uprobes!.path, /\/libc\.so\.6$/)
  assert.deepEqual({ ...uprobes, path: '' }, { count: 2, onReturn: true, pid: 0, path: '' })
})

kernelTest('fdinfo tells of maps and programs, and what is counted while somebody wants it', async () => {
  using map = makeMap({ type: 'array', keyBytes: 4, valueBytes: 8, maxEntries: 4, token: null })
  assert.equal(fdinfo(map).get('frozen'), '0')
  assert.ok(Number(fdinfo(map).get('memlock')) >= 32)
  map.freeze()
  assert.equal(fdinfo(map).get('frozen'), '1')
  const builder = new BtfBuilder()
  builder.int('int', 4, { signed: true })
  using types = await BtfObject.load(builder.build(), { token: null })
  assert.equal(Number(fdinfo(types).get('btf_id')), types.info().id)
  using program = await loadProgram({ type: 'xdp', insns: [mov64(R0, 2), exit()], token: null })
  assert.equal(fdinfo(program).get('prog_type'), '6')
  assert.equal(fdinfo(program).get('prog_tag'), program.info().tag)
  const runs = { dataIn: new Uint8Array(64), repeat: 10 }
  await program.testRun(runs)
  const before = program.info().runCount
  {
    using _stats = enableStats()
    await program.testRun(runs)
  }
  const { runCount, runTimeNs } = program.info()
  // Somebody else may have them counted, too.
  assert.ok(runCount >= before + 10n)
  assert.ok(runTimeNs > 0n)
})

since(6, 17, "a program's streams are read once", async () => {
  using object = await load('says')
  const program = object.program('says')
  assert.equal(program.readStream('stdout').length, 0)
  const ENOMEM = 2 ** 32 - 12
  const { returned } = await program.testRun()
  if (returned === ENOMEM) {
    // A kernel that cannot allocate without locks (kmalloc_nolock) keeps nothing.
    assert.equal(program.readStream('stdout').length, 0)
    return
  }
  await program.testRun()
  assert.equal(program.readStream('stdout').toString(), '3 and 4\n3 and 4\n')
  assert.equal(program.readStream('stderr').toString(), 'oh\noh\n')
  assert.equal(program.readStream('stdout').length, 0)
})

kernelTest(
  'a function of a program is replaced while the link is there, where the kernel lets it',
  async () => {
    using object = await load('asks')
    const target = object.program('asks')
    const spec = parseObject(readFileSync(OBJECT), { name: 'links' })
    let instead: LoadedObject
    try {
      instead = await loadObject(spec, {
        token: null,
        only: ['instead'],
        programs: { instead: { targetProgram: target } },
      })
    } catch (error) {
      // Some kernels refuse all that is patched into running code.
      assert.ok(error instanceof SyscallError && error.errnoName === 'EPERM', String(error))
      return
    }
    using owned = instead
    const returned = async (): Promise<number> =>
      (await target.testRun({ dataIn: new Uint8Array(64) })).returned
    assert.equal(await returned(), 1)
    {
      using link = attachTrampoline(owned.program('instead'), { attachType: 0 })
      assert.equal(link.info().type, 'tracing')
      assert.equal(await returned(), 2)
    }
    assert.equal(await returned(), 1)
  },
)
