/**
 * A delegation lives longer when it is renewed in time, and what has ended stays ended.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-renew.test.ts
 */
import assert from 'node:assert/strict'
import { unlinkSync } from 'node:fs'
import { beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BpfMap, MAP_FLAGS } from '../../src/ebpf/map.ts'
import { ConflictError, NotFoundError, NotSupportedError } from '../../src/errors.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import { bootTimeNs, type DelegationId, delegationId, Guard } from '../../src/guard/guard.ts'
import { guardStatus, installGuard } from '../../src/guard/install.ts'
import { Borrower, policyOf } from './borrower.ts'
import { eventually, skip, untilExpired, wasBefore } from './guarded.ts'
import { Hammer } from './hammer.ts'
import { borrower, guard, underGuard } from './under-guard.ts'

underGuard()
beforeEach(() => {
  if (skip === false) guard.pastEvents()
})

const SEC_NS = 1_000_000_000n
const HOUR_NS = 3600n * SEC_NS

const inNs = (ns: bigint): bigint => bootTimeNs() + ns
const limits = (lifetimeSec: number) => ({ limits: { lifetimeSec } })

const refuses = (id: DelegationId, why: string, untilNs = inNs(HOUR_NS)): void =>
  assert.throws(
    () => guard.renew(id, untilNs),
    (error: unknown) => error instanceof ConflictError && error.context['why'] === why,
  )

/** Waits until its own record says that it is over. */
async function untilOver(id: DelegationId): Promise<void> {
  const { expires_ns } = guard.tables.delegations.get(id)!
  while (bootTimeNs() <= expires_ns) await sleep(20)
}

describe('renewing', { skip }, () => {
  test('in time: it lives on when its first end has come, and ends when the new one has', () =>
    borrower.lending(guard, limits(5), async ({ id, token, mustToken }) => {
      using held = mustToken()
      const until = inNs(10n * SEC_NS)
      assert.equal(guard.renew(id, until), until)
      assert.equal(guard.delegation(id).expiresNs, until)
      await untilOver(id)
      const between = [borrower.map(held), token()]
      if (wasBefore(until)) assert.deepEqual(between, ['ok', 'ok'])
      await untilExpired(guard, id)
      assert.deepEqual([borrower.map(held), token()], ['EPERM', 'EACCES'])
      refuses(id, 'expired')
    }))

  test('again and again, each time before its end', () =>
    borrower.lending(guard, limits(5), async ({ id, mustToken }) => {
      using held = mustToken()
      for (let more = 10n; more <= 30n; more += 10n) guard.renew(id, inNs(more * SEC_NS))
      guard.renew(id, inNs(HOUR_NS))
      await untilOver(id)
      assert.equal(borrower.map(held), 'ok')
      refuses(id, 'sooner', inNs(HOUR_NS / 2n))
      assert.equal(borrower.map(held), 'ok')
    }))

  test('what has expired is refused, and stays so whatever is written afterwards', () =>
    borrower.lending(guard, limits(3), async ({ id, mustToken }) => {
      using held = mustToken()
      await untilExpired(guard, id)
      assert.equal(borrower.map(held), 'EPERM')
      refuses(id, 'expired')
      // By somebody who found it live, was interrupted, and writes now.
      guard.tables.renewals.set(id, inNs(HOUR_NS))
      assert.equal(borrower.map(held), 'EPERM')
      refuses(id, 'expired')
    }))

  test('the twin: where nobody was refused, the same write lets it live', () =>
    borrower.lending(guard, limits(3), async ({ id, mustToken }) => {
      using held = mustToken()
      await untilOver(id)
      guard.tables.renewals.set(id, inNs(HOUR_NS))
      assert.equal(borrower.map(held), 'ok')
    }))

  test('if a call was refused meanwhile, it fails and leaves nothing', () =>
    borrower.lending(guard, limits(3600), ({ id, mustToken }) => {
      using held = mustToken()
      // As a program writes it.
      guard.tables.expired.set(id, {})
      refuses(id, 'expired', inNs(2n * HOUR_NS))
      assert.equal(guard.tables.renewals.get(id), undefined)
      assert.equal(borrower.map(held), 'EPERM')
    }))

  test('what is revoked is refused, and stays so whatever is written afterwards', () =>
    borrower.lending(guard, limits(60), ({ id, mustToken }) => {
      using held = mustToken()
      guard.renew(id, inNs(HOUR_NS))
      assert.equal(borrower.map(held), 'ok')
      guard.revoke(id)
      assert.equal(borrower.map(held), 'EPERM')
      refuses(id, 'revoked', inNs(2n * HOUR_NS))
      guard.tables.renewals.set(id, inNs(2n * HOUR_NS))
      assert.equal(borrower.map(held), 'EPERM')
    }))

  test('what does not expire, or is not there, is refused', async () => {
    let gone!: DelegationId
    await borrower.lending(guard, {}, ({ id }) => {
      gone = id
      refuses(id, 'endless')
    })
    for (const id of [gone, delegationId(4_000_000_000)])
      assert.throws(() => guard.renew(id, inNs(HOUR_NS)), NotFoundError)
  })

  test('what is renewed leaves no record when it ends', async () => {
    await borrower.lending(guard, limits(60), ({ id }) => void guard.renew(id, inNs(HOUR_NS)))
    assert.deepEqual([...guard.tables.renewals.keys()], [])
  })

  test('what is derived lives no longer than its origin, as that was renewed', () =>
    borrower.lending(guard, { ...limits(20), derive: { allowed: true, maxDepth: 1 } }, async ({ id }) => {
      const heir = await Borrower.start()
      try {
        const first = await heir.borrow(guard, policyOf(limits(5)), { parent: id })
        const end = () => guard.delegation(id).expiresNs!
        assert.equal(guard.renew(first, inNs(HOUR_NS)), end())
        refuses(first, 'sooner')
        const until = guard.renew(id, inNs(HOUR_NS))
        assert.ok(guard.delegation(first).expiresNs! < until, 'the derived one has its own end')
        assert.equal(guard.renew(first, until - SEC_NS), until - SEC_NS)
        assert.equal(guard.renew(first, inNs(2n * HOUR_NS)), until)
        // What is derived from now on has the end that the origin has now.
        const second = await heir.borrow(guard, policyOf(), { parent: id, path: '/mnt' })
        assert.equal(guard.delegation(second).expiresNs, until)
        guard.revoke(id)
        for (const one of [first, second]) refuses(one, 'revoked', inNs(3n * HOUR_NS))
      } finally {
        heir[Symbol.dispose]()
        await heir.workload.exited
      }
      await eventually(() => guard.delegation(id).live.children === 0, 'what was derived has not ended')
    }))

  /**
   * Renews later and later before the end, by a hundredth of a second, and at last after it: the
   * clocks differ by as much.
   */
  async function renewsUntilTooLate(id: DelegationId, hammers: readonly Hammer[]): Promise<void> {
    for (let before = 60_000_000n; ; before -= 10_000_000n) {
      const end = guard.delegation(id).expiresNs!
      while (bootTimeNs() < end - before) await sleep(1)
      const refused = hammers.some(({ ended }) => ended)
      try {
        guard.renew(id, inNs(SEC_NS / 2n))
      } catch (error) {
        assert.equal((error as ConflictError).context['why'], 'expired')
        return
      }
      assert.equal(refused, false, 'it was renewed after a call had been refused')
    }
  }

  test('while others use it: once one of them was refused, none is allowed, and no renewal succeeds', async t => {
    for (let round = 0; round < 3; round++)
      await borrower.lending(guard, limits(3), async ({ id, mustToken }) => {
        using held = mustToken()
        guard.renew(id, inNs(HOUR_NS))
        using one = await Hammer.start(borrower.workload.pid, [held])
        using other = await Hammer.start(borrower.workload.pid, [held])
        await untilOver(id)
        guard.tables.renewals.set(id, inNs(SEC_NS / 2n))
        await renewsUntilTooLate(id, [one, other])
        const results = await Promise.all([one.result, other.result])
        for (const { errno, made } of results) {
          // EACCES: it expired between the token's check and the map's.
          assert.ok(['EPERM', 'EACCES'].includes(errno), errno)
          assert.ok(made > 0)
        }
        for (let i = 0; i < 3; i++) {
          assert.equal(borrower.map(held), 'EPERM')
          refuses(id, 'expired')
        }
        t.diagnostic(`maps that were made: ${results.map(({ made }) => made).join(', ')}`)
      })
  })
})

describe('a guard of an older version', { skip }, () => {
  const PINS = ['renewals', 'expired'].map(name => `${GUARD_DIRECTORY}/maps/${name}`)

  test('renews nothing, whatever maps are pinned; it is replaced with loans in use, which then can be renewed', () =>
    borrower.lending(guard, limits(3600), async ({ id, mustToken }) => {
      using held = mustToken()
      const until = inNs(2n * HOUR_NS)
      const refusesAll = (): void => {
        using older = Guard.open()
        const { expiresNs } = older.delegation(id)
        assert.equal(expiresNs, older.tables.delegations.get(id)!.expires_ns)
        assert.throws(() => older.renew(id, until), { constructor: NotSupportedError, reason: 'guard-older' })
      }
      for (const pin of PINS) unlinkSync(pin)
      refusesAll()
      {
        // As a newer version leaves it: the programs that enforce do not use it.
        using unused = BpfMap.create({
          ...{ type: 'hash', name: 'renewals', keyBytes: 8, valueBytes: 8, maxEntries: 8192, token: null },
          flags: MAP_FLAGS.BPF_F_NO_PREALLOC,
        } as const)
        unused.pin(PINS[0]!)
      }
      refusesAll()
      guard.tables.config.change({ build: 1 })
      assert.equal(guardStatus().current, false)
      assert.equal(await installGuard(), 'replaced')
      using newer = Guard.open()
      assert.equal(newer.renew(id, until), until)
      assert.equal(newer.delegation(id).expiresNs, until)
      assert.equal(borrower.map(held), 'ok')
    }))
})
