/** A race that comes to no result is neither green nor red: it is skipped, with its reason. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { test } from 'node:test'
import { conclusive, Inconclusive } from '../../helpers/conclusive.ts'

test('conclusive() makes a skip of what is inconclusive, and lets other failures and success be', async () => {
  const skips: (string | undefined)[] = []
  const context = { skip: (reason?: string) => skips.push(reason) } as unknown as TestContext
  await conclusive(context, async () => {})
  assert.deepEqual(skips, [])
  await conclusive(context, async () => {
    throw new Inconclusive('only one was seen')
  })
  assert.deepEqual(skips, ['inconclusive: only one was seen'])
  await assert.rejects(
    conclusive(context, async () => assert.equal(1, 2)),
    assert.AssertionError,
  )
  assert.equal(skips.length, 1)
})
