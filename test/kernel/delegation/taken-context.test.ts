/**
 * The other direction, as in the original proposal: a real workload opens the context, the
 * delegator takes it by its number, sets the rights and creates the superblock, and the workload
 * mounts and uses it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { planTakenContext } from '../../../src/delegation/actions.ts'
import { delegateContext } from '../../../src/delegation/delegate.ts'
import { execute } from '../../../src/delegation/execute.ts'
import { Token } from '../../../src/ebpf/token.ts'
import { fsopen } from '../../../src/sys/mount.ts'
import { AT_FDCWD, O_DIRECTORY } from '../../../src/uapi/constants.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import { target, withWorkload, workload } from './fixture.ts'
import { EVERYTHING, Lab, outcome, policyWith, tokenWithin, vocabulary } from './lab.ts'
import { fsopenWithin } from './within.ts'

withWorkload()

const policy = policyWith({ cmds: 1n, maps: 1n << 2n })
const lend = (fd: number) => delegateContext(policy, target, fd, vocabulary)

/** The workload mounts its context at /sys/fs/bpf and opens the root: its number there. */
async function mountAndOpen(fs: number): Promise<number> {
  const mount = await workload.must('fsmount', fs, 0, 0)
  await workload.must('move_mount', mount, '', AT_FDCWD, '/sys/fs/bpf', 4)
  await workload.must('close', mount)
  return workload.must('openat', AT_FDCWD, '/sys/fs/bpf', O_DIRECTORY, 0)
}

test('delegateContext() lets a workload mount its own context and use the token it makes there', async () => {
  const fs = await workload.must('fsopen', 'bpf', 0)
  await lend(fs)
  const root = await mountAndOpen(fs)
  const token = await workload.token(root)
  assert.ok(token > 0, errnoName(token))
  const map = await workload.map('array', token)
  assert.ok(map > 0, errnoName(map))
  assert.equal(errnoName(await workload.map('hash', token)), 'EPERM', 'what was not lent')
  for (const fd of [map, token, root, fs]) await workload.must('close', fd)
  await workload.must('umount2', '/sys/fs/bpf', 2)
})

test('without the delegator the workload can neither set rights nor create the superblock', async () => {
  const fs = await workload.must('fsopen', 'bpf', 0)
  assert.equal(errnoName(await workload.call('fsconfig', fs, 1, 'delegate_cmds', 'any', 0)), 'EPERM')
  assert.equal(errnoName(await workload.call('fsconfig', fs, 6, 0, 0, 0)), 'EPERM')
  await workload.must('close', fs)
})

/**
 * bpffs superblocks of this machine are seen by their mounts only; one that was made for a context
 * makes fsmount() succeed.
 */
async function wasCreated(fs: number): Promise<boolean> {
  const mount = await workload.call('fsmount', fs, 0, 0)
  if (mount >= 0) await workload.must('close', mount)
  return mount >= 0
}

test('delegateContext() refuses a number that is not open', () =>
  assert.rejects(lend(999), { op: 'pidfd_getfd', errnoName: 'EBADF' }))

test('delegateContext() refuses what is no bpffs context, and creates nothing with it', async t => {
  const AF_UNIX = 1
  const others: [what: string, fd: number][] = [
    ['a file', await workload.must('openat', AT_FDCWD, '/etc/passwd', 0, 0)],
    ['a directory', await workload.must('openat', AT_FDCWD, '/', O_DIRECTORY, 0)],
    ['a socket', await workload.must('socket', AF_UNIX, 1, 0)],
    ['a pidfd', await workload.must('pidfd_open', workload.pid, 0)],
  ]
  const types: string[] = []
  for (const type of [
    'tmpfs',
    'proc',
    'sysfs',
    'ramfs',
    'ext4',
    'cgroup2',
    'overlay',
    'mqueue',
    'devpts',
    'fuse',
  ]) {
    const fs = await workload.call('fsopen', type, 0)
    if (fs < 0) continue // Not in this kernel.
    others.push([type, fs])
    types.push(type)
  }
  t.diagnostic(`contexts of ${types.join(', ')}`)
  assert.ok(types.length >= 4)
  for (const [what, fd] of others) {
    await assert.rejects(lend(fd), { code: 'BPFTOKEN_CONFLICT', message: /is not a new bpffs context/ }, what)
    assert.equal(await wasCreated(fd), false, what)
    await workload.must('close', fd)
  }
  // The twin, in the same breath.
  const fs = await workload.must('fsopen', 'bpf', 0)
  await lend(fs)
  assert.equal(await wasCreated(fs), true)
  await workload.must('close', fs)
})

test('delegateContext() refuses a context that was created, mounted, picked from a mount, or that failed', async () => {
  const refused = (fs: number, error: object) => assert.rejects(lend(fs), error)
  const conflict = { code: 'BPFTOKEN_CONFLICT', message: /is not a new bpffs context/ }

  const fs = await workload.must('fsopen', 'bpf', 0)
  await lend(fs)
  await refused(fs, conflict)
  const root = await mountAndOpen(fs)
  // From now on the descriptor takes options again, to discard them.
  await refused(fs, { op: 'FSCONFIG_CMD_CREATE', errnoName: 'EBUSY' })
  const picked = await workload.must('fspick', AT_FDCWD, '/sys/fs/bpf', 0)
  await refused(picked, { op: 'FSCONFIG_CMD_CREATE', errnoName: 'EBUSY' })
  using token = new Token(await workload.give(await workload.token(root)))
  assert.deepEqual({ ...token.info() }, { cmds: 1n, maps: 4n, progs: 0n, attachs: 0n })
  await workload.must('umount2', '/sys/fs/bpf', 2)

  const failed = await workload.must('fsopen', 'bpf', 0)
  assert.equal(errnoName(await workload.call('fsconfig', failed, 6, 0, 0, 0)), 'EPERM')
  await refused(failed, conflict)
  for (const fd of [fs, root, picked, failed]) await workload.must('close', fd)
})

/** A context that `opener` opened, passed to the workload by SCM_RIGHTS: its number there. */
async function foreignContext(opener: Lab): Promise<number> {
  using context = fsopenWithin(opener.target.process.pidfd, 'bpf')
  return workload.take(context)
}

test('delegateContext() refuses a context of the host, and of a user namespace with another root', async () => {
  const conflict = { code: 'BPFTOKEN_CONFLICT', message: /is not a context of its own user namespace/ }
  const other = await Lab.open({ uid: 65533 })
  using host = fsopen('bpf')
  for (const number of [await foreignContext(other), await workload.take(host)]) {
    await assert.rejects(lend(number), conflict)
    assert.equal(await wasCreated(number), false)
    await workload.must('close', number)
  }
  other[Symbol.dispose]()
  await other.sandbox.exited
})

test('delegateContext() cannot tell a namespace with the same root apart; then the workload makes no token', async () => {
  const twin = await Lab.open()
  const number = await foreignContext(twin)
  await lend(number)
  const mount = await workload.must('fsmount', number, 0, 0)
  const root = await workload.must('openat', mount, '.', O_DIRECTORY, 0)
  assert.equal(errnoName(await workload.token(root)), 'EPERM')
  // The rights went to the other one, whose root is the same user of the host. Only the guard
  // prevents that.
  using opened = await workload.give(root)
  assert.equal(outcome(tokenWithin(twin.target, opened.number)), 'ok')
  for (const fd of [root, mount, number]) await workload.must('close', fd)
  twin[Symbol.dispose]()
  await twin.sandbox.exited
})

test('delegateContext() leaves a context useless when it is given up or fails, so that rights do not add up', async () => {
  const planOf = (fs: number) =>
    planTakenContext({ masks: EVERYTHING, rootUid: 65534, rootGid: 65534 }, fs, target.facts.unmappedUid)
  const steps = planOf(0).map(action => action.do)
  // Before it was proven to be a context of bpffs it is not touched.
  const first = steps.indexOf('proveContext') + 1
  for (let stop = first; stop <= steps.length; stop++) {
    const fs = await workload.must('fsopen', 'bpf', 0)
    const abort = new AbortController()
    const plan = planOf(fs)
    const given = execute(
      [...plan.slice(0, stop), { do: 'pause' }, ...plan.slice(stop)],
      target,
      vocabulary,
      {
        signal: abort.signal,
        paused: () => abort.abort(new Error('given up')),
      },
    )
    await assert.rejects(given, /^Error: given up$/)
    // A second, narrower loan for the same context would have the bits of both.
    await assert.rejects(
      lend(fs),
      { code: /BPFTOKEN_(CONFLICT|SYSCALL)/ },
      `given up after ${steps[stop - 1]}`,
    )
    assert.equal(await wasCreated(fs), false, `given up after ${steps[stop - 1]}`)
    await workload.must('close', fs)
  }
})
