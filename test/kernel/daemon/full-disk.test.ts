/**
 * The daemon while nothing can be written: it lends nothing, takes back all the same, and goes on.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Peer } from '../../../src/daemon/peer.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import { type Files, REAL_FILES } from '../../../src/registry/files.ts'
import { Notifier } from '../../../src/service/notify.ts'
import { eventually } from '../../helpers/eventually.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'
import { Receiver } from './receiver.ts'
import { inOwnNamespaces, ServiceLab } from './service-lab.ts'

const ALICE = 61011
const PATH = '/sys/fs/bpf'
const RIGHTS = `  subjects: [{ user: ${ALICE} }]\n  rights: { cmds: [map_create], maps: [hash] }`

/** What the disk refuses with; undefined: it has room. */
let refuses: 'ENOSPC' | 'EROFS' | undefined
/** Until it resolves no write has an answer. */
let hangs: Promise<void> | undefined

function refuse(call: string): void {
  if (refuses === undefined) return
  const errno = refuses === 'ENOSPC' ? -28 : -30
  throw Object.assign(new Error(`${refuses}: ${call}`), { code: refuses, syscall: call, errno })
}

const files: Files = {
  ...REAL_FILES,
  async open(path, how) {
    if (how === 'create' || (how === 'write' && refuses === 'EROFS')) refuse('open')
    const file = await REAL_FILES.open(path, how)
    return {
      size: () => file.size(),
      read: (offset, length) => file.read(offset, length),
      async write(bytes, offset) {
        await hangs
        refuse('write')
        return file.write(bytes, offset)
      },
      async writeSynced(bytes, offset) {
        await hangs
        refuse('write')
        return file.writeSynced(bytes, offset)
      },
      datasync: () => file.datasync(),
      truncate: size => file.truncate(size),
      close: () => file.close(),
    }
  },
}

let lab: ServiceLab
let root: Peer

before(async () => {
  lab = await ServiceLab.open({ files })
  lab.write('alices', RIGHTS)
  lab.write('approved', `  approval: required\n${RIGHTS}`)
  await lab.service.reload()
  root = await lab.root()
})
after(async () => {
  refuses = undefined
  await lab[Symbol.asyncDispose]()
})
leavesNothing()

const isMounted = (pid: number): boolean =>
  listInstances(vocabulary).some(({ pids, path }) => pids.includes(pid) && path === PATH)

async function withAlice(body: (alice: { asker: Peer; pid: number }) => Promise<void>): Promise<void> {
  const outside = await Workload.onHost(ALICE)
  const inside = await inOwnNamespaces(ALICE)
  try {
    await body({ asker: await lab.askerOf(outside), pid: inside.pid })
  } finally {
    refuses = undefined
    for (const one of [outside, inside]) one[Symbol.dispose]()
    await Promise.all([outside.exited, inside.exited])
  }
}

const lendTo = (asker: Peer, pid: number, name = 'alices', also: object = {}) =>
  lab.ask('lend', asker, { body: { policy: { name }, recipient: { pid }, place: { path: PATH }, ...also } })

async function lent(asker: Peer, pid: number, also: object = {}): Promise<string> {
  const { body } = await lendTo(asker, pid, 'alices', also)
  assert.ok('loan' in body && body.loan !== undefined)
  return body.loan.id
}

const concerns = async () => (await lab.ask('status', root, {})).body.concerns.join('\n')
const eventsOf = async (kind: 'loan' | 'request', id: string) =>
  (await lab.audit.query({ limit: 100_000 })).records.flatMap(one => (one[kind] === id ? one.event : []))

test('a policy that is edited is read while the audit cannot be written, and is recorded later', async () => {
  refuses = 'ENOSPC'
  lab.write('late', RIGHTS)
  await lab.service.reload()
  assert.match(await concerns(), /audit cannot be written[\s\S]*not on the disk/)
  const { body } = await lab.ask('listPolicies', root, {})
  assert.ok(body.policies.some(({ name }) => name === 'late'))
  refuses = undefined
  await lab.service.settle()
  assert.doesNotMatch(await concerns(), /not on the disk|cannot be written/)
  const { records } = await lab.audit.query({ limit: 100_000 })
  assert.ok(
    records.some(
      ({ facts }) => facts['happened'] !== undefined && 'late' in ((facts['digests'] as object) ?? {}),
    ),
  )
})

function startsWith(how: 'ENOSPC' | 'EROFS'): Promise<void> {
  return withAlice(async ({ asker, pid }) => {
    const id = await lent(asker, pid)
    const waits = await lendTo(asker, pid, 'approved')
    assert.ok('request' in waits.body && waits.body.request !== undefined)
    await lab.stop()
    refuses = how
    await lab.start({ files })
    await lab.service.settle()
    const shown = await lab.ask('showLoan', asker, { params: { id } })
    assert.equal(shown.body.state, 'live')
    assert.match(await concerns(), /not on the disk/)
    await assert.rejects(lendTo(asker, pid, 'alices', { place: { path: '/mnt' } }), {
      errnoName: how,
    })
    const request = { params: { id: waits.body.request.id } }
    const waiting = await lab.ask('showRequest', asker, { ...request, query: {} })
    assert.equal(waiting.body.state, 'waiting')
    await assert.rejects(lab.ask('approve', root, { ...request, body: {} }), { errnoName: how })
    const revoked = await lab.ask('revoke', root, { body: { what: { loan: id } } })
    assert.deepEqual(
      revoked.body.loans.map(one => [one.id, one.state]),
      [[id, 'ended']],
    )
    assert.match(revoked.body.loans[0]!.ended!.detail!, /not on the disk/)
    assert.equal(isMounted(pid), false)
    refuses = undefined
    await lab.service.settle()
    const after = await lab.ask('showLoan', asker, { params: { id } })
    assert.deepEqual([after.body.state, after.body.ended?.why], ['ended', 'revoked'])
    assert.equal(lab.registry.loan(Number(id.slice(5)))?.state, 'ended')
    assert.ok((await eventsOf('loan', id)).includes('loan.ended'))
    assert.equal((await lab.ask('approve', root, { ...request, body: {} })).body.state, 'approved')
    await lab.ask('revoke', root, { body: { what: { all: true } } })
    assert.doesNotMatch(await concerns(), /not on the disk|cannot be written/)
    await lent(asker, pid)
    assert.equal((await lab.ask('verifyAudit', root, {})).body.intact, true)
  })
}

test('with a full disk it starts, shows what there is, lends nothing, and takes back', () =>
  startsWith('ENOSPC'))

test('with a read-only disk it starts, shows what there is, lends nothing, and takes back', () =>
  startsWith('EROFS'))

test('a loan expires while the disk is full, and is recorded when there is room', () =>
  withAlice(async ({ asker, pid }) => {
    const id = await lent(asker, pid, { lifetimeSec: 1 })
    refuses = 'ENOSPC'
    await eventually(() => !isMounted(pid), 'it did not expire')
    await eventually(
      async () => (await lab.ask('showLoan', asker, { params: { id } })).body.state === 'ended',
      'it is not shown as ended',
    )
    assert.notEqual(lab.registry.loan(Number(id.slice(5)))?.state, 'ended')
    refuses = undefined
    await lab.service.settle()
    const loan = lab.registry.loan(Number(id.slice(5)))
    assert.deepEqual([loan?.state, loan?.ended?.why], ['ended', 'expired'])
  }))

test('a request that cannot be decided while the disk is full waits on, and can be decided after', () =>
  withAlice(async ({ asker, pid }) => {
    const waiting = async () => {
      const { body } = await lendTo(asker, pid, 'approved')
      assert.ok('request' in body && body.request !== undefined)
      return { params: { id: body.request.id }, body: {} }
    }
    const [denied, withdrawn, approved] = [await waiting(), await waiting(), await waiting()]
    refuses = 'ENOSPC'
    for (let i = 0; i < 2; i++) {
      await assert.rejects(lab.ask('deny', root, denied), { errnoName: 'ENOSPC' })
      await assert.rejects(lab.ask('withdraw', asker, withdrawn), { errnoName: 'ENOSPC' })
      await assert.rejects(lab.ask('approve', root, approved), { errnoName: 'ENOSPC' })
    }
    assert.equal(isMounted(pid), false)
    assert.equal(lab.service.gauges().waitingRequests, 3)
    refuses = undefined
    assert.equal((await lab.ask('deny', root, denied)).body.state, 'denied')
    assert.equal((await lab.ask('withdraw', asker, withdrawn)).body.state, 'withdrawn')
    assert.equal((await lab.ask('approve', root, approved)).body.state, 'approved')
    assert.equal(isMounted(pid), true)
    assert.equal(lab.service.gauges().waitingRequests, 0)
  }))

test('the watchdog is fed while the disk refuses, and is not while it does not answer', () =>
  withAlice(async ({ asker, pid }) => {
    using scratch = new Scratch()
    const socket = join(scratch.path, 'notify')
    await using manager = await Receiver.at(socket)
    using notifier = new Notifier({ NOTIFY_SOCKET: socket, WATCHDOG_USEC: '20000' }, process.pid)
    /** What was said until this was. */
    const saidBefore = async (mark: string): Promise<string[]> => {
      notifier.status(mark)
      const said: string[] = []
      for (let line = await manager.next(); line !== `STATUS=${mark}`; line = await manager.next())
        said.push(line)
      return said
    }
    notifier.watch(() => lab.service.isHealthy(200))
    refuses = 'ENOSPC'
    await assert.rejects(lendTo(asker, pid), { errnoName: 'ENOSPC' })
    await saidBefore('it refuses')
    assert.equal(await manager.next(), 'WATCHDOG=1')
    refuses = undefined
    let answer!: () => void
    hangs = new Promise(resolve => {
      answer = resolve
    })
    try {
      const asked = lent(asker, pid)
      await eventually(() => !lab.service.isHealthy(200), 'a write that hangs is not seen')
      await saidBefore('it hangs')
      await new Promise(resolve => setTimeout(resolve, 200))
      assert.deepEqual(await saidBefore('it hangs still'), [])
      // Who asks how it is has an answer all the same.
      assert.equal((await lab.ask('status', root, {})).status, 200)
      answer()
      await asked
    } finally {
      answer()
      hangs = undefined
    }
    assert.equal(lab.service.isHealthy(200), true)
    assert.equal(await manager.next(), 'WATCHDOG=1')
  }))

test('where only the audit cannot be written a denial counts, and is recorded later', () =>
  withAlice(async ({ asker, pid }) => {
    const { body } = await lendTo(asker, pid, 'approved')
    assert.ok('request' in body && body.request !== undefined)
    const { id } = body.request
    const append = lab.audit.append.bind(lab.audit)
    lab.audit.append = async () => refuseAudit()
    try {
      assert.equal((await lab.ask('deny', root, { params: { id }, body: {} })).body.state, 'denied')
    } finally {
      lab.audit.append = append
    }
    assert.ok(!(await eventsOf('request', id)).includes('request.denied'))
    await lab.service.settle()
    assert.ok((await eventsOf('request', id)).includes('request.denied'))
    assert.equal(isMounted(pid), false)
  }))

function refuseAudit(): never {
  throw new Error('the audit takes no record')
}
