/**
 * Perf event arrays: what programs write arrives, what has no room is counted, waiting ends when
 * something comes or somebody aborts; and a program of Debian's own packages is read.
 */
import assert from 'node:assert/strict'
import { lookup } from 'node:dns/promises'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  alu64,
  atomic,
  call,
  exit,
  ldImm64,
  ldMapFd,
  ldMapValue,
  mov64,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R10,
  store,
} from '../../../src/ebpf/asm/insn.ts'
import { attachProgram } from '../../../src/ebpf/attach/section.ts'
import { attachUprobe } from '../../../src/ebpf/attach/trace.ts'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import type { BpfMap } from '../../../src/ebpf/map.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { onlineCpus, possibleCpus } from '../../../src/ebpf/per-cpu.ts'
import { PerfBuffer, type PerfRecord } from '../../../src/ebpf/perf-events.ts'
import type { Program } from '../../../src/ebpf/prog.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { CACHE } from '../../helpers/machine.ts'
import { count, counter, errno, kernelTest, loadProgram, makeMap } from './fixture.ts'

const BPF_F_CURRENT_CPU = 0xffff_ffffn

function events(): BpfMap {
  return makeMap({
    type: 'perf_event_array',
    keyBytes: 4,
    valueBytes: 4,
    maxEntries: possibleCpus(),
    name: 'events',
    token: null,
  })
}

/** Writes its number, counted from 0, twice: 16 bytes. Returns what the helper returned. */
function numbering(map: BpfMap, counts: BpfMap): Promise<Program> {
  return loadProgram({
    type: 'xdp',
    token: null,
    insns: [
      mov64(R6, R1),
      mov64(R2, 1),
      ldMapValue(R1, counts.fd.number, 0),
      atomic('add', 'u64', R1, 0, R2, { fetch: true }),
      store('u64', R10, -16, R2),
      store('u64', R10, -8, R2),
      mov64(R1, R6),
      ldMapFd(R2, map.fd.number),
      ldImm64(R3, BPF_F_CURRENT_CPU),
      mov64(R4, R10),
      alu64('+=', R4, -16),
      mov64(R5, 16),
      call('perf_event_output'),
      mov64(R0, R0),
      exit(),
    ],
  })
}

const numberOf = ({ data }: PerfRecord): number => Number(data.readBigUInt64LE(0))

function numbers(from: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => from + i)
}

const RUN = { dataIn: new Uint8Array(64) }

kernelTest('PerfBuffer gives every record, in order for each CPU, over many times its size', async () => {
  using map = events()
  using counts = counter()
  using program = await numbering(map, counts)
  using reader = new PerfBuffer(map, { bytesPerCpu: 4096 })
  assert.deepEqual(reader.cpus, onlineCpus())
  const records: PerfRecord[] = []
  for (let round = 0; round < 40; round++) {
    // There is room for 100 records of 32 bytes.
    for (let i = 0; i < 2; i++) await program.testRun({ ...RUN, repeat: 50 })
    reader.drain(record => records.push(record))
  }
  assert.equal(reader.lostCount, 0)
  assert.deepEqual(
    records.map(numberOf).sort((a, b) => a - b),
    numbers(0, 4000),
  )
  for (const cpu of reader.cpus) {
    const own = records.filter(record => record.cpu === cpu).map(numberOf)
    assert.deepEqual(
      own,
      [...own].sort((a, b) => a - b),
    )
  }
  // 16 bytes, and the padding of the kernel.
  assert.ok(
    records.every(({ data }) => data.length === 20 && data.readBigUInt64LE(8) === data.readBigUInt64LE(0)),
  )
})

kernelTest('PerfBuffer counts what was lost, and visit gives the rest without a copy', async () => {
  using map = events()
  using counts = counter()
  using program = await numbering(map, counts)
  const told: number[] = []
  using reader = new PerfBuffer(map, { bytesPerCpu: 4096, onLost: count => told.push(count) })
  // One CPU's ring has room for 127 of them at most.
  const { returned } = await program.testRun({ ...RUN, repeat: 1000 })
  assert.notEqual(returned, 0)
  const seen: number[] = []
  const buffers = new Set<Buffer>()
  const take = (): number =>
    reader.visit((data, start, end) => {
      assert.equal(end - start, 20)
      buffers.add(data)
      seen.push(Number(data.readBigUInt64LE(start)))
    })
  assert.equal(take(), seen.length)
  // A record of what was lost needs room itself: the kernel writes it before the next sample.
  for (const _ of onlineCpus()) await program.testRun(RUN)
  take()
  await eventuallyLost(program, take, () => reader.lostCount > 0)
  assert.equal(seen.length + reader.lostCount, count(counts))
  assert.equal(
    told.reduce((a, b) => a + b, 0),
    reader.lostCount,
  )
  // Each ring's memory, and the place for records in two pieces.
  assert.ok(buffers.size <= 2 * onlineCpus().length)
})

/** Runs on until the CPU that lost something has told so. */
async function eventuallyLost(program: Program, take: () => void, told: () => boolean): Promise<void> {
  for (let tries = 0; !told(); tries++) {
    assert.ok(tries < 10_000, 'nobody tells what was lost')
    await program.testRun(RUN)
    take()
    await sleep(1)
  }
  // Whatever is in the rings now.
  take()
}

kernelTest('records() waits for what comes, and ends when it is aborted or left', async () => {
  using map = events()
  using counts = counter()
  using program = await numbering(map, counts)
  using reader = new PerfBuffer(map)
  // There before anybody waits.
  await program.testRun(RUN)
  const controller = new AbortController()
  const seen: number[] = []
  const reading = (async () => {
    for await (const record of reader.records({ signal: controller.signal })) seen.push(numberOf(record))
  })()
  for (let i = 1; i <= 20; i++) {
    await program.testRun(RUN)
    while (seen.length <= i) await sleep(1)
  }
  controller.abort(new Error('enough'))
  await assert.rejects(reading, /enough/)
  assert.deepEqual(seen, numbers(0, 21))
  setTimeout(() => void program.testRun(RUN), 50)
  for await (const record of reader) {
    assert.equal(numberOf(record), 21)
    break
  }
  await assert.rejects(reader.records({ signal: AbortSignal.abort(new Error('before')) }).next(), /before/)
})

kernelTest('a reader is woken after as many events, or as many bytes, as it wants', async () => {
  for (const wakeup of [{ events: 10 }, { bytes: 9 * 32 }]) {
    using map = events()
    using counts = counter()
    using program = await numbering(map, counts)
    const [cpu] = onlineCpus()
    using reader = new PerfBuffer(map, { wakeup, cpus: [cpu!] })
    let woken = 0
    const controller = new AbortController()
    const reading = (async () => {
      for await (const _ of reader.records({ signal: controller.signal })) woken++
    })()
    await sleep(20)
    const onCpu = async (): Promise<void> => {
      // It runs where the kernel likes. Elsewhere there is no event, and nothing is written.
      while ((await program.testRun(RUN)).returned !== 0) await sleep(0)
    }
    for (let i = 0; i < 9; i++) await onCpu()
    await sleep(50)
    assert.equal(woken, 0, 'woken too early')
    await onCpu()
    await onCpu()
    while (woken === 0) await sleep(1)
    controller.abort()
    await reading.catch(() => undefined)
    const rest = reader.drain(() => undefined)
    assert.equal(woken + rest, 11)
  }
})

kernelTest('a paused reader lets nobody write, and a closed one leaves the map empty', async () => {
  using map = events()
  using counts = counter()
  using program = await numbering(map, counts)
  const ENOENT = 2 ** 32 - 2
  {
    using reader = new PerfBuffer(map)
    reader.pause()
    assert.equal((await program.testRun(RUN)).returned, ENOENT)
    reader.resume()
    assert.equal((await program.testRun(RUN)).returned, 0)
    assert.equal(reader.read()?.data.length, 20)
    assert.equal(reader.read(), undefined)
  }
  assert.equal((await program.testRun(RUN)).returned, ENOENT)
})

kernelTest('a ring that is overwritten keeps the newest records', async () => {
  using map = events()
  using counts = counter()
  using program = await numbering(map, counts)
  using reader = new PerfBuffer(map, { overwrite: true, bytesPerCpu: 4096 })
  assert.throws(() => reader.read(), TypeError)
  assert.deepEqual(reader.latest(), [])
  assert.equal((await program.testRun({ ...RUN, repeat: 1000 })).returned, 0)
  const found = reader.latest()
  assert.ok(found.some(record => numberOf(record) === 999))
  assert.ok(found.length >= 100, `${found.length} records`)
  for (const cpu of reader.cpus) {
    const own = found.filter(record => record.cpu === cpu).map(numberOf)
    assert.deepEqual(own, numbers(Math.max(...own) + 1 - own.length, own.length).reverse())
  }
  await program.testRun(RUN)
  assert.ok(reader.latest().map(numberOf).includes(1000))
})

kernelTest('what is asked for and cannot be is refused before anything is opened', async () => {
  using map = events()
  using wrong = counter()
  assert.throws(() => new PerfBuffer(wrong), TypeError)
  assert.throws(() => new PerfBuffer(map, { bytesPerCpu: 0 }), RangeError)
  assert.throws(() => new PerfBuffer(map, { wakeup: { bytes: 65536 } }), RangeError)
  assert.throws(() => new PerfBuffer(map, { wakeup: { events: 0 } }), RangeError)
  assert.throws(() => new PerfBuffer(map, { cpus: [4095] }), errno('EINVAL'))
})

/** The module for names of Debian's package opensnitch-ebpf-modules. */
const OPENSNITCH = join(CACHE, 'corpus/065b61a0f7f55b81.o')

const OPENSNITCH_TEST = 'the unmodified module of opensnitch tells the names that are looked up'

async function readsNames(): Promise<void> {
  using object = await loadObject(parseObject(readFileSync(OPENSNITCH)), { token: null })
  using reader = new PerfBuffer(object.map('events'))
  using _entry = attachUprobe(object.program('addrinfo'), { path: 'libc.so.6', symbol: 'getaddrinfo' })
  using _return = attachUprobe(object.program('ret_addrinfo'), {
    path: 'libc.so.6',
    symbol: 'getaddrinfo',
    onReturn: true,
  })
  await lookup('localhost')
  const controller = new AbortController()
  for await (const { data } of reader.records({ signal: controller.signal })) {
    if (data.includes('localhost')) break
  }
}

if (existsSync(OPENSNITCH)) kernelTest(OPENSNITCH_TEST, readsNames)
else test(OPENSNITCH_TEST, { skip: '.cache/corpus is missing: run `make corpus`' })

/** bcc's runqslower, of Debian's package libbpf-tools. */
const RUNQSLOWER = join(CACHE, 'corpus/01fd0bec2fed4912.o')
const RUNQSLOWER_TEST = "bcc's runqslower tells who waited for a CPU"

async function readsWaits(): Promise<void> {
  const spec = parseObject(readFileSync(RUNQSLOWER))
  const only = spec.programs.flatMap(({ name, section }) => (section.startsWith('raw_tp/') ? [name] : []))
  using object = await loadObject(spec, { token: null, only })
  using reader = new PerfBuffer(object.map('events'))
  const links = only.map(name => attachProgram(object, name))
  try {
    let seen = 0
    for await (const { data } of reader.records()) {
      // struct event: char task[16], char prev_task[16], u64 delta_us, u32 pid, u32 prev_pid
      assert.equal(data.length, 52)
      assert.ok(data.readBigUInt64LE(32) > 0n)
      assert.ok(data.readUInt32LE(40) > 0)
      if (++seen === 20) break
    }
  } finally {
    for (const link of links) link.close()
  }
}

if (existsSync(RUNQSLOWER)) kernelTest(RUNQSLOWER_TEST, readsWaits)
else test(RUNQSLOWER_TEST, { skip: '.cache/corpus is missing: run `make corpus`' })

kernelTest('waiting ends when the reader is disposed of, and its descriptors are free again', async () => {
  using map = events()
  const perf = new PerfBuffer(map)
  const reading = (async () => {
    for await (const _ of perf) assert.fail('nobody writes')
  })()
  await sleep(20)
  perf[Symbol.dispose]()
  await reading
  assert.throws(() => perf.read(), { name: 'TypeError', message: 'the perf buffer is closed' })
  // Their numbers may be watched anew.
  using again = new PerfBuffer(map)
  const signal = AbortSignal.timeout(20)
  await assert.rejects(again.records({ signal }).next(), { name: 'TimeoutError' })
  assert.deepEqual(again.cpus, onlineCpus())
})

kernelTest('a ring buffer: waiting ends when the reader is disposed of', async () => {
  const map = makeMap({
    type: 'ringbuf',
    keyBytes: 0,
    valueBytes: 0,
    maxEntries: 4096,
    name: 'ring',
    token: null,
  })
  const ring = new RingBuffer(map)
  const reading = (async () => {
    for await (const _ of ring) assert.fail('nobody writes')
  })()
  await sleep(20)
  ring[Symbol.dispose]()
  map.close()
  await reading
  assert.throws(() => ring.read(), { name: 'TypeError', message: 'the ring buffer is closed' })
  using next = makeMap({
    type: 'ringbuf',
    keyBytes: 0,
    valueBytes: 0,
    maxEntries: 4096,
    name: 'ring',
    token: null,
  })
  using again = new RingBuffer(next)
  await assert.rejects(again.records({ signal: AbortSignal.timeout(20) }).next(), { name: 'TimeoutError' })
})
