/**
 * What cannot be undone for sure is revoked: a delegation that fails late, and one that is taken
 * back.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Action } from '../../src/delegation/actions.ts'
import { planFor, undelegate } from '../../src/delegation/delegate.ts'
import { execute } from '../../src/delegation/execute.ts'
import type { DelegationId } from '../../src/guard/id.ts'
import type { Loan } from '../../src/lending/journal.ts'
import { lend, prepareLoan } from '../../src/lending/lend.ts'
import { O_DIRECTORY } from '../../src/uapi/constants.ts'
import { errnoName } from '../../src/uapi/errno.ts'
import { vocabulary } from '../kernel/delegation/lab.ts'
import { PATH, policyOf } from './borrower.ts'
import { eventually, skip } from './guarded.ts'
import { borrower, guard, underGuard } from './under-guard.ts'

underGuard()

/** Opens the root directory of what is mounted at PATH, and keeps it. */
const hold = (): Promise<number> => borrower.workload.must('openat', -100, PATH, O_DIRECTORY, 0)

async function tokenOf(root: number): Promise<string> {
  const token = await borrower.workload.token(root)
  if (token < 0) return errnoName(token)
  await borrower.workload.must('close', token)
  return 'ok'
}

test('undelegate revokes: a root directory that is held makes no token any more', { skip }, async () => {
  for (const revokes of [true, false]) {
    const id = await borrower.borrow(guard, policyOf())
    const root = await hold()
    assert.equal(await tokenOf(root), 'ok')
    const gone = await undelegate(
      borrower.target,
      vocabulary,
      revokes ? { revoke: held => guard.revoke(guard.delegationAt(held)!) } : {},
    )
    assert.deepEqual(gone.revoked, revokes ? [id] : [])
    // The guard lets whoever holds it go on until it is told otherwise.
    assert.equal(await tokenOf(root), revokes ? 'EACCES' : 'ok')
    await borrower.workload.must('close', root)
    await eventually(() => guard.delegations().length === 0, 'the delegation has not ended')
  }
})

test('undelegate of what is covered revokes it too', { skip }, async () => {
  const id = await borrower.borrow(guard, policyOf())
  const root = await hold()
  await borrower.workload.must('mount', 'none', PATH, 'tmpfs', 0, 0)
  const gone = await undelegate(borrower.target, vocabulary, {
    revoke: held => guard.revoke(guard.delegationAt(held)!),
  })
  assert.deepEqual([gone.covers, gone.revoked], [1, [id]])
  assert.equal(await tokenOf(root), 'EACCES')
  await borrower.workload.must('close', root)
  await borrower.workload.must('umount2', PATH, 2)
})

test('a delegation that fails once its mount was reached is revoked, and that is all that is left to tell', {
  skip,
}, async () => {
  for (const gives of [true, false]) {
    using lender = guard.lend(policyOf())
    const plan = planFor(policyOf(), borrower.target, PATH, lender)
    const attached = plan.findIndex(action => action.do === 'attachMount') + 1
    const pausing: Action[] = [...plan.slice(0, attached), { do: 'pause' }, ...plan.slice(attached)]
    const abort = new AbortController()
    let root = -1
    const given = execute(pausing, borrower.target, vocabulary, {
      executor: lender.executor,
      revoke: () => lender.revoke(),
      signal: abort.signal,
      paused: async () => {
        root = await hold()
        if (gives) abort.abort(new Error('given up'))
      },
    })
    if (gives) {
      await assert.rejects(given, /^Error: given up$/)
      assert.equal(await tokenOf(root), 'EACCES')
    } else {
      await given
      assert.equal(await tokenOf(root), 'ok')
      await undelegate(borrower.target, vocabulary)
    }
    await borrower.workload.must('close', root)
    await eventually(() => guard.delegations().length === 0, 'the delegation has not ended')
  }
})

test('a loan that its journal does not take is revoked, and whoever holds it makes no token', {
  skip,
}, async () => {
  for (const takes of [true, false]) {
    let root = -1
    let told: DelegationId | undefined
    const journal = {
      will: () => assert.deepEqual(guard.delegations(), []),
      did: async (outcome: object) => {
        told = (outcome as Loan).delegation
        root = await hold()
        if (!takes) throw new Error('no room')
      },
      failed: (error: unknown) => assert.match(String(error), /no room/),
    }
    using loan = await prepareLoan({
      ...{ policy: policyOf(), vocabulary, guard, recipient: borrower.target, place: { path: PATH } },
      accounts: { uidOf: () => undefined, gidOf: () => undefined },
    })
    const given = lend(loan, { journal })
    if (takes) {
      assert.equal((await given).delegation, told)
      assert.equal(guard.delegation(told!).revoked, false)
      assert.equal(await tokenOf(root), 'ok')
      await undelegate(borrower.target, vocabulary)
    } else {
      await assert.rejects(given, /^Error: no room$/)
      assert.equal(guard.delegation(told!).revoked, true)
      assert.equal(await tokenOf(root), 'EACCES')
    }
    await borrower.workload.must('close', root)
    await eventually(() => guard.delegations().length === 0, 'the delegation has not ended')
  }
})
