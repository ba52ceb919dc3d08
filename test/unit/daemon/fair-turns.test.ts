/** Who is slow holds up nobody else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { FairTurns } from '../../../src/daemon/fair-turns.ts'

test('FairTurns runs so many at once, and of one user fewer, whose slow work delays no other', async () => {
  const turns = new FairTurns(16, 4)
  const ends: (() => void)[] = []
  const hang = () => new Promise<void>(resolve => ends.push(resolve))
  const slow = Array.from({ length: 64 }, () => turns.run('slow', hang))
  await turn()
  assert.equal(ends.length, 4)
  const quick = Array.from({ length: 40 }, (_, i) => turns.run(`quick ${i % 2}`, async () => i))
  assert.deepEqual(
    await Promise.all(quick),
    Array.from({ length: 40 }, (_, i) => i),
  )
  assert.equal(ends.length, 4)
  for (let i = 0; i < 64; i++) {
    ends[i]!()
    await turn()
  }
  await Promise.all(slow)
})

test('FairTurns never runs more than it may, and takes users in turn', async () => {
  const turns = new FairTurns(3, 2)
  let running = 0
  const order: number[] = []
  const act = (uid: number) => async () => {
    order.push(uid)
    running++
    assert.ok(running <= 3)
    await turn()
    running--
  }
  const all = [1, 1, 1, 1, 1, 1, 2, 2, 3].map(uid => turns.run(`user ${uid}`, act(uid)))
  await Promise.all(all)
  assert.equal(order.length, 9)
  assert.ok(order.indexOf(2) < order.lastIndexOf(1) && order.indexOf(3) < order.lastIndexOf(1))
})

test('FairTurns gives what fails to who asked, and goes on', async () => {
  const turns = new FairTurns(1, 1)
  const failing = turns.run('user 1', async () => {
    throw new Error('no')
  })
  await assert.rejects(failing, /no/)
  assert.equal(await turns.run('user 1', async () => 7), 7)
})
