/** Which programs are loaded without a thread: short ones, few in one turn of the event loop. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { loadsAtOnce } from '../../../src/ebpf/loads-at-once.ts'

const EXIT = [0x95, 0, 0, 0, 0, 0, 0, 0]
const MOV = [0xb7, 0, 0, 0, 0, 0, 0, 0]

function program(count: number): Uint8Array {
  return Uint8Array.from([...Array.from({ length: count - 1 }, () => MOV).flat(), ...EXIT])
}
const short = { type: 'xdp', insns: program(2), functions: 1, isOffloaded: false }

test('a short program is loaded at once, and not what may take long', async () => {
  await nextTurn()
  assert.equal(loadsAtOnce(short), true)
  const loop = Uint8Array.from([...MOV, 0x15, 0, 0xfe, 0xff, 0, 0, 0, 0, ...EXIT])
  /** Sixteen jumps whose ways come together again: 65,536 paths. */
  const paths = Uint8Array.from([
    ...Array.from({ length: 16 }, () => [0x15, 1, 1, 0, 0, 0, 0, 0, ...MOV]).flat(),
    ...EXIT,
  ])
  for (const long of [
    { ...short, insns: loop },
    { ...short, insns: paths },
    { ...short, insns: program(1000) },
    { ...short, functions: 2 },
    { ...short, isOffloaded: true },
    { ...short, type: 'socket_filter' },
    { ...short, type: 'cgroup_skb' },
  ]) {
    await nextTurn()
    assert.equal(loadsAtOnce(long), false)
  }
  await nextTurn()
  assert.equal(loadsAtOnce({ ...short, insns: program(300) }), true)
})

test('one turn of the event loop takes few, however many follow each other in promises', async () => {
  await nextTurn()
  const taken = async (): Promise<number> => {
    let count = 0
    for (let i = 0; i < 100; i++) {
      if (loadsAtOnce(short)) count++
      await undefined
    }
    return count
  }
  const first = await taken()
  assert.ok(first > 5 && first < 20, `${first}`)
  await nextTurn()
  assert.equal(await taken(), first)
})
