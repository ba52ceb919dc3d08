/**
 * Attached programs see real events, stop seeing them once detached, and tell about them by ring
 * buffer.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import {
  alu64,
  atomic,
  call,
  exit,
  jumpIf,
  label,
  ldMapFd,
  ldMapValue,
  mov64,
  R0,
  R1,
  R2,
  R3,
  R4,
  R10,
  store,
} from '../../../src/ebpf/asm/insn.ts'
import {
  attachCgroup,
  attachRawTracepoint,
  attachSocketFilter,
  attachTcx,
  attachXdp,
} from '../../../src/ebpf/attach/attach.ts'
import type { Link } from '../../../src/ebpf/link.ts'
import { BpfMap } from '../../../src/ebpf/map.ts'
import { Program } from '../../../src/ebpf/prog.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { cgroupRoot } from '../../../src/lending/recipient/cgroup.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { socket } from '../../../src/sys/socket.ts'
import { datagram } from '../../helpers/datagram.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsTokens } from '../../helpers/machine.ts'

const LOOPBACK = 1

before(() => traceFds())
after(async () => {
  await endExecutors()
  assert.deepEqual(openFds(), [])
})

/** counts[0] += 1; return `verdict` */
function counting(counts: BpfMap, verdict: number) {
  return [
    ldMapValue(R1, counts.fd.number, 0),
    mov64(R2, 1),
    atomic('add', 'u64', R1, 0, R2),
    mov64(R0, verdict),
    exit(),
  ]
}

const counter = () => BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 8, maxEntries: 1, token: null })
const read = (counts: BpfMap) => Number(new DataView(counts.lookup(0)!.buffer).getBigUint64(0, true))

interface Case {
  type: 'xdp' | 'sched_cls' | 'cgroup_skb' | 'raw_tracepoint'
  verdict: number
  expected?: 'xdp' | 'tcx_ingress' | 'cgroup_inet_egress'
  attach: (program: Program) => Link
}

function inRootCgroup(program: Program): Link {
  const cgroup = cgroupRoot() ?? assert.fail('no cgroup2 is mounted')
  return attachCgroup(program, { cgroup, attachType: 'cgroup_inet_egress' })
}

const CASES: Readonly<Record<string, Case>> = {
  xdp: {
    type: 'xdp',
    expected: 'xdp',
    verdict: 2,
    attach: p => attachXdp(p, { ifindex: LOOPBACK, mode: 'skb' }),
  },
  tcx: {
    type: 'sched_cls',
    expected: 'tcx_ingress',
    verdict: -1,
    attach: p => attachTcx(p, { ifindex: LOOPBACK, direction: 'ingress' }),
  },
  cgroup: { type: 'cgroup_skb', expected: 'cgroup_inet_egress', verdict: 1, attach: inRootCgroup },
  raw_tracepoint: { type: 'raw_tracepoint', verdict: 0, attach: p => attachRawTracepoint(p, 'sys_enter') },
}

for (const [name, { type, verdict, expected, attach }] of Object.entries(CASES)) {
  test(
    `a program on ${name} counts while attached and no more once its link is closed`,
    needsTokens(),
    async () => {
      using counts = counter()
      const insns = counting(counts, verdict)
      const spec = {
        type,
        insns,
        license: 'GPL',
        token: null,
        ...(expected === undefined ? {} : { expectedAttachType: expected }),
      }
      using program = await Program.load(spec)
      {
        using link = attach(program)
        assert.equal(link.info().programId, program.info().id)
        await datagram()
      }
      const seen = read(counts)
      assert.ok(seen > 0, 'saw nothing')
      // A packet that was under way may still be counted.
      const stillCounts = async (): Promise<boolean> => {
        const before = read(counts)
        await datagram()
        return read(counts) > before
      }
      await eventually(async () => !(await stillCounts()), 'goes on counting')
    },
  )
}

test('a socket filter decides what a socket receives', needsTokens(), async () => {
  using counts = counter()
  using program = await Program.load({
    type: 'socket_filter',
    insns: counting(counts, -1),
    license: 'GPL',
    token: null,
  })
  // AF_PACKET, SOCK_RAW, all protocols in network order.
  using raw = socket(17, 3, 0x0300)
  attachSocketFilter(raw, program)
  await datagram()
  assert.ok(read(counts) > 0)
})

test('RingBuffer gives every record in order, over many times its size', needsTokens(), async () => {
  using ring = BpfMap.create({ type: 'ringbuf', maxEntries: 4096, token: null })
  using counts = counter()
  using program = await Program.load({
    type: 'xdp',
    license: 'GPL',
    token: null,
    insns: [
      mov64(R2, 1),
      ldMapValue(R1, counts.fd.number, 0),
      atomic('add', 'u64', R1, 0, R2, { fetch: true }),
      store('u64', R10, -8, R2),
      ldMapFd(R1, ring.fd.number),
      mov64(R2, R10),
      alu64('+=', R2, -8),
      mov64(R3, 8),
      mov64(R4, 0),
      call('ringbuf_output'),
      jumpIf('==', R0, 0, 'done'),
      mov64(R0, 1),
      exit(),
      label('done'),
      mov64(R0, 2),
      exit(),
    ],
  })
  using reader = new RingBuffer(ring)
  const records: number[] = []
  for (let round = 0; round < 20; round++) {
    await program.testRun({ dataIn: new Uint8Array(64), repeat: 100 })
    reader.drain(record => records.push(Number(new DataView(record.buffer).getBigUint64(0, true))))
  }
  const numbers = (from: number): number[] => Array.from({ length: 2000 }, (_, i) => from + i)
  assert.deepEqual(records, numbers(0))
  // The same in place: many times the ring's size in rounds that each fill most of it.
  records.length = 0
  for (let round = 0; round < 10; round++) {
    await program.testRun({ dataIn: new Uint8Array(64), repeat: 200 })
    const first = reader.visit((data, start, end) => {
      assert.equal(end - start, 8)
      records.push(Number(data.readBigUInt64LE(start)))
    }, 50)
    assert.equal(first, 50)
    reader.visit((data, start) => records.push(Number(data.readBigUInt64LE(start))))
  }
  assert.deepEqual(records, numbers(2000))
  assert.equal(
    reader.visit(() => assert.fail('there is none')),
    0,
  )
})
