/**
 * Records of 64 bytes out of a ring buffer, ours beside a consumer in C: a program fills the ring,
 * and whose turn it is empties it. In time of processor.
 */
import type { Insn } from '../src/ebpf/asm/insn.ts'
import { CProgram } from './c-program.ts'
import { asm, maps, programs, rings } from './dist.ts'
import { type Comparison, compare, interleave } from './stats.ts'

const RING_BYTES = 1 << 24
const RECORD_BYTES = 64
/** As many as fit, with their headers and some room. */
const RECORDS = 200_000
const WARM_ROUNDS = 20
/** Half of the events that C takes in a second. */
const GOAL = 2
const NO_WAKEUP = 1

export async function measureRing(roundCount: number): Promise<Comparison[]> {
  using map = maps.BpfMap.create({ type: 'ringbuf', maxEntries: RING_BYTES, name: 'bench_ring', token: null })
  using program = await programs.Program.load({
    ...{ type: 'xdp', license: 'GPL', name: 'bench_fill', token: null },
    insns: fillCode(map.fd.number),
  })
  using ring = new rings.RingBuffer(map)
  using c = new CProgram('ring', [String(RING_BYTES)], [map.fd.number])
  const fill = async (): Promise<void> => {
    await program.testRun({ dataIn: new Uint8Array(64), repeat: RECORDS })
  }
  const theirs = async (): Promise<number> => {
    await fill()
    const [count, ns] = (await c.ask('drain')).split(' ').map(Number)
    if (count !== RECORDS) throw new Error(`The C consumer took ${count} records of ${RECORDS}`)
    return ns! / 1000
  }
  const ours = async (drain: () => number): Promise<number> => {
    await fill()
    const before = process.cpuUsage()
    const count = drain()
    const { user, system } = process.cpuUsage(before)
    if (count !== RECORDS) throw new Error(`Our consumer took ${count} records of ${RECORDS}`)
    return user + system
  }
  let sum = 0
  const inPlace = (): number =>
    ring.visit((data, start) => {
      sum += data[start]! | (data[start + 1]! << 8)
    })
  const copied = (): number =>
    ring.drain(record => {
      sum += record[0]! | (record[1]! << 8)
    })
  const comparisons: Comparison[] = []
  for (const [what, drain, goal] of [
    ['in place', inPlace, GOAL],
    ['copied', copied, undefined],
  ] as const) {
    for (let i = 0; i < WARM_ROUNDS; i++) await ours(drain)
    const rounds = await interleave(roundCount, () => ours(drain), theirs)
    comparisons.push(
      compare(
        `take ${RECORDS} records, ${what}`,
        'us',
        rounds.map(round => ({ ours: [round.ours], c: [round.c] })),
        goal,
      ),
    )
  }
  if (sum !== 0) throw new Error('The records do not hold what was put into them')
  return comparisons
}

/** Puts 64 zeros into the ring, and aborts. */
function fillCode(ring: number): Insn[] {
  const { R0, R1, R2, R3, R4, R10 } = asm
  const zeros: Insn[] = []
  for (let off = -RECORD_BYTES; off < 0; off += 8) zeros.push(asm.store('u64', R10, off, 0))
  return [
    ...zeros,
    asm.ldMapFd(R1, ring),
    asm.mov64(R2, R10),
    asm.alu64('+=', R2, -RECORD_BYTES),
    asm.mov64(R3, RECORD_BYTES),
    asm.mov64(R4, NO_WAKEUP),
    asm.call('ringbuf_output'),
    asm.mov64(R0, 0),
    asm.exit(),
  ]
}
