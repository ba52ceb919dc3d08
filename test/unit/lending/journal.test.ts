/** When a journal is told what, and what becomes of a failure in telling it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { delegationId } from '../../../src/guard/id.ts'
import { type Journal, journaled, type Operation } from '../../../src/lending/journal.ts'

const REVOKE: Operation = { do: 'revoke', delegation: delegationId(7) }
const no = (what: string) => (): never => {
  throw new Error(what)
}

/** A journal that writes down its calls, with those that do something else. */
function recording(instead: Partial<Journal> = {}): { journal: Journal; calls: unknown[][] } {
  const calls: unknown[][] = []
  const tell =
    (name: keyof Journal) =>
    (...facts: [never]): void | Promise<void> => {
      calls.push([name, ...facts])
      return instead[name]?.(...facts)
    }
  return { journal: { will: tell('will'), did: tell('did'), failed: tell('failed') }, calls }
}

test('journaled() tells what will be done, does it, and tells what was done', async () => {
  const { journal, calls } = recording({ will: () => Promise.resolve() })
  const result = await journaled({ journal }, REVOKE, async did => {
    calls.push(['done'])
    await did({ revoked: [7n] })
    return 'answer'
  })
  assert.equal(result, 'answer')
  assert.deepEqual(calls, [['will', REVOKE], ['done'], ['did', { revoked: [7n] }]])
})

test('journaled() does nothing when the journal does not take it, at once or later', async () => {
  for (const will of [no('full'), () => Promise.reject(new Error('full'))]) {
    const { journal, calls } = recording({ will })
    await assert.rejects(journaled({ journal }, REVOKE, no('done')), /^Error: full$/)
    assert.deepEqual(calls, [['will', REVOKE]])
  }
})

test('journaled() tells of a failure before and after it was reached, and throws it', async () => {
  const error = new Error('broken')
  const before = recording()
  await assert.rejects(
    journaled(before, REVOKE, () => Promise.reject(error)),
    error,
  )
  assert.deepEqual(before.calls, [
    ['will', REVOKE],
    ['failed', error],
  ])
  const after = recording({ did: no('full') })
  await assert.rejects(
    journaled(after, REVOKE, did => did({})),
    /^Error: full$/,
  )
  assert.deepEqual(
    after.calls.map(([name]) => name),
    ['will', 'did', 'failed'],
  )
})

test('journaled() throws both failures when the first could not be told', async () => {
  const { journal } = recording({ failed: no('full') })
  await assert.rejects(journaled({ journal }, REVOKE, no('broken')), (error: AggregateError) => {
    assert.deepEqual(
      error.errors.map(({ message }) => message),
      ['broken', 'full'],
    )
    return true
  })
})

test('journaled() needs no journal', async () => {
  assert.equal(await journaled({}, REVOKE, did => did({}).then(() => 'answer')), 'answer')
})
