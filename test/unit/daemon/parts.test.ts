/** The small parts of the daemon: limits, names, expiry, keys, whose a loan is. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Expiry } from '../../../src/daemon/expiry.ts'
import { Idempotency, type Keep } from '../../../src/daemon/idempotency.ts'
import { Rate, Slots } from '../../../src/daemon/limits.ts'
import { Names } from '../../../src/daemon/names.ts'
import { ownsLoan } from '../../../src/daemon/ownership.ts'
import { BusyError } from '../../../src/errors.ts'
import type { AnswerRecord, LoanRecord } from '../../../src/registry/loan-record.ts'
import type { Registry } from '../../../src/registry/registry.ts'
import { INITIAL_USER_NAMESPACE } from '../../../src/sys/self.ts'

describe('Rate', () => {
  test('lets a user ask so often in a minute, and others all the same', () => {
    let now = 0
    const rate = new Rate(3, () => now)
    for (let i = 0; i < 3; i++) rate.take('user 1000')
    assert.throws(() => rate.take('user 1000'), BusyError)
    rate.take('user 1001')
    now += 20_000
    rate.take('user 1000')
    assert.throws(() => rate.take('user 1000'), BusyError)
    now += 3_600_000
    for (let i = 0; i < 3; i++) rate.take('user 1000')
    assert.throws(() => rate.take('user 1000'), BusyError)
  })

  test('remembers a bounded number of users, forgets those that may ask most, and refuses no newcomer', () => {
    const rate = new Rate(2, () => 0)
    for (let i = 0; i < 2; i++) rate.take('user 7')
    for (let uid = 1000; uid < 50_000; uid++) rate.take(`user ${uid}`)
    assert.throws(() => rate.take('user 7'), BusyError)
    rate.take('user 49999')
    assert.throws(() => rate.take('user 49999'), BusyError)
  })
})

test('Slots counts those that are about to be used, until they are', () => {
  let open = 0
  const slots = new Slots(2, () => open)
  const first = slots.reserve('user 1000')
  slots.reserve('user 1000')
  assert.throws(() => slots.reserve('user 1000'), BusyError)
  slots.reserve('user 1001')[Symbol.dispose]()
  open = 1
  first.taken()
  first[Symbol.dispose]()
  assert.throws(() => slots.reserve('user 1000'), BusyError)
  open = 0
  slots.reserve('user 1000')
})

describe('Names', () => {
  const policy = { subjects: [{ user: 'alice' }, { group: 'web' }] }

  test('says what the directory says, and asks it again after a minute', async () => {
    let now = 0
    let uid = 1000
    const asked: string[] = []
    const names = new Names(
      async (database, name) => {
        asked.push(`${database} ${name}`)
        return name === 'alice' ? `alice:x:${uid}:1000::/:/bin/sh` : undefined
      },
      () => now,
    )
    const { uidOf, gidOf } = names.accounts
    assert.equal(uidOf('alice'), undefined)
    await names.refresh([policy])
    assert.deepEqual([uidOf('alice'), gidOf('web'), uidOf('1000')], [1000, undefined, undefined])
    uid = 2000
    now += 59_000
    await names.refresh([policy])
    assert.equal(uidOf('alice'), 1000)
    now += 2000
    await names.refresh([policy])
    assert.equal(uidOf('alice'), 2000)
    assert.deepEqual(asked, ['passwd alice', 'group web', 'passwd alice', 'group web'])
  })

  test('goes on by the last word of a directory that fails, for ten minutes', async () => {
    let now = 0
    let fails = false
    const names = new Names(
      async () => {
        if (fails) throw new Error('no answer')
        return 'alice:x:1000:1000'
      },
      () => now,
    )
    await names.refresh([policy])
    fails = true
    now += 599_000
    await names.refresh([policy])
    assert.equal(names.accounts.uidOf('alice'), 1000)
    now += 2000
    await names.refresh([policy])
    assert.equal(names.accounts.uidOf('alice'), undefined)
  })

  test('waits for a directory that hangs a bounded time, and asks it once', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let asked = 0
    const names = new Names(() => {
      asked++
      return new Promise(() => {})
    })
    for (let i = 0; i < 3; i++) {
      const refreshed = names.refresh([{ subjects: [{ user: 'alice' }] }])
      t.mock.timers.tick(2000)
      await refreshed
    }
    assert.equal(asked, 1)
    assert.equal(names.accounts.uidOf('alice'), undefined)
  })
})

test('Expiry rings for the next, and gives each loan once, when its time has come', () => {
  const event = fc.record({ id: fc.nat(20), atNs: fc.option(fc.bigInt({ min: 1n, max: 100n })) })
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), fc.bigInt({ min: 0n, max: 110n }), (events, now) => {
      let alarm: bigint | undefined
      const expiry = new Expiry({
        set: at => {
          alarm = at
        },
      })
      const due = new Map<number, bigint>()
      for (const { id, atNs } of events) {
        const expires = atNs === null ? undefined : { at: '', bootNs: String(atNs) }
        expiry.follow({ id, state: 'live', expires } as LoanRecord)
        if (atNs === null) due.delete(id)
        else due.set(id, atNs)
      }
      const least = (all: Iterable<bigint>) =>
        [...all].reduce<bigint | undefined>((a, b) => (a === undefined || b < a ? b : a), undefined)
      assert.equal(alarm, least(due.values()))
      const over = [...due].filter(([, at]) => at <= now).map(([id]) => id)
      assert.deepEqual(expiry.take(now).sort(), over.sort())
      for (const id of over) due.delete(id)
      assert.equal(alarm, least(due.values()))
      assert.deepEqual(expiry.take(now), [])
    }),
  )
})

describe('Idempotency', () => {
  function make() {
    const answers = new Map<string, AnswerRecord>()
    const registry = {
      answer: (uid: number, key: string) => answers.get(`${uid} ${key}`),
    } as unknown as Registry
    const idempotency = new Idempotency(registry, { wall: () => '2026-01-02T03:04:05Z' })
    let done = 0
    const act = (keep: Keep) => {
      done++
      const answer = keep({ status: 201, loan: done })
      if (answer !== undefined) answers.set(`${answer.uid} ${answer.key}`, answer)
      return Promise.resolve(done)
    }
    const ask = (
      key: string | undefined,
      asked: unknown,
      uid = 1000,
      userNamespace = INITIAL_USER_NAMESPACE,
    ) => idempotency.once({ who: { uid, userNamespace }, key, asked }, act, ({ loan }) => loan!)
    return { ask, idempotency }
  }

  test('does once what bears a key, in whatever order its fields are', async () => {
    const { ask } = make()
    assert.deepEqual(await Promise.all([ask('k', { a: 1, b: 2 }), ask('k', { b: 2, a: 1 })]), [1, 1])
    assert.equal(await ask('k', { a: 1, b: 2 }), 1)
    // Another key, another user or no key is another request.
    assert.deepEqual(
      [await ask('l', { a: 1 }), await ask('k', { a: 1 }, 1001), await ask(undefined, {})],
      [2, 3, 4],
    )
  })

  test('takes the same number in another user namespace for another user', async () => {
    const { ask } = make()
    const there = (namespace: string) => ask('k', { a: 1 }, 1000, namespace)
    assert.deepEqual(await Promise.all([ask('k', { a: 1 }), there('user:[1]'), there('user:[2]')]), [1, 2, 3])
    assert.deepEqual([await there('user:[1]'), await ask('k', { a: 1 })], [2, 1])
  })

  test('refuses a key that is used for something else, also while that is being done', async () => {
    const { ask } = make()
    const first = ask('k', { a: 1 })
    await assert.rejects(ask('k', { a: 2 }), { code: 'BPFTOKEN_CONFLICT' })
    await first
    await assert.rejects(ask('k', { a: 2 }), { code: 'BPFTOKEN_CONFLICT' })
  })

  test('keeps nothing of what failed', async () => {
    const { ask, idempotency } = make()
    const failing = idempotency.once(
      { who: { uid: 1000, userNamespace: INITIAL_USER_NAMESPACE }, key: 'k', asked: { a: 1 } },
      () => Promise.reject(new Error('no')),
      () => 0,
    )
    await assert.rejects(failing, /no/)
    assert.equal(await ask('k', { a: 2 }), 1)
  })
})

test('ownsLoan() is for who asked, who made the namespace, and who is in it; nobody else', () => {
  const INITIAL = 'user:[4026531837]'
  const loan = {
    kind: 'delegate',
    state: 'live',
    asker: { uid: 1000, userNamespace: INITIAL },
    recipient: { userNamespace: 'user:[5]', ownerUid: 1002 },
  } as LoanRecord
  const owns = (uid: number, userNamespace: string, of: LoanRecord = loan, isRoot = false) =>
    ownsLoan({ isRoot, facts: { pid: 1, uid, gid: uid, userNamespace } }, of)
  assert.deepEqual([owns(1000, INITIAL), owns(1002, INITIAL), owns(165536, 'user:[5]')], [true, true, true])
  assert.deepEqual(
    [owns(1001, INITIAL), owns(1000, 'user:[6]'), owns(1002, 'user:[6]')],
    [false, false, false],
  )
  assert.equal(owns(0, INITIAL, loan, true), true)
  // The namespace's number may be another one's once it is gone.
  assert.equal(owns(165536, 'user:[5]', { ...loan, state: 'ended' }), false)
  // What somebody else has lent is nobody's by who asked.
  assert.equal(owns(1000, INITIAL, { ...loan, kind: 'adopted' }), false)
  // One that is mounted in the initial namespace is not everybody's.
  const host = { userNamespace: INITIAL, mountNamespace: 'mnt:[1]', ownerUid: 0, pid: 1 }
  assert.equal(owns(1000, INITIAL, { ...loan, kind: 'adopted', recipient: host }), false)
})
