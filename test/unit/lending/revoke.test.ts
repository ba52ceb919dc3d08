/** Revoking, and what counts as undone; a guard that writes down what is asked of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DetachResult } from '../../../src/guard/detach.ts'
import type { Guard } from '../../../src/guard/guard.ts'
import { delegationId } from '../../../src/guard/id.ts'
import { isUndone, revoke } from '../../../src/lending/revoke.ts'
import { detachToJSON } from '../../../src/lending/view.ts'

const NOTHING: DetachResult = {
  detached: [],
  stays: [],
  killed: [],
  left: { programs: [], maps: [], links: [] },
  holders: [],
}
const object = { id: 3, type: 'hash', name: 'x', delegation: 7n }
const left = (what: 'programs' | 'maps'): DetachResult =>
  ({ ...NOTHING, left: { ...NOTHING.left, [what]: [object] } }) as unknown as DetachResult

test('revoke() asks the guard after will, and tells did what fell', async () => {
  const calls: unknown[] = []
  const guard = {
    revoke(id: bigint) {
      calls.push('revoke')
      return [id, 9n]
    },
  } as unknown as Guard
  const journal = {
    will: async (operation: object) => void calls.push(operation),
    did: async (outcome: object) => void calls.push(outcome),
    failed: () => assert.fail(),
  }
  assert.deepEqual(await revoke(guard, delegationId(7), { journal }), [7n, 9n])
  assert.deepEqual(calls, [{ do: 'revoke', delegation: 7n }, 'revoke', { revoked: [7n, 9n] }])
})

test('revoke() leaves the delegation alone when will throws', async () => {
  const guard = { revoke: () => assert.fail('asked') } as unknown as Guard
  const journal = {
    will: () => Promise.reject(new Error('full')),
    did: () => assert.fail(),
    failed: () => assert.fail(),
  }
  await assert.rejects(revoke(guard, delegationId(7), { journal }), /^Error: full$/)
})

test('isUndone() bears no program that is left, and with kill nothing at all', () => {
  assert.equal(isUndone(NOTHING, {}), true)
  assert.equal(isUndone(NOTHING, { kill: true }), true)
  assert.equal(isUndone(left('programs'), {}), false)
  assert.equal(isUndone(left('maps'), {}), true)
  assert.equal(isUndone(left('maps'), { kill: true }), false)
  assert.equal(isUndone({ ...NOTHING, stays: [object] } as unknown as DetachResult, {}), false)
})

test('detachToJSON() gives ids of delegations as numbers', () => {
  assert.deepEqual(detachToJSON(left('maps')).left.maps, [{ ...object, delegation: 7 }])
})
