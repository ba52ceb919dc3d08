/** Times that Node's own timer takes for none at all. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LongTimer } from '../../../src/daemon/long-timer.ts'

const DAY_MS = 86_400_000

test('LongTimer waits thirty days, rings once, and not when it was disposed of', t => {
  let now = 0
  t.mock.method(performance, 'now', () => now)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const pass = (ms: number): void => {
    now += ms
    t.mock.timers.tick(ms)
  }
  const rung: string[] = []
  new LongTimer(30 * DAY_MS, () => rung.push('thirty days'))
  new LongTimer(1000, () => rung.push('a second'))
  const never = new LongTimer(30 * DAY_MS, () => rung.push('never'))
  pass(2)
  assert.deepEqual(rung, [])
  pass(998)
  assert.deepEqual(rung, ['a second'])
  pass(25 * DAY_MS)
  never[Symbol.dispose]()
  pass(4 * DAY_MS)
  assert.deepEqual(rung, ['a second'])
  pass(DAY_MS)
  assert.deepEqual(rung, ['a second', 'thirty days'])
  pass(60 * DAY_MS)
  assert.equal(rung.length, 2)
})
