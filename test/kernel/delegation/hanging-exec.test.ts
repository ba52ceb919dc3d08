/**
 * Processes that hang in execve(2), where a look at them by /proc would wait for as long as they
 * like: nobody does, and each look that refuses them has a twin that lets another one through.
 */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import { unmountCopies } from '../../../src/delegation/copies.ts'
import { delegate } from '../../../src/delegation/delegate.ts'
import { inhabitedUserNamespaces } from '../../../src/delegation/inhabited.ts'
import { type DelegatedInstance, findInstances, listInstances } from '../../../src/delegation/instances.ts'
import { inOurNetwork } from '../../../src/delegation/neighbours.ts'
import { openTarget, openTargetInTime, sharesOurNetwork } from '../../../src/delegation/target.ts'
import { admitTarget } from '../../../src/lending/admission.ts'
import { listLent } from '../../../src/lending/lent.ts'
import { openRecipient } from '../../../src/lending/recipient/recipient.ts'
import { undelegate } from '../../../src/lending/undelegate.ts'
import { openInTime, takeFdInTime } from '../../../src/sys/in-time.ts'
import { namespaceOfTask } from '../../../src/sys/namespace.ts'
import { openProcess } from '../../../src/sys/process.ts'
import { cli } from '../../helpers/cli.ts'
import { HANG_MS } from '../../helpers/eventually.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { canHang, HangingExec } from './hanging-exec.ts'
import { policyWith, vocabulary } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'
import { Workload } from './workload.ts'

const ALICE = 61011
const BOB = 61012
const CLONE_NEWNET = 0x4000_0000
const PATH = '/sys/fs/bpf'
const policy = policyWith({ cmds: 1n })
const accounts = { uidOf: () => undefined, gidOf: () => undefined }
/** Long enough for a busy machine; what hangs is waited for so long. */
const SOON_MS = 3000

let possible: boolean
/** In namespaces of its own that root made, with a network of its own; and one in the host's. */
let innocent: Workload
let networked: Workload
before(async () => {
  possible = await canHang(ALICE)
  innocent = await Workload.sandboxed()
  networked = await Workload.sandboxed({ network: 'host' })
})
after(async () => {
  for (const one of [innocent, networked]) one[Symbol.dispose]()
  await Promise.all([innocent.exited, networked.exited])
})
leavesNothing()

async function withHanging(
  t: TestContext,
  body: (hanging: HangingExec) => Promise<void>,
  prepare: (hanging: HangingExec) => Promise<void> = async () => {},
): Promise<void> {
  if (!possible) return t.skip('a user namespace cannot mount FUSE here')
  await using hanging = await HangingExec.prepare(ALICE)
  await prepare(hanging)
  await hanging.hang()
  await body(hanging)
}

const HANGS = { code: 'BPFTOKEN_TIMEOUT', message: /in the middle of an execve/ }
const TOO_MANY = { code: 'BPFTOKEN_CONFLICT', message: /Too many processes/ }

async function opens(pid: number): Promise<void> {
  ;(await openTargetInTime(openProcess(pid), SOON_MS))[Symbol.dispose]()
}

async function takes(pid: number): Promise<void> {
  using held = openProcess(pid)
  ;(await takeFdInTime(held, 0, SOON_MS)).close()
}

/**
 * On 6.12.95 pidfd_getfd(2) waits, and links of /proc do not; on 6.18.44 both wait; on 7.3.4
 * neither does.
 */
async function linksWait(pid: number): Promise<boolean> {
  using held = openProcess(pid)
  return openInTime(held, 'root', SOON_MS).then(
    root => {
      root.close()
      return false
    },
    () => true,
  )
}
const LINKS_DO_NOT_WAIT = 'no link of /proc waits for an execve(2) here'

test('a target that hangs is given up in time, then at once, and others are opened meanwhile', t =>
  withHanging(
    t,
    async ({ pid }) => {
      if (!(await linksWait(pid))) {
        await opens(pid)
        return t.skip(LINKS_DO_NOT_WAIT)
      }
      await assert.rejects(openTargetInTime(openProcess(pid), SOON_MS), HANGS)
      // It is known by now: this one has all the time of the world, and needs none.
      await assert.rejects(openTargetInTime(openProcess(pid), HANG_MS * 10), HANGS)
      await assert.rejects(openRecipient({ pid }), HANGS)
      await assert.rejects(undelegate({ recipient: pid, path: PATH, vocabulary, guard: undefined }), HANGS)
      await opens(innocent.pid)
      const { target } = await openRecipient({ pid: innocent.pid })
      target[Symbol.dispose]()
    },
    async ({ pid }) => opens(pid),
  ))

test('a process is not said to hang where it was we who were held up', async () => {
  using held = openProcess(innocent.pid)
  const looks = [openInTime(held, 'root', 50), openInTime(held, 'root', 50)]
  // Until the looks have begun, which takes no turn of the event loop.
  for (let i = 0; i < 50; i++) await Promise.resolve()
  for (const until = performance.now() + 500; performance.now() < until; );
  for (const root of await Promise.all(looks))
    root.close()
    // Nor is it remembered as one that hangs.
  ;(await openInTime(held, 'root', SOON_MS)).close()
})

test("many processes of one user that hang keep nobody waiting but that user's, nor a file", async t => {
  if (!possible) return t.skip('a user namespace cannot mount FUSE here')
  const all = await Promise.all(Array.from({ length: 5 }, () => HangingExec.prepare(ALICE)))
  try {
    await using alices = await HangingExec.prepare(ALICE)
    await using bobs = await HangingExec.prepare(BOB)
    await takes(alices.pid)
    for (const one of all) await one.hang()
    const looks = all.map(({ pid }) => takes(pid))
    const outcomes = await Promise.allSettled(looks)
    const codes = outcomes.map(one => one.status === 'rejected' && one.reason.code)
    if (codes.every(code => code === false) && !(await linksWait(all[0]!.pid)))
      return t.skip('neither links of /proc nor pidfd_getfd(2) wait for an execve(2) here')
    assert.deepEqual(codes.sort(), ['BPFTOKEN_CONFLICT', ...Array(4).fill('BPFTOKEN_TIMEOUT')])
    await assert.rejects(takes(alices.pid), TOO_MANY)
    await takes(bobs.pid)
    await takes(innocent.pid)
    using scratch = new Scratch()
    await writeFile(join(scratch.path, 'file'), 'written', { flush: true })
    for (const one of all) await one.release()
    await takes(alices.pid)
  } finally {
    for (const one of all) await one[Symbol.asyncDispose]()
  }
})

test('what hangs is judged by its network, and hides nobody else from that judgement', t =>
  withHanging(t, async hanging => {
    using other = openTarget(innocent.pid)
    assert.equal(await inOurNetwork(other), undefined)
    assert.equal(sharesOurNetwork(other), undefined)
    using shares = openTarget(networked.pid)
    assert.match((await inOurNetwork(shares)) ?? '', /in the host's network/)
    assert.equal(namespaceOfTask(hanging.pid, 'net'), namespaceOfTask(process.pid, 'net'))
  }))

for (const [what, own] of [
  ["in the host's network is found", false],
  ['in a network of its own is in no way', true],
] as const)
  test(`a thread of the target's user namespace that hangs ${what}`, async t => {
    if (!possible) return t.skip('a user namespace cannot mount FUSE here')
    await using hanging = await HangingExec.prepare(ALICE)
    if (own) await hanging.workload.must('unshare', CLONE_NEWNET)
    using target = openTarget(hanging.pid)
    await hanging.hang()
    if (own) assert.equal(await inOurNetwork(target), undefined)
    else
      assert.match(
        (await inOurNetwork(target)) ?? '',
        new RegExp(`${hanging.pid} of the same user namespace`),
      )
    assert.equal(sharesOurNetwork(target) === undefined, own)
  })

test('who is admitted does not depend on what hangs elsewhere', t =>
  withHanging(t, async () => {
    const needs = policyWith({ cmds: 1n, progs: 1n << 6n })
    const options = { vocabulary, accounts, guarded: false }
    using other = openTarget(innocent.pid)
    assert.equal((await admitTarget(needs, other, options)).verdict.allowed, true)
    using shares = openTarget(networked.pid)
    await assert.rejects(admitTarget(needs, shares, options), { code: 'BPFTOKEN_DENIED', message: /network/ })
  }))

test('what is lent to a process that hangs is listed, and what is lent to others', t =>
  withHanging(
    t,
    async hanging => {
      const at = (all: readonly DelegatedInstance[], pid: number): string[] =>
        all.filter(({ pids }) => pids.includes(pid)).map(({ path }) => path)
      for (const all of [listInstances(vocabulary), await findInstances(vocabulary)]) {
        assert.deepEqual(at(all, hanging.pid), [PATH])
        assert.deepEqual(at(all, innocent.pid), [])
      }
      const lent = await listLent(vocabulary, undefined)
      const own = lent.filter(({ mounts }) => at(mounts, hanging.pid).length > 0)
      assert.deepEqual(
        own.map(({ userNamespace }) => userNamespace),
        [namespaceOfTask(hanging.pid, 'user')],
      )
      assert.ok((await inhabitedUserNamespaces()).has(own[0]!.userNamespace!))
      const { status, stdout } = await cli(['ls', '--json'])
      assert.equal(status, 0)
      assert.match(stdout, new RegExp(`\\b${hanging.pid}\\b`))
    },
    async ({ pid }) => {
      using target = openTarget(pid)
      await delegate(policy, target, vocabulary)
    },
  ))

test('a delegation is unmounted though the first of the processes that have it hangs', async t => {
  if (!possible) return t.skip('a user namespace cannot mount FUSE here')
  await using hanging = await HangingExec.prepare(ALICE)
  {
    using target = openTarget(hanging.pid)
    await delegate(policy, target, vocabulary)
  }
  const twin = await Workload.startedBy('nsenter', '-t', String(hanging.pid), '-U', '-m')
  try {
    // It has entered, which needs what hangs afterwards.
    await twin.must('getpid')
    await hanging.hang()
    const of = (): DelegatedInstance[] =>
      listInstances(vocabulary).filter(({ pids }) => pids.includes(twin.pid))
    const [found] = of()
    assert.ok(found)
    assert.ok(found.pids.includes(hanging.pid))
    assert.deepEqual(await unmountCopies(found.device, vocabulary), { unmounted: 1, left: [] })
    assert.deepEqual(of(), [])
  } finally {
    twin[Symbol.dispose]()
    await twin.exited
  }
})

test("root's command refuses a target that hangs, and ends; it lists another", t =>
  withHanging(t, async ({ pid }) => {
    if (!(await linksWait(pid))) return t.skip(LINKS_DO_NOT_WAIT)
    const { status, stderr } = await cli(['undelegate', '--pid', String(pid)])
    assert.notEqual(status, 0)
    assert.match(stderr, /in the middle of an execve/)
    const other = await cli(['undelegate', '--pid', String(innocent.pid)])
    assert.match(other.stderr, /has no delegation/)
  }))
