/** What comes again and again in the audit. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AuditFolds } from '../../../src/registry/audit-folds.ts'
import type { AuditEntry } from '../../../src/registry/audit-record.ts'

test('AuditFolds writes the first at once, the rest of a minute as one, and what others do by itself', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const written: AuditEntry[] = []
  let now = 0
  const folds = new AuditFolds(
    async entry => written.push(entry),
    () => now,
  )
  const tell = (key: string, i: number) => folds.tell(key, { event: 'lend.denied', facts: { i } })
  const last = () => written.at(-1)!.facts
  for (let i = 0; i < 100; i++) {
    now = i * 1000
    if (i === 60) {
      t.mock.timers.tick(60_000)
      await Promise.resolve()
      assert.equal(written.length, 2)
      assert.deepEqual(last(), {
        i: 59,
        again: { count: 59, first: '1970-01-01T00:00:01.000Z', last: '1970-01-01T00:00:59.000Z' },
      })
    }
    await tell('user 1000', i)
  }
  assert.equal(written.length, 3)
  await tell('user 1001', 7)
  assert.deepEqual([written.length, last()], [4, { i: 7 }])
  await folds.flush()
  assert.equal(written.length, 5)
  assert.equal((last()['again'] as { count: number }).count, 39)
  // Who was refused once is written once.
  t.mock.timers.tick(60_000)
  assert.equal(written.length, 5)
})
