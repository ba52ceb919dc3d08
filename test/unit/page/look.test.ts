import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refusalsIn } from '../../../src/page/look.ts'

test('refusalsIn() counts refusals of the last hour in their minutes', () => {
  const now = Date.parse('2026-01-02T03:00:30Z')
  const at = (last: string, count: number, verdict = 'refused') => ({ last, count, verdict })
  const refusals = refusalsIn(
    [
      at('2026-01-02T03:00:10Z', 3),
      at('2026-01-02T02:59:10Z', 2),
      at('2026-01-02T02:59:20Z', 5, 'used'),
      at('2026-01-02T02:00:31Z', 1),
      at('2026-01-02T02:00:29Z', 100),
      at('2026-01-02T05:00:00Z', 4),
      at('no time', 9),
    ],
    now,
  )
  assert.equal(refusals.length, 60)
  assert.deepEqual([refusals[59], refusals[58], refusals[0]], [7, 2, 1])
  assert.equal(
    refusals.reduce((sum, count) => sum + count, 0),
    10,
  )
})
