import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Parts } from '../../../src/daemon/parts.ts'
import { revokeRoute } from '../../../src/daemon/revoke.ts'
import type { Call } from '../../../src/daemon/service.ts'

/** More than are taken back at one time. */
const MANY = 40

/**
 * What `all` takes back, where some cannot be: the numbers that were tried, and what came of it.
 */
async function revokeAll(fails: (id: number) => boolean) {
  const tried: number[] = []
  const loans = Array.from({ length: MANY }, (_, i) => ({ id: i + 1, kind: 'delegate', state: 'live' }))
  const parts = {
    owed: { note: async () => {} },
    log: { error() {} },
    book: {
      open: () => loans,
      treeOf(id: number) {
        tried.push(id)
        if (fails(id)) throw new Error(`loan-${id} is broken`)
        return []
      },
    },
  } as unknown as Parts
  const facts = { pid: 1, uid: 0, gid: 0, userNamespace: 'user:[1]' }
  const asker = { who: async () => ({ isRoot: true, facts }) }
  const call = { asker } as unknown as Call
  const outcome = revokeRoute(parts, call, { body: { what: { all: true } } })
  return { tried, outcome: await Promise.allSettled([outcome]).then(([one]) => one!) }
}

test('however many loans cannot be taken back, the others are', async () => {
  const { tried, outcome } = await revokeAll(id => id <= MANY / 2)
  assert.deepEqual(
    tried,
    Array.from({ length: MANY }, (_, i) => i + 1),
  )
  assert.equal(outcome.status, 'rejected')
})

test('where all can be, all are, and nothing is refused', async () => {
  const { tried, outcome } = await revokeAll(() => false)
  assert.equal(tried.length, MANY)
  assert.equal(outcome.status, 'fulfilled')
})

test('however many loans wait for file systems of their own, the guard has all of them revoked', async () => {
  const revoked = new Set<number>()
  const loans = Array.from({ length: MANY }, (_, i) => ({
    ...{ id: i + 1, kind: 'delegate', state: 'live', recipient: { userNamespace: 'user:[7]' } },
    made: { delegation: i + 1 },
  }))
  let release = (): void => {}
  const hangs = new Promise<void>(resolve => {
    release = resolve
  })
  const guard = {
    delegation: (id: bigint) => ({ id, userNamespace: 7, revoked: revoked.has(Number(id)) }),
    revoke(id: bigint) {
      if (Number(id) === 2) throw new Error('it cannot be revoked')
      revoked.add(Number(id))
      return [id]
    },
  }
  const parts = {
    ...{ guard, owed: { note: async () => {} }, log: { error() {} } },
    book: {
      open: () => loans,
      treeOf: (id: number) => [loans[id - 1]],
      // As where nothing of it can be unmounted: nobody's turn ends.
      inTurn: () => hangs,
    },
  } as unknown as Parts
  const facts = { pid: 1, uid: 0, gid: 0, userNamespace: 'user:[1]' }
  const asker = { who: async () => ({ isRoot: true, facts }) }
  const call = { asker } as unknown as Call
  const outcome = revokeRoute(parts, call, { body: { what: { all: true } } })
  for (let turns = 0; turns < 10 * MANY && revoked.size < MANY - 1; turns++) await turn()
  assert.deepEqual(
    [...revoked].sort((a, b) => a - b),
    loans.map(({ id }) => id).filter(id => id !== 2),
  )
  release()
  await assert.rejects(outcome, /it cannot be revoked/)
})
