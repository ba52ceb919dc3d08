/** What the daemon does for real askers: lends, refuses, takes back, lets wait. No guard here. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { REAL_CLOCK } from '../../../src/daemon/clock.ts'
import type { Peer } from '../../../src/daemon/peer.ts'
import { delegate } from '../../../src/delegation/delegate.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import type { BpftokenError } from '../../../src/errors.ts'
import type { HeldRecord } from '../../../src/registry/loan-record.ts'
import { uniqueNamespaceId } from '../../../src/sys/namespace.ts'
import { open as openFile } from '../../../src/sys/open.ts'
import { AT_FDCWD, CLONE_NEWNS, CLONE_NEWUSER, O_RDONLY } from '../../../src/uapi/constants.ts'
import { eventually } from '../../helpers/eventually.ts'
import { canHang, HangingExec } from '../delegation/hanging-exec.ts'
import { policyWith, vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'
import { inOwnNamespaces, ServiceLab } from './service-lab.ts'

const ALICE = 61001
const BOB = 61002
const PATH = '/sys/fs/bpf'
const RIGHTS = '  rights: { cmds: [map_create], maps: [hash] }'

let lab: ServiceLab
let root: Peer

before(async () => {
  lab = await ServiceLab.open()
  lab.write('alices', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}`)
  lab.write('approved', `  subjects: [{ user: ${ALICE} }]\n  approval: required\n${RIGHTS}`)
  lab.write('roots', RIGHTS)
  lab.write('everybodys', `  subjects: [{ user: ${ALICE} }, { user: ${BOB} }]\n${RIGHTS}`)
  await lab.service.reload()
  root = await lab.root()
})
after(() => lab[Symbol.asyncDispose]())
leavesNothing()

const isMounted = (pid: number): boolean =>
  listInstances(vocabulary).some(({ pids, path }) => pids.includes(pid) && path === PATH)

/**
 * `body` with a process that a user has in namespaces of its own, and one of the same user outside.
 */
async function withUser(
  uid: number,
  body: (user: { asker: Peer; outside: Workload; inside: Workload; pid: number }) => Promise<void>,
): Promise<void> {
  const outside = await Workload.onHost(uid)
  const inside = await inOwnNamespaces(uid)
  try {
    await body({ asker: await lab.askerOf(outside), outside, inside, pid: inside.pid })
  } finally {
    for (const one of [outside, inside]) one[Symbol.dispose]()
    await Promise.all([outside.exited, inside.exited])
  }
}

const toPid = (pid: number, name = 'alices', also: object = {}) => ({
  body: { policy: { name }, recipient: { pid }, place: { path: PATH }, ...also },
})

/** The loan of an answer. */
function lentIn({ status, body }: { status: number; body: object }) {
  assert.equal(status, 201, JSON.stringify(body))
  return (body as { loan: { id: string; state: string; record?: { mount?: { path: string } } } }).loan
}

async function auditOf(loan: string): Promise<string[]> {
  const { records } = await lab.audit.query({ loan: Number(loan.slice(5)) })
  return records.map(({ event }) => event)
}

test('lend: a user lends to its own namespace by a policy that names it, and another user does not', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const loan = lentIn(await lab.ask('lend', asker, toPid(pid)))
    assert.deepEqual([loan.state, loan.record?.mount?.path], ['live', PATH])
    assert.equal(isMounted(pid), true)
    assert.deepEqual(await auditOf(loan.id), ['lend.will', 'lend.did'])
    await withUser(BOB, async bob => {
      await assert.rejects(lab.ask('lend', bob.asker, toPid(bob.pid)), { reason: 'subject-refused' })
      assert.equal(isMounted(bob.pid), false)
      // The same policy would name Bob, but the namespace is not his.
      const other = toPid(pid, 'everybodys')
      await assert.rejects(lab.ask('lend', bob.asker, other), {
        code: 'BPFTOKEN_DENIED',
        message: /no power over/,
      })
      lentIn(await lab.ask('lend', bob.asker, toPid(bob.pid, 'everybodys')))
    })
    const denied = await lab.audit.query()
    // Each reason by itself: again and again the same is folded.
    assert.equal(denied.records.filter(({ event }) => event === 'lend.denied').length, 2)
  }))

test('lend: a policy without subjects is for root alone, as are a document, and lending to anybody', () =>
  withUser(BOB, async ({ asker, pid }) => {
    await assert.rejects(lab.ask('lend', asker, toPid(pid, 'roots')), { reason: 'subject-refused' })
    const document = `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: own }\nspec:\n${RIGHTS}\n`
    const own = { body: { policy: { document }, recipient: { pid }, place: { path: PATH } } }
    await assert.rejects(lab.ask('lend', asker, own), { code: 'BPFTOKEN_DENIED', message: /Only root/ })
    const any = toPid(pid, 'everybodys', { anySubject: true })
    await assert.rejects(lab.ask('lend', asker, any), { code: 'BPFTOKEN_DENIED', message: /Only root/ })
    assert.equal(isMounted(pid), false)
    const loan = lentIn(await lab.ask('lend', root, own))
    await lab.ask('revoke', root, { body: { what: { loan: loan.id } } })
    lentIn(await lab.ask('lend', root, toPid(pid, 'alices', { anySubject: true })))
    assert.equal(isMounted(pid), true)
  }))

test('lend: a dry run says what would be done, and does nothing', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const { status, body } = await lab.ask('lend', asker, toPid(pid, 'alices', { dryRun: true }))
    assert.equal(status, 200)
    assert.ok('dryRun' in body && body.actions.some(action => action.do === 'attachMount'))
    assert.equal(isMounted(pid), false)
  }))

test('lend: with a key one loan is made, however often and at once it is asked for', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const ask = () => lab.ask('lend', asker, toPid(pid), { key: 'k-1' })
    const [first, second] = await Promise.all([ask(), ask()])
    const third = await ask()
    const ids = [first, second, third].map(answer => lentIn(answer).id)
    assert.equal(new Set(ids).size, 1)
    await assert.rejects(lab.ask('lend', asker, toPid(pid, 'everybodys'), { key: 'k-1' }), {
      code: 'BPFTOKEN_CONFLICT',
    })
    // Another key is another request, which finds the place taken.
    await assert.rejects(lab.ask('lend', asker, toPid(pid), { key: 'k-2' }), { reason: 'place-taken' })
  }))

test('lend: to itself by self, and by the context that it opened', () =>
  withUser(ALICE, async ({ inside, pid }) => {
    const asker = await lab.askerOf(inside)
    const contextFd = await inside.must('fsopen', 'bpf', 0)
    const request = {
      body: { policy: { name: 'alices' }, recipient: { self: true as const }, place: { contextFd } },
    }
    const loan = lentIn(await lab.ask('lend', asker, request))
    assert.equal(loan.record?.mount, undefined)
    const mount = await inside.must('fsmount', contextFd, 0, 0)
    await inside.must('move_mount', mount, '', -100, PATH, 4)
    assert.equal(isMounted(pid), true)
    const { body } = await lab.ask('revoke', asker, { body: { what: { loan: loan.id } } })
    assert.deepEqual(
      body.loans.map(({ state }) => state),
      ['ended'],
    )
    assert.equal(isMounted(pid), false)
  }))

test('revoke: takes back what is named, says that tokens stay, and shows before what would end', () =>
  withUser(ALICE, async ({ asker, inside, pid }) => {
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid)))
    const dry = await lab.ask('revoke', asker, { body: { what: { loan: id }, dryRun: true } })
    assert.deepEqual(
      dry.body.loans.map(loan => [loan.id, loan.state]),
      [[id, 'live']],
    )
    assert.equal(isMounted(pid), true)
    await withUser(BOB, async bob => {
      await assert.rejects(lab.ask('revoke', bob.asker, { body: { what: { loan: id } } }), {
        code: 'BPFTOKEN_NOT_FOUND',
      })
      // Of his own there may be one whose processes have just gone.
      const all = await lab.ask('revoke', bob.asker, { body: { what: { all: true } } })
      assert.ok(all.body.loans.every(loan => loan.id !== id))
    })
    assert.equal(isMounted(pid), true)
    const directory = await inside.must('openat', -100, PATH, 0)
    const token = await inside.token(directory)
    assert.ok(token >= 0)
    const { body } = await lab.ask('revoke', asker, { body: { what: { loan: id } } })
    assert.deepEqual(
      body.loans.map(loan => [loan.id, loan.state, loan.ended?.why]),
      [[id, 'ended', 'revoked']],
    )
    // The kernel keeps a token that was made: so it is not complete.
    assert.equal(body.complete, false)
    assert.ok((await inside.map('hash', token)) >= 0)
    assert.equal(isMounted(pid), false)
    assert.deepEqual(await auditOf(id), ['lend.will', 'lend.did', 'loan.ended'])
    lentIn(await lab.ask('lend', asker, toPid(pid)))
  }))

test('revoke: by user, by policy and all, each what it says and no more', async () => {
  await withUser(ALICE, alice =>
    withUser(BOB, async bob => {
      const lendAll = async () => {
        lentIn(await lab.ask('lend', alice.asker, toPid(alice.pid, 'alices')))
        lentIn(await lab.ask('lend', bob.asker, toPid(bob.pid, 'everybodys')))
      }
      const mounted = () => [isMounted(alice.pid), isMounted(bob.pid)]
      await lendAll()
      await lab.ask('revoke', root, { body: { what: { uid: BOB } } })
      assert.deepEqual(mounted(), [true, false])
      await lab.ask('revoke', root, { body: { what: { policy: 'everybodys' } } })
      assert.deepEqual(mounted(), [true, false])
      await lab.ask('revoke', root, { body: { what: { policy: 'alices' } } })
      assert.deepEqual(mounted(), [false, false])
      await lendAll()
      // Of Alice all is her own.
      await lab.ask('revoke', alice.asker, { body: { what: { all: true } } })
      assert.deepEqual(mounted(), [false, true])
      await lab.ask('revoke', root, { body: { what: { all: true } } })
      assert.deepEqual(mounted(), [false, false])
    }),
  )
})

test('approval: it waits, is lent when root approves, and the asker is told', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const { status, body } = await lab.ask('lend', asker, toPid(pid, 'approved', { comment: 'for the demo' }))
    assert.equal(status, 202)
    assert.ok('request' in body)
    const { id } = body.request
    assert.equal(isMounted(pid), false)
    await assert.rejects(lab.ask('approve', asker, { params: { id }, body: {} }), { code: 'BPFTOKEN_DENIED' })
    const told = lab.ask('showRequest', asker, { params: { id }, query: { wait: 60 } })
    const approved = await lab.ask('approve', root, { params: { id }, body: { comment: 'fine' } })
    assert.equal(approved.body.state, 'approved')
    assert.deepEqual((await told).body.state, 'approved')
    assert.equal(isMounted(pid), true)
    const loan = await lab.ask('showLoan', asker, { params: { id: approved.body.loan! } })
    assert.equal(loan.body.spec.approvedBy, 0)
    // Decided once, it is decided.
    await assert.rejects(lab.ask('deny', root, { params: { id }, body: {} }), { code: 'BPFTOKEN_CONFLICT' })
  }))

test('approval: nothing is lent when it is denied, withdrawn, or who asked has gone', () =>
  withUser(ALICE, async ({ asker, outside, pid }) => {
    const wait = async (by: Peer) => {
      const { body } = await lab.ask('lend', by, toPid(pid, 'approved'))
      assert.ok('request' in body)
      return { params: { id: body.request.id }, body: {} }
    }
    assert.equal((await lab.ask('deny', root, await wait(asker))).body.state, 'denied')
    const withdrawn = await wait(asker)
    assert.equal((await lab.ask('withdraw', asker, withdrawn)).body.state, 'withdrawn')
    await assert.rejects(lab.ask('approve', root, withdrawn), { code: 'BPFTOKEN_CONFLICT' })
    const orphan = await wait(asker)
    outside[Symbol.dispose]()
    await outside.exited
    assert.equal((await lab.ask('approve', root, orphan)).body.state, 'expired')
    assert.equal(isMounted(pid), false)
  }))

test('approval: two who decide at once decide it once', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const { body } = await lab.ask('lend', asker, toPid(pid, 'approved'))
    assert.ok('request' in body)
    const which = { params: { id: body.request.id }, body: {} }
    const all = await Promise.allSettled([
      lab.ask('approve', root, which),
      lab.ask('approve', root, which),
      lab.ask('deny', root, which),
    ])
    assert.equal(all.filter(({ status }) => status === 'fulfilled').length, 1)
  }))

test('approval: of many requests at once as many wait as may, and one more when one is decided', async () => {
  await using few = await ServiceLab.open({ limits: { waitingRequests: 2 } })
  few.write('approved', `  subjects: [{ user: ${ALICE} }]\n  approval: required\n${RIGHTS}`)
  await few.service.reload()
  await withUser(ALICE, async ({ outside, pid }) => {
    const asker = await few.askerOf(outside)
    const asked = () => few.ask('lend', asker, toPid(pid, 'approved'))
    const all = await Promise.allSettled(Array.from({ length: 10 }, asked))
    const waiting = all.flatMap(one => (one.status === 'fulfilled' ? [one.value.body] : []))
    assert.equal(waiting.length, 2)
    for (const one of all)
      if (one.status === 'rejected') assert.match(one.reason.message, /2 requests that wait for approval/)
    assert.ok('request' in waiting[0]!)
    await few.ask('withdraw', asker, { params: { id: waiting[0].request.id } })
    await asked()
    await assert.rejects(asked(), { code: 'BPFTOKEN_BUSY' })
  })
})

async function waitsFor(approvalSec: number, over: boolean): Promise<void> {
  await using patient = await ServiceLab.open({ limits: { approvalSec } })
  patient.write('approved', `  subjects: [{ user: ${ALICE} }]\n  approval: required\n${RIGHTS}`)
  await patient.service.reload()
  await withUser(ALICE, async ({ outside, pid }) => {
    const asker = await patient.askerOf(outside)
    const { body } = await patient.ask('lend', asker, toPid(pid, 'approved'))
    assert.ok('request' in body)
    const which = { params: { id: body.request.id } }
    const query = { wait: over ? 60 : 1 }
    const then = await patient.ask('showRequest', asker, { ...which, query })
    assert.equal(then.body.state, over ? 'expired' : 'waiting')
    assert.equal(patient.service.gauges().waitingRequests, over ? 0 : 1)
    if (over) return
    const admin = await patient.root()
    assert.equal((await patient.ask('approve', admin, { ...which, body: {} })).body.state, 'approved')
  })
}

test('approval: a request that may wait for thirty days waits, and can be decided', () =>
  waitsFor(30 * 86_400, false))

test('approval: a request that may wait for a second is over then', () => waitsFor(1, true))

test('a loan ends when its time has come, and lives longer when it is renewed', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid, 'alices', { lifetimeSec: 1 })))
    const stateOf = async () => (await lab.ask('showLoan', asker, { params: { id } })).body
    await eventually(async () => (await stateOf()).state === 'ended', 'it did not expire')
    assert.equal((await stateOf()).ended?.why, 'expired')
    assert.equal(isMounted(pid), false)
    await assert.rejects(lab.ask('renew', asker, { params: { id }, body: { lifetimeSec: 60 } }), {
      code: 'BPFTOKEN_CONFLICT',
    })
    const next = lentIn(await lab.ask('lend', asker, toPid(pid, 'alices', { lifetimeSec: 3 }))).id
    const renewed = await lab.ask('renew', asker, { params: { id: next }, body: { lifetimeSec: 3600 } })
    const left = Date.parse(renewed.body.record!.expiresAt!) - Date.now()
    assert.ok(left > 3_000_000, String(left))
    const never = lentIn(await lab.ask('lend', asker, toPid(pid, 'alices', { place: { path: '/dev' } }))).id
    await assert.rejects(lab.ask('renew', asker, { params: { id: never }, body: { lifetimeSec: 60 } }), {
      code: 'BPFTOKEN_CONFLICT',
      message: /does not expire/,
    })
  }))

test('renew: others than root renew no more than the policy lends now', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const write = async (rights: string, lifetime: string) => {
      lab.write(
        'shrinks',
        `  subjects: [{ user: ${ALICE} }]\n  limits: { lifetime: ${lifetime} }\n${rights}\n  guard: optional`,
      )
      await lab.service.reload()
    }
    await write('  rights: { cmds: [map_create, prog_load], maps: [hash] }', '1h')
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid, 'shrinks')))
    const renew = (by: Peer) => lab.ask('renew', by, { params: { id }, body: { lifetimeSec: 600 } })
    assert.equal((await renew(asker)).status, 200)
    await write(RIGHTS, '1h')
    await assert.rejects(renew(asker), { code: 'BPFTOKEN_DENIED', message: /cmds/ })
    assert.equal((await renew(root)).status, 200)
    // A lifetime that is shorter now is what is renewed, and more rights are no reason to refuse.
    await write('  rights: { cmds: [map_create, prog_load, link_create], maps: [hash] }', '5m')
    const { body } = await renew(asker)
    assert.ok(Date.parse(body.record!.expiresAt!) - Date.now() <= 300_000)
    rmSync(join(lab.policyDirectory, 'shrinks.yaml'))
    await lab.service.reload()
  }))

/** What a runtime's hook asks for a process that is to be a container. */
async function lendToContainer(
  { pid, rootfs }: { pid: number; rootfs: string },
  id: string,
  policy: string,
  engine?: object,
) {
  const state = { id, pid, bundle: lab.directory, root: rootfs, status: 'created' }
  const annotations = { 'bpftoken.dev/policy': policy }
  const { body } = await lab.ask('ociHook', root, {
    body: { state: { ...state, annotations }, ...(engine && { engine }) },
  })
  return body.loan!.id
}

test('renew: a container renews what its runtime asked for, as long as what is said of it is of the policy', () =>
  withUser(ALICE, async ({ asker: owner, inside, pid }) => {
    const asker = await lab.askerOf(inside)
    const rootfs = join(lab.directory, 'rootfs')
    mkdirSync(rootfs)
    await inside.must('mount', 'none', rootfs, 'tmpfs', 0, 'mode=755')
    for (const below of ['/sys', '/sys/fs', PATH])
      await inside.must('mkdirat', AT_FDCWD, `${rootfs}${below}`, 0o755)
    const container = { pid, rootfs }
    const write = (name: string, subject: string) =>
      lab.write(
        name,
        `  subjects: [{ ${subject} }]\n  limits: { lifetime: 1h }\n${RIGHTS}\n  guard: optional`,
      )
    write('images', 'container: { image: good }')
    write('pods', 'kubernetes: { namespace: prod, labels: { app: web } }')
    await lab.service.reload()
    const announce = (facts: object) =>
      lab.ask('announceContainers', root, {
        body: { runtime: 'nri', whole: false, containers: [{ id: 'c1', ...facts }] },
      })
    const renew = (by: Peer, id: string) =>
      lab.ask('renew', by, { params: { id }, body: { lifetimeSec: 600 } })
    const pod = { name: 'web-1', uid: 'u', namespace: 'prod', labels: { app: 'web' } }
    const asked = { annotations: { 'bpftoken.dev/policy': 'images' } }
    const wrong = { image: 'bad', pod: { ...pod, labels: { app: 'db' } } }
    try {
      for (const policy of ['images', 'pods']) {
        const said = { ...asked, image: 'good', pod, annotations: { 'bpftoken.dev/policy': policy } }
        await announce(said)
        const id = await lendToContainer(container, 'c1', policy)
        assert.equal((await renew(asker, id)).status, 200)
        await assert.rejects(renew(owner, id), {
          code: 'BPFTOKEN_DENIED',
          message: /no runtime has said of what container it is/,
        })
        const refuse = (message: RegExp) =>
          assert.rejects(renew(asker, id), { code: 'BPFTOKEN_DENIED', message })
        await announce({ ...said, ...wrong })
        await refuse(policy === 'images' ? /bad/ : /app.{1,6}db/)
        assert.equal((await renew(root, id)).status, 200)
        await announce({ ...said, pid: pid + 1 })
        await refuse(/another container has its id by now/)
        await announce({ ...said, pid })
        assert.equal((await renew(asker, id)).status, 200)
        await lab.ask('announceContainers', root, { body: { runtime: 'nri', whole: true, containers: [] } })
        await refuse(/nobody has announced its container/)
        await lab.ask('revoke', root, { body: { what: { loan: id } } })
      }
      // What its engine had written down is kept with the loan.
      const id = await lendToContainer(container, 'c2', 'images', { name: 'web', image: 'good' })
      assert.equal((await renew(asker, id)).status, 200)
      await lab.stop()
      await lab.start()
      assert.equal((await renew(asker, id)).status, 200)
      await lab.ask('revoke', root, { body: { what: { loan: id } } })
    } finally {
      for (const name of ['images', 'pods']) rmSync(join(lab.policyDirectory, `${name}.yaml`))
      await lab.service.reload()
    }
  }))

test('loans of a user that are slow to end delay the end of nobody else, and all end', async () => {
  await using slow = await ServiceLab.open()
  slow.write('everybodys', `  subjects: [{ user: ${ALICE} }, { user: ${BOB} }]\n${RIGHTS}`)
  await slow.service.reload()
  let release = (): void => {}
  const released = new Promise<void>(resolve => {
    release = resolve
  })
  const hung = new Set<number>()
  const { append } = slow.audit
  slow.audit.append = async entry => {
    const { event, loan } = entry
    if (event === 'loan.ended' && slow.registry.loan(loan!)?.asker.uid === ALICE) {
      hung.add(loan!)
      await released
    }
    return append.call(slow.audit, entry)
  }
  const lendTo = async (asker: Peer, pid: number, path: string): Promise<void> => {
    const also = { place: { path }, lifetimeSec: 1 }
    lentIn(await slow.ask('lend', asker, toPid(pid, 'everybodys', also)))
  }
  await withUser(ALICE, alice =>
    withUser(BOB, async bob => {
      const hers = await slow.askerOf(alice.outside)
      for (const path of ['/dev', '/mnt', '/srv', '/opt', '/media', '/home'])
        await lendTo(hers, alice.pid, path)
      await eventually(() => hung.size === 4, 'hers do not end')
      await lendTo(await slow.askerOf(bob.outside), bob.pid, PATH)
      await eventually(() => !isMounted(bob.pid), 'his does not end')
      assert.equal(hung.size, 4)
      release()
      await eventually(() => hung.size === 6, 'the others of hers do not end')
    }),
  )
})

test('what the calendar is set to ends no loan, and keeps none', async () => {
  let year = 2026
  const clock = { ...REAL_CLOCK, wall: () => `${year}-01-01T00:00:00.000Z` }
  await using jumping = await ServiceLab.open({ clock })
  jumping.write('alices', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}`)
  await jumping.service.reload()
  await withUser(ALICE, async ({ outside, pid }) => {
    const asker = await jumping.askerOf(outside)
    const lend = async (path: string, lifetimeSec: number) => {
      const also = { place: { path }, lifetimeSec }
      return lentIn(await jumping.ask('lend', asker, toPid(pid, 'alices', also))).id
    }
    const stateOf = async (id: string) =>
      (await jumping.ask('showLoan', asker, { params: { id } })).body.state
    const short = await lend('/dev', 2)
    const long = await lend('/mnt', 3600)
    year = 1999
    await eventually(async () => (await stateOf(short)) === 'ended', 'it did not end')
    year = 2099
    await jumping.service.settle()
    assert.equal(await stateOf(long), 'live')
  })
})

test('a loan ends when the last process of its namespaces has gone, and not with the first', () =>
  withUser(ALICE, async ({ asker, inside, pid }) => {
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid)))
    const second = spawn('nsenter', ['-t', String(pid), '-U', '-m', 'sleep', '1000'], { stdio: 'ignore' })
    const exited = once(second, 'exit')
    const shown = async () => (await lab.ask('showLoan', asker, { params: { id } })).body
    await eventually(() => isMounted(second.pid!), 'it did not enter')
    inside[Symbol.dispose]()
    await inside.exited
    // Looked at again after the first has exited, it lives on in the second.
    await lab.service.settle()
    assert.equal((await shown()).state, 'live')
    second.kill('SIGKILL')
    await exited
    await eventually(async () => (await shown()).state === 'ended', 'it did not end')
    assert.equal((await shown()).ended?.why, 'processes-gone')
  }))

/** Processes in user namespaces of their own, until one has this name, or so many were tried. */
async function tryForName(
  name: string,
  body: (found: Workload | undefined) => Promise<void>,
  goesOn: () => boolean = () => true,
): Promise<void> {
  const all: Workload[] = []
  try {
    let found: Workload | undefined
    while (found === undefined && all.length < 40 && goesOn()) {
      const one = await inOwnNamespaces(ALICE)
      all.push(one)
      if (readlinkSync(`/proc/${one.pid}/ns/user`) === name) found = one
    }
    await body(found)
  } finally {
    for (const one of all) one[Symbol.dispose]()
    await Promise.all(all.map(one => one.exited))
  }
}

test('as long as a loan is known no other user namespace gets the number of its own, and it ends', () =>
  withUser(ALICE, async ({ asker, inside, pid }) => {
    const name = readlinkSync(`/proc/${pid}/ns/user`)
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid)))
    inside[Symbol.dispose]()
    await inside.exited
    // Also when it has been looked after, nobody gets it while the loan is there.
    const isOpen = () => lab.registry.loan(Number(id.slice(5)))?.state !== 'ended'
    await tryForName(name, async other => assert.ok(other === undefined || !isOpen()), isOpen)
    // Whoever asks has it looked after.
    const shown = async () => (await lab.ask('showLoan', root, { params: { id } })).body
    await eventually(async () => (await shown()).state === 'ended', 'it lives on')
    assert.equal((await shown()).ended?.why, 'processes-gone')
  }))

test('after a restart a loan is not taken for that of another namespace that has its number', async t => {
  using own = openFile('/proc/self/ns/user', O_RDONLY)
  if (uniqueNamespaceId(own) === undefined)
    return t.skip('this kernel has no numbers of namespaces that are not used again (Linux 6.18 has)')
  await withUser(ALICE, async ({ asker, inside, pid }) => {
    const name = readlinkSync(`/proc/${pid}/ns/user`)
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid)))
    await lab.stop()
    inside[Symbol.dispose]()
    await inside.exited
    let found = false
    await tryForName(name, async other => {
      await lab.start()
      found = other !== undefined
      if (other === undefined) return
      // What is mounted there looks as if it were that of the loan.
      using target = openTarget(other.pid)
      await delegate(policyWith({ cmds: 1n, maps: 2n }), target, vocabulary, { path: PATH })
      await lab.service.settle()
      const { body } = await lab.ask('showLoan', root, { params: { id } })
      assert.deepEqual([body.state, body.ended?.why], ['ended', 'processes-gone'])
    })
    if (!found) t.skip('others of this machine took the number of the namespace first')
  })
})

test('a loan that has ended is shown to who asked for it, and to none of another namespace with its number', async t => {
  using own = openFile('/proc/self/ns/user', O_RDONLY)
  if (uniqueNamespaceId(own) === undefined)
    return t.skip('this kernel has no numbers of namespaces that are not used again (Linux 6.18 has)')
  await withUser(ALICE, async ({ inside, pid }) => {
    const asker = await lab.askerOf(inside)
    const name = readlinkSync(`/proc/${pid}/ns/user`)
    const request = { body: { ...toPid(pid).body, recipient: { self: true as const } } }
    const { id } = lentIn(await lab.ask('lend', asker, request))
    await lab.ask('revoke', asker, { body: { what: { loan: id } } })
    const shown = (by: Peer) => lab.ask('showLoan', by, { params: { id } })
    const listed = async (by: Peer) =>
      (await lab.ask('listLoans', by, { query: { state: 'all' } })).body.loans.some(loan => loan.id === id)
    assert.equal((await shown(asker)).body.state, 'ended')
    assert.equal(await listed(asker), true)
    inside[Symbol.dispose]()
    await inside.exited
    let found = false
    await tryForName(name, async other => {
      found = other !== undefined
      if (other === undefined) return
      const another = await lab.askerOf(other)
      const { facts } = await another.who()
      assert.deepEqual([facts.uid, facts.userNamespace], [ALICE, name])
      await assert.rejects(shown(another), { code: 'BPFTOKEN_NOT_FOUND' })
      assert.equal(await listed(another), false)
    })
    if (!found) t.skip('others of this machine took the number of the namespace first')
  })
})

test('limits: a user has so many open loans, and asks so often; root is not held by them', async () => {
  await using small = await ServiceLab.open({ limits: { openLoans: 1, requestsPerMinute: 4 } })
  small.write('alices', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}`)
  await small.service.reload()
  const outside = await Workload.onHost(ALICE)
  const inside = await inOwnNamespaces(ALICE)
  try {
    const asker = await small.askerOf(outside)
    const there = (path: string) => toPid(inside.pid, 'alices', { place: { path } })
    const all = await Promise.allSettled(
      ['/dev', '/mnt', '/srv'].map(path => small.ask('lend', asker, there(path))),
    )
    assert.equal(all.filter(({ status }) => status === 'fulfilled').length, 1)
    await assert.rejects(small.ask('lend', asker, there('/srv')), {
      code: 'BPFTOKEN_BUSY',
      message: /open loans/,
    })
    await assert.rejects(small.ask('decide', asker, { body: {} }), {
      code: 'BPFTOKEN_BUSY',
      message: /in a minute/,
    })
    const admin = await small.root()
    for (const path of ['/opt', '/media', '/home', '/var'])
      lentIn(
        await small.ask('lend', admin, toPid(inside.pid, 'alices', { place: { path }, anySubject: true })),
      )
  } finally {
    for (const one of [outside, inside]) one[Symbol.dispose]()
    await Promise.all([outside.exited, inside.exited])
  }
})

test('decide: says why, for who asks and for whom root names, and does nothing', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const { body } = await lab.ask('decide', asker, { body: { policy: 'alices', recipient: { pid } } })
    assert.deepEqual([body.allowed, body.because, body.entry], [true, 'subject', 'spec.subjects[0]'])
    await withUser(BOB, async bob => {
      const { body: all } = await lab.ask('decide', bob.asker, { body: {} })
      assert.deepEqual(
        all.trace?.map(({ policy }) => policy),
        ['everybodys'],
        'whom others name is not for this one to know',
      )
      const refusal = async (policy: string): Promise<string[]> => {
        const { code, message } = (await lab.ask('decide', bob.asker, { body: { policy } }).then(
          () => assert.fail('it was shown'),
          error => error,
        )) as BpftokenError
        return [code, message.replace(policy, '')]
      }
      assert.deepEqual(await refusal('alices'), await refusal('nobodys'))
      assert.equal((await refusal('roots'))[0], 'BPFTOKEN_NOT_FOUND')
      const foreign = await lab.ask('decide', bob.asker, {
        body: { policy: 'everybodys', recipient: { pid } },
      })
      assert.equal(foreign.body.allowed, false)
      assert.match(foreign.body.because, /no power over/)
    })
    const named = await lab.ask('decide', root, { body: { policy: 'alices', recipient: { pid } } })
    assert.equal(named.body.allowed, true)
    const listed = await lab.ask('listPolicies', asker, {})
    assert.deepEqual(
      listed.body.policies.map(({ name }) => name),
      ['alices', 'approved', 'everybodys'],
    )
    await assert.rejects(lab.ask('showPolicy', asker, { params: { name: 'roots' } }), {
      code: 'BPFTOKEN_NOT_FOUND',
    })
  }))

test('askers that hang in execve(2) hold up neither root nor another user, nor do facts that no policy asks for', async t => {
  const EVE = 61003
  if (!(await canHang(EVE))) return t.skip('a user namespace cannot mount FUSE here')
  lab.write(
    'by-program',
    `  subjects: [{ user: ${EVE}, executable: /bin/x }, { user: ${EVE} }, { user: ${BOB} }]\n${RIGHTS}`,
  )
  await lab.service.reload()
  // Outside of user namespaces, since no executable is looked at of who is in one.
  await using first = await HangingExec.prepare(EVE)
  await using second = await HangingExec.prepare(EVE)
  const outside = [await Workload.onHost(EVE), await Workload.onHost(EVE)] as const
  await first.lure(outside[0])
  await second.lure(outside[1])
  const askers = [await lab.askerOf(outside[0]), await lab.askerOf(outside[1])]
  await first.hang(outside[0])
  await second.hang(outside[1])
  const decided = askers.flatMap(asker =>
    Array.from({ length: 8 }, () => lab.ask('decide', asker, { body: { policy: 'by-program' } })),
  )
  let waiting = true
  const all = Promise.all(decided).finally(() => {
    waiting = false
  })
  await lab.ask('status', root, {})
  await lab.ask('listLoans', root, {})
  assert.ok(waiting, 'nobody hung')
  await withUser(BOB, async ({ asker, pid }) => {
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid, 'by-program')))
    await lab.ask('revoke', root, { body: { what: { loan: id } } })
    assert.equal((await lab.ask('showLoan', root, { params: { id } })).body.state, 'ended')
  })
  // A look that is not in time makes one fact unknown.
  for (const { body } of await all) {
    assert.deepEqual([body.allowed, body.entry], [true, 'spec.subjects[1]'])
    assert.match(JSON.stringify(body.trace), /could not be looked at in time/)
  }
  assert.deepEqual((await lab.ask('listLoans', askers[0]!, {})).body.loans, [])
})

test('what others have lent is listed for root, and left where it is', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    using target = openTarget(pid)
    await delegate(policyWith({ cmds: 1n }), target, vocabulary, { path: PATH })
    const adopted = async (by: Peer) =>
      (await lab.ask('listLoans', by, { query: {} })).body.loans.filter(
        ({ kind, record }) =>
          kind === 'adopted' && record?.recipient.userNamespace === target.facts.userNamespace,
      )
    await eventually(async () => (await adopted(root)).length === 1, 'it is not found')
    // It lies in her namespace: she sees it.
    assert.equal((await adopted(asker)).length, 1)
    await withUser(BOB, async bob => assert.deepEqual(await adopted(bob.asker), []))
    await lab.ask('revoke', root, { body: { what: { all: true } } })
    assert.equal(isMounted(pid), true)
    const [loan] = await adopted(root)
    await lab.ask('revoke', root, { body: { what: { loan: loan!.id } } })
    assert.equal(isMounted(pid), false)
  }))

test('a restart loses nothing that is lent, and nothing that waits for approval', () =>
  withUser(ALICE, async ({ asker, pid, inside }) => {
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid)))
    const other = toPid(pid, 'approved', { place: { path: '/mnt' }, lifetimeSec: 3600, comment: 'why not' })
    const { body } = await lab.ask('lend', asker, other, { key: 'approved-once' })
    assert.ok('request' in body)
    const request = { params: { id: body.request.id }, query: {} }
    await lab.stop()
    await lab.start()
    await lab.service.settle()
    const shown = await lab.ask('showLoan', asker, { params: { id } })
    assert.deepEqual(
      [shown.body.state, shown.body.status?.mounted, shown.body.status?.drift],
      ['live', true, []],
    )
    assert.equal((await lab.ask('showRequest', asker, request)).body.state, 'waiting')
    assert.equal(lab.service.gauges().waitingRequests, 1)
    // Asked again with its key it is the same request.
    const again = await lab.ask('lend', asker, other, { key: 'approved-once' })
    assert.ok('request' in again.body)
    assert.deepEqual([again.status, again.body.request.id], [202, body.request.id])
    const approved = await lab.ask('approve', root, { ...request, body: {} })
    assert.equal(approved.body.state, 'approved')
    const loan = await lab.ask('showLoan', asker, { params: { id: approved.body.loan! } })
    assert.deepEqual(
      [loan.body.record?.mount?.path, loan.body.spec.comment, loan.body.record?.expiresAt !== undefined],
      ['/mnt', 'why not', true],
    )
    assert.equal((await lab.ask('verifyAudit', root, {})).body.intact, true)
    // The exit of the process that was lent to is still noticed.
    inside[Symbol.dispose]()
    await inside.exited
    const ended = async () => (await lab.ask('showLoan', asker, { params: { id } })).body.state === 'ended'
    await eventually(ended, 'it did not end')
  }))

test('a restart withdraws what waits where who asked, or who is to be lent to, is not as it was', () =>
  withUser(ALICE, async stays =>
    withUser(ALICE, async ({ asker, outside, inside, pid }) => {
      const wait = async (by: Peer, to: number): Promise<string> => {
        const { body } = await lab.ask('lend', by, toPid(to, 'approved'))
        assert.ok('request' in body)
        return body.request.id
      }
      const own = await lab.askerOf(stays.outside)
      const [kept, goneAsker, goneTarget] = [
        await wait(own, stays.pid),
        await wait(asker, stays.pid),
        await wait(own, pid),
      ]
      const mover = await inOwnNamespaces(ALICE)
      const moved = await wait(own, mover.pid)
      await lab.stop()
      for (const one of [outside, inside]) one[Symbol.dispose]()
      await Promise.all([outside.exited, inside.exited])
      await mover.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
      // The asker cannot be asked any more: root looks.
      const look = async (id: string) => {
        const { body } = await lab.ask('showRequest', root, { params: { id }, query: {} })
        return `${body.state} ${body.why}`
      }
      await lab.start()
      try {
        assert.equal(await look(kept), 'waiting undefined')
        assert.match(await look(goneAsker), /^withdrawn Process \d+, which connected, has exited/)
        assert.match(await look(goneTarget), /^withdrawn (Process \d+ has exited|There is no process)/)
        assert.match(await look(moved), /^withdrawn Process \d+ has left its namespaces/)
        for (const id of [goneAsker, goneTarget, moved])
          await assert.rejects(lab.ask('approve', root, { params: { id }, body: {} }), {
            code: 'BPFTOKEN_CONFLICT',
          })
        assert.equal(lab.service.gauges().waitingRequests, 1)
        const { records } = await lab.audit.query({ limit: 100_000 })
        const told = records.filter(
          ({ request, event }) => request === goneAsker && event.endsWith('withdrawn'),
        )
        assert.match(String(told[0]?.facts['why']), /has exited/)
        await lab.ask('deny', root, { params: { id: kept }, body: {} })
      } finally {
        mover[Symbol.dispose]()
        await mover.exited
      }
    }),
  ))

test('a request waits no longer for a restart, nor over another boot', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const wait = async (): Promise<number> => {
      const { body } = await lab.ask('lend', asker, toPid(pid, 'approved'))
      assert.ok('request' in body)
      return Number(body.request.id.slice('request-'.length))
    }
    const [late, other, old] = [await wait(), await wait(), await wait()]
    // As if it had been so long ago, before another boot, or of a version that kept less.
    const change = async (id: number, held: Partial<HeldRecord> | undefined): Promise<void> => {
      const request = lab.registry.request(id)!
      await lab.registry.put({
        request: { ...request, held: held === undefined ? undefined : { ...request.held!, ...held } },
      })
    }
    await change(late, { untilBootNs: '1' })
    await change(other, { boot: '00000000-0000-0000-0000-000000000000' })
    await change(old, undefined)
    await lab.stop()
    await lab.start()
    const look = (id: number) => `${lab.registry.request(id)?.state} ${lab.registry.request(id)?.why}`
    assert.equal(look(late), 'expired undefined')
    assert.match(look(other), /^withdrawn The machine was started anew/)
    assert.match(look(old), /^withdrawn It was asked for of an older version/)
    assert.equal(lab.service.gauges().waitingRequests, 0)
  }))

test('a loan that is not as it was made is told, with what has changed', () =>
  withUser(ALICE, async ({ asker, inside, pid }) => {
    const { id } = lentIn(await lab.ask('lend', asker, toPid(pid)))
    await inside.must('mount', 'none', PATH, 'tmpfs', 0, 0)
    const drift = async () => (await lab.ask('showLoan', asker, { params: { id } })).body.status!.drift
    await eventually(async () => (await drift()).length > 0, 'nothing is told')
    assert.match((await drift()).join(), /another mount lies above it/)
    const { body } = await lab.ask('status', root, {})
    assert.ok(body.concerns.some(concern => concern.includes(`${id} is not as it was made`)))
    await lab.ask('revoke', root, { body: { what: { loan: id } } })
    assert.equal(isMounted(pid), false)
  }))

test('a policy file that turns bad keeps the policy that was good, and says so', () =>
  withUser(ALICE, async ({ asker, pid }) => {
    const file = join(lab.policyDirectory, 'alices.yaml')
    writeFileSync(file, 'this: is no policy')
    const { body } = await lab.ask('reload', root, {})
    assert.deepEqual(
      body.faults.map(fault => fault.file),
      [file],
    )
    lentIn(await lab.ask('lend', asker, toPid(pid)))
    assert.equal((await lab.ask('status', root, {})).body.policies.faults.length, 1)
    lab.write('alices', `  subjects: [{ user: ${ALICE} }]\n${RIGHTS}`)
    assert.deepEqual((await lab.ask('reload', root, {})).body.faults, [])
  }))

test('nothing was logged as an error that no test asked for', () => {
  assert.deepEqual(
    lab.log.lines.filter(line => line.startsWith('error') && !line.includes('a policy could not be taken')),
    [],
  )
})
