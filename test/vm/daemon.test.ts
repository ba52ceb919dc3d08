/**
 * The daemon where there is a guard: loans end at once, derived ones with their origin, and what is
 * refused is kept.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/daemon.test.ts
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Peer } from '../../src/daemon/peer.ts'
import { listInstances } from '../../src/delegation/instances.ts'
import { bootTimeNs, Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { errnoName } from '../../src/uapi/errno.ts'
import { inOwnNamespaces, ServiceLab } from '../kernel/daemon/service-lab.ts'
import { vocabulary } from '../kernel/delegation/lab.ts'
import { removeProgram, Workload } from '../kernel/delegation/workload.ts'
import { eventually, skip, wasBefore } from './guarded.ts'

const ALICE = 61001
const PATH = '/sys/fs/bpf'
const RIGHTS = '  rights: { cmds: [map_create], maps: [hash] }'

describe('the daemon with a guard', { skip }, () => {
  let guard: Guard
  let lab: ServiceLab
  let root: Peer

  before(async () => {
    await installGuard()
    guard = Guard.open()
    lab = await ServiceLab.open({ guard })
    lab.write('maps', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}\n  derive: { allowed: true, maxDepth: 2 }`)
    lab.write('short', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}\n  limits: { lifetime: 1h }`)
    const lasting = `limits: { lifetime: 1h }\n  derive: { allowed: true, maxDepth: 2 }`
    lab.write('lasting', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}\n  ${lasting}`)
    await lab.service.reload()
    root = await lab.root()
  })
  after(async () => {
    await lab[Symbol.asyncDispose]()
    removeProgram()
    await endExecutors()
    guard[Symbol.dispose]()
    await removeGuard()
  })

  async function withAlice(body: (alice: { asker: Peer; inside: Workload; self: Peer }) => Promise<void>) {
    const outside = await Workload.onHost(ALICE)
    const inside = await inOwnNamespaces(ALICE)
    try {
      await body({ asker: await lab.askerOf(outside), inside, self: await lab.askerOf(inside) })
    } finally {
      for (const one of [outside, inside]) one[Symbol.dispose]()
      await Promise.all([outside.exited, inside.exited])
    }
  }

  const request = (pid: number, name = 'maps', also: object = {}) => ({
    body: { policy: { name }, recipient: { pid }, place: { path: PATH }, ...also },
  })

  type Lent = { id: string; record: { delegation: number; expiresAt?: string } }
  async function lend(by: Peer, pid: number, name?: string, also?: object): Promise<Lent> {
    const { status, body } = await lab.ask('lend', by, request(pid, name, also))
    assert.equal(status, 201)
    return (body as { loan: Lent }).loan
  }

  const shown = async (id: string) => (await lab.ask('showLoan', root, { params: { id } })).body

  async function tokenAt(inside: Workload, path: string): Promise<number> {
    return inside.token(await inside.must('openat', -100, path, 0))
  }
  const mapWith = async (inside: Workload, token: number): Promise<string> => {
    const result = await inside.map('hash', token)
    return result < 0 ? errnoName(result) : 'ok'
  }

  test('takes a loan back at once: a token of it is of no use any more', () =>
    withAlice(async ({ asker, inside }) => {
      const { id, record } = await lend(asker, inside.pid)
      assert.ok(record.delegation > 0)
      const token = await tokenAt(inside, PATH)
      assert.equal(await mapWith(inside, token), 'ok')
      assert.deepEqual((await shown(id)).status?.live?.maps, 1)
      const { body } = await lab.ask('revoke', asker, { body: { what: { loan: id } } })
      assert.deepEqual([body.complete, body.loans[0]?.ended?.why], [true, 'revoked'])
      assert.notEqual(await mapWith(inside, token), 'ok')
      assert.equal(
        listInstances(vocabulary).some(({ pids }) => pids.includes(inside.pid)),
        false,
      )
    }))

  test('lends to several at once by one policy, each with a delegation of its own', async () => {
    const workloads = await Promise.all([1, 2, 3, 4].map(() => Workload.sandboxed()))
    try {
      const also = { anySubject: true }
      const loans = await Promise.all(workloads.map(({ pid }) => lend(root, pid, 'maps', also)))
      assert.equal(new Set(loans.map(({ record }) => record.delegation)).size, 4)
      for (const workload of workloads)
        assert.equal(await mapWith(workload, await tokenAt(workload, PATH)), 'ok')
      for (const [i, { record }] of loans.entries()) {
        const { userNamespace } = guard.delegation(BigInt(record.delegation) as never)
        const { body } = await lab.ask('listLoans', root, { query: {} })
        const loan = body.loans.find(one => one.id === loans[i]!.id)
        assert.equal(loan?.record?.recipient.userNamespace, `user:[${userNamespace}]`)
      }
      const { body } = await lab.ask('revoke', root, { body: { what: { policy: 'maps' } } })
      assert.deepEqual([body.loans.length, body.complete], [4, true])
    } finally {
      for (const one of workloads) one[Symbol.dispose]()
      await Promise.all(workloads.map(one => one.exited))
    }
  })

  test('lets a holder derive, for its own namespace, and ends that with its origin', () =>
    withAlice(async ({ asker, inside, self }) => {
      const { id } = await lend(asker, inside.pid)
      const body = { policy: { name: 'maps' }, recipient: { self: true as const }, place: { path: '/mnt' } }
      const derived = await lab.ask('derive', self, { params: { id }, body })
      const child = derived.body.loan
      assert.deepEqual([child.kind, child.spec.parent], ['derive', id])
      const token = await tokenAt(inside, '/mnt')
      assert.equal(await mapWith(inside, token), 'ok')
      const more = { ...body, policy: { name: 'short' }, place: { path: '/srv' }, exact: true }
      const { body: back } = await lab.ask('revoke', asker, { body: { what: { loan: id } } })
      assert.deepEqual(
        back.loans.map(loan => loan.ended?.why),
        ['revoked', 'origin-ended'],
      )
      assert.notEqual(await mapWith(inside, token), 'ok')
      // Of what has ended it learns no more; who asked for it does.
      const again = { params: { id }, body: more }
      await assert.rejects(lab.ask('derive', self, again), { code: 'BPFTOKEN_NOT_FOUND' })
      await assert.rejects(lab.ask('derive', asker, again), { reason: 'not-derivable' })
    }))

  const endInGuard = ({ record }: Lent) => guard.delegation(BigInt(record.delegation) as never).expiresNs!

  test('the guard holds the end of a loan, as it was renewed, and then it is unmounted', () =>
    withAlice(async ({ asker, inside }) => {
      const loan = await lend(asker, inside.pid, 'short', { lifetimeSec: 20 })
      const renew = (lifetimeSec: number) =>
        lab.ask('renew', asker, { params: { id: loan.id }, body: { lifetimeSec } })
      const first = endInGuard(loan)
      const token = await tokenAt(inside, PATH)
      assert.equal(await mapWith(inside, token), 'ok')
      const { body } = await renew(30)
      const second = endInGuard(loan)
      assert.ok(second > first)
      assert.ok(Date.parse(body.record!.expiresAt!) > Date.parse(loan.record.expiresAt!))
      await assert.rejects(renew(1), { code: 'BPFTOKEN_CONFLICT', message: /no later than it does now/ })
      await eventually(() => bootTimeNs() > first, 'the first end has not come')
      const between = await mapWith(inside, token)
      if (wasBefore(second)) assert.equal(between, 'ok')
      await eventually(async () => (await shown(loan.id)).state === 'ended', 'it did not end')
      assert.equal((await shown(loan.id)).ended?.why, 'expired')
      assert.notEqual(await mapWith(inside, token), 'ok')
      await assert.rejects(renew(30), { code: 'BPFTOKEN_CONFLICT' })
      assert.notEqual(await mapWith(inside, token), 'ok')
    }))

  test('a derived loan is renewed up to the end of its origin, and no loan once it is revoked', () =>
    withAlice(async ({ asker, inside, self }) => {
      const origin = await lend(asker, inside.pid, 'lasting', { lifetimeSec: 600 })
      const derive = {
        policy: { name: 'lasting' },
        recipient: { self: true as const },
        place: { path: '/mnt' },
      }
      const { body } = await lab.ask('derive', self, { params: { id: origin.id }, body: derive })
      const child = body.loan as Lent
      const renew = (id: string) => lab.ask('renew', root, { params: { id }, body: { lifetimeSec: 3000 } })
      const sameEnd = () => endInGuard(child) === endInGuard(origin)
      // It was lent for a second less, which must have passed.
      await eventually(() => bootTimeNs() > endInGuard(origin) - 598_000_000_000n, 'time stands still')
      const { body: renewed } = await renew(child.id)
      assert.ok(sameEnd())
      assert.ok(Date.parse(renewed.record!.expiresAt!) - Date.parse(origin.record.expiresAt!) < 100)
      await assert.rejects(renew(child.id), { code: 'BPFTOKEN_CONFLICT', message: /ends with its origin/ })
      await renew(origin.id)
      assert.equal(sameEnd(), false)
      await renew(child.id)
      assert.ok(endInGuard(child) <= endInGuard(origin))
      await lab.ask('revoke', root, { body: { what: { loan: origin.id } } })
      for (const { id } of [origin, child]) await assert.rejects(renew(id), { code: 'BPFTOKEN_CONFLICT' })
    }))

  test('keeps what the guard refused, and shows it to root and to whose loan it is', () =>
    withAlice(async ({ asker, inside }) => {
      const { id, record } = await lend(asker, inside.pid)
      const token = await tokenAt(inside, PATH)
      await lab.ask('revoke', asker, { body: { what: { loan: id } } })
      for (let i = 0; i < 3; i++) assert.notEqual(await mapWith(inside, token), 'ok')
      const query = { delegation: record.delegation }
      const events = async (by: Peer) => (await lab.ask('events', by, { query })).body.events
      await eventually(async () => (await events(root)).some(({ count }) => count >= 3), 'nothing is kept')
      const own = await events(asker)
      assert.ok(own.every(({ loan }) => loan === id) && own.length > 0)
      const stranger = await Workload.onHost(61002)
      try {
        assert.deepEqual(await events(await lab.askerOf(stranger)), [])
      } finally {
        stranger[Symbol.dispose]()
        await stranger.exited
      }
    }))

  test('nothing was logged as an error', () => {
    assert.deepEqual(
      lab.log.lines.filter(line => line.startsWith('error')),
      [],
    )
  })
})
