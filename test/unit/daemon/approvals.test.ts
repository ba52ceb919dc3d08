/** Requests of before a restart: how long the start of the daemon waits until they are looked at. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Approvals } from '../../../src/daemon/approvals.ts'
import type { Parts } from '../../../src/daemon/parts.ts'
import type { RequestRecord } from '../../../src/registry/loan-record.ts'

/** What one user waits for hangs until it is let go; what others wait for is over at once. */
function restart(slow: number, users: readonly number[]) {
  const requests = users.map(
    (uid, index) => ({ id: index + 1, state: 'waiting', asker: { uid } }) as unknown as RequestRecord,
  )
  const over: number[] = []
  let release = (): void => {}
  const hangs = new Promise<void>(resolve => {
    release = resolve
  })
  const owed = {
    async putRequest({ id, asker, state }: RequestRecord) {
      if (asker.uid === slow) await hangs
      assert.equal(state, 'withdrawn')
      over.push(id)
    },
    note: async () => {},
  }
  const book = { registry: { requests: () => requests } }
  const log = { error: (facts: object) => assert.fail(JSON.stringify(facts)) }
  const parts = { book, owed, log, names: {}, clock: {} } as unknown as Parts
  const approvals = new Approvals(() => parts)
  let isStarted = false
  const started = approvals.takeUp().then(() => {
    isStarted = true
  })
  return { over, release, started, isStarted: () => isStarted }
}

async function turns(): Promise<void> {
  for (let i = 0; i < 10; i++) await turn()
}

test('the start of the daemon waits for requests together so long, and what hangs goes on beside it', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { over, release, started, isStarted } = restart(1000, [1000, 1001, 1000, 1002])
  await turns()
  assert.deepEqual([over, isStarted()], [[2, 4], false])
  t.mock.timers.tick(4999)
  await turns()
  assert.equal(isStarted(), false)
  t.mock.timers.tick(1)
  await started
  assert.deepEqual(over, [2, 4])
  release()
  await turns()
  assert.deepEqual(over, [2, 4, 1, 3])
})

test('where nothing hangs the start waits for no time', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { over, started } = restart(0, [1000, 1001, 1000])
  await started
  assert.deepEqual([...over].sort(), [1, 2, 3])
})

test('who asks for a decision gives its turn up where it waits, and only there', async () => {
  const request = { id: 1, state: 'waiting', asker: { uid: 1000 }, recipient: {}, place: {} }
  const book = { registry: { request: () => request } }
  const owed = { request: () => undefined }
  const approvals = new Approvals(() => ({ book, owed }) as unknown as Parts)
  const root = { isRoot: true, facts: { uid: 0 } } as never
  const abort = new AbortController()
  let waited = 0
  const ask = (waitSec: number): Promise<unknown> =>
    approvals.decided(root, 1, {
      ...{ waitSec, signal: abort.signal },
      waits() {
        waited++
      },
    })
  await ask(0)
  assert.equal(waited, 0)
  const asked = ask(60)
  assert.equal(waited, 1)
  abort.abort()
  await asked
  request.state = 'denied'
  await ask(60)
  assert.equal(waited, 1)
})
