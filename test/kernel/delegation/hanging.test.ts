/**
 * Targets whose own file systems do not answer, and who move things meanwhile: they harm nobody but
 * themselves.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { type Action, planDelegation } from '../../../src/delegation/actions.ts'
import { delegate, delegateContext, undelegate } from '../../../src/delegation/delegate.ts'
import { execute } from '../../../src/delegation/execute.ts'
import { openTarget, type Target } from '../../../src/delegation/target.ts'
import { Executor } from '../../../src/sys/executor/executor.ts'
import { borrowExecutor, returnExecutor } from '../../../src/sys/executor/pool.ts'
import { readProc } from '../../../src/sys/process.ts'
import {
  AT_FDCWD,
  CLONE_NEWNS,
  CLONE_NEWUSER,
  FSCONFIG_CMD_CREATE,
  FSCONFIG_SET_STRING,
  MNT_DETACH,
  O_RDWR,
} from '../../../src/uapi/constants.ts'
import { cli } from '../../helpers/cli.ts'
import { HANG_MS } from '../../helpers/eventually.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { FUSE, FuseServer } from './fuse.ts'
import { delegatedPaths, policyWith, vocabulary } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'
import { ALL_CAPS, Workload } from './workload.ts'

const PATH = '/sys/fs/bpf'
const policy = policyWith({ cmds: 1n })
const plan = planDelegation({ masks: policy.rights.masks, rootUid: 65534, rootGid: 65534 }, PATH)

const USER = 65533
/** In namespaces that this user made, whose root may serve FUSE. */
let user: Workload
let users: Target
/** The hostile one, and another one that wants nothing but its delegation. */
let workload: Workload
let target: Target
let innocent: Workload
let other: Target
let scratch: Scratch
let device: string
before(async () => {
  user = await Workload.onHost(USER)
  await user.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${user.pid}/${map}`, `0 ${USER} 1`)
  users = openTarget(user.pid)
  workload = await Workload.sandboxed()
  target = openTarget(workload.pid)
  innocent = await Workload.sandboxed()
  other = openTarget(innocent.pid)
  scratch = new Scratch()
  chmodSync(scratch.path, 0o755)
  device = join(scratch.path, 'fuse')
  execFileSync('mknod', ['-m', '666', device, 'c', '10', '229'])
})
after(async () => {
  for (const one of [users, user, target, workload, other, innocent, scratch]) one[Symbol.dispose]()
  await Promise.all([user, workload, innocent].map(one => one.exited))
})
leavesNothing()

const mounted = (where: Target = target): string[] => delegatedPaths(where)

/** That another target gets what it asks for, now. */
async function othersGoOn(): Promise<void> {
  await delegate(policy, other, vocabulary)
  assert.deepEqual(mounted(other), [PATH])
  await undelegate(other, vocabulary)
  assert.deepEqual(mounted(other), [])
}

async function inTime<T>(promise: Promise<T>): Promise<T> {
  const late = new AbortController()
  try {
    return await Promise.race([
      promise,
      sleep(HANG_MS, undefined, { signal: late.signal }).then(() => assert.fail('it never came to an end')),
    ])
  } finally {
    late.abort()
  }
}

/**
 * With a tmpfs at /mnt of the ordinary user, that has these directories, and a FUSE of its own at
 * /mnt/b.
 */
async function withFuse(t: TestContext, body: (fuse: FuseServer) => Promise<void>): Promise<void> {
  await user.must('mount', 'none', '/mnt', 'tmpfs', 0, 'mode=755')
  for (const name of ['a', 'b', 'c', 'u', 'u/d']) await user.must('mkdirat', AT_FDCWD, `/mnt/${name}`, 0o755)
  let fuse: FuseServer | undefined
  try {
    fuse = await FuseServer.mount(user, device, '/mnt/b').catch(() => undefined)
    if (fuse === undefined) t.skip('a user namespace cannot mount FUSE here')
    else await inTime(body(fuse))
  } finally {
    fuse?.[Symbol.dispose]()
    await user.must('umount2', '/mnt', MNT_DETACH)
  }
}

/** Executors of ours that sleep where not even SIGKILL wakes them. */
function stuckExecutors(): string[] {
  return readdirSync('/proc').filter(pid => {
    try {
      const text = readFileSync(`/proc/${pid}/status`, 'utf8')
      return (
        text.includes('Name:\tbpftoken-execut') &&
        text.includes(`\nPPid:\t${process.pid}\n`) &&
        readFileSync(`/proc/${pid}/wchan`, 'utf8') === 'request_wait_answer'
      )
    } catch {
      return false // It is gone.
    }
  })
}

test("a directory on a FUSE of the target's own is as good as any", t =>
  withFuse(t, async () => {
    assert.equal((await delegate(policy, users, vocabulary, { path: '/mnt/b/d' })).path, '/mnt/b/d')
    assert.deepEqual(mounted(users), ['/mnt/b/d'])
    await undelegate(users, vocabulary, { path: '/mnt/b/d' })
    assert.deepEqual(mounted(users), [])
  }))

test('an overlay whose lower file system stops answering hangs no executor, however many are asked', t =>
  withFuse(t, async fuse => {
    const options = 'lowerdir=/mnt/b:/mnt/u,xino=on'
    const path = '/mnt/c/d'
    await user.must('mount', 'none', '/mnt/c', 'overlay', 0, options)
    await delegate(policy, users, vocabulary, { path })
    await undelegate(users, vocabulary, { path })
    void fuse.hang(FUSE.GETATTR)
    const many = Array.from({ length: 40 }, () =>
      delegate(policy, users, vocabulary, { path, timeoutMs: 300 }).then(
        () => 'made',
        error => (error as { code: string }).code,
      ),
    )
    await sleep(100)
    await othersGoOn()
    const ends = new Set(await Promise.all(many))
    assert.deepEqual(stuckExecutors(), [])
    const expected = ['made', 'BPFTOKEN_CONFLICT', 'BPFTOKEN_NOT_UNDONE', 'BPFTOKEN_TIMEOUT']
    for (const end of ends) assert.ok(expected.includes(end), end)
    await othersGoOn()
    fuse.release()
    if (mounted(users).length > 0) await undelegate(users, vocabulary, { path })
    assert.deepEqual(mounted(users), [])
  }))

test('a descriptor that hangs when it is closed is no context, and costs nobody else anything', t =>
  withFuse(t, async fuse => {
    const file = await user.must('openat', AT_FDCWD, '/mnt/b/f', O_RDWR, 0)
    const closed = fuse.hang(FUSE.FLUSH)
    await assert.rejects(delegateContext(policy, users, file, vocabulary), {
      code: 'BPFTOKEN_CONFLICT',
      message: /is not a new bpffs context/,
    })
    await closed
    for (let turn = 0; turn < 3; turn++) await othersGoOn()
    assert.deepEqual(stuckExecutors(), [])
    fuse.release()
    await user.must('close', file)
    // The twin.
    const fs = await user.must('fsopen', 'bpf', 0)
    await delegateContext(policy, users, fs, vocabulary)
    await user.must('close', fs)
  }))

test('a context of another file system, whose lock is held, is given up in time', t =>
  withFuse(t, async fuse => {
    const fs = await user.must('fsopen', 'overlay', 0)
    const hung = fuse.hang(FUSE.LOOKUP)
    const configured = user.call('fsconfig', fs, FSCONFIG_SET_STRING, 'lowerdir+', '/mnt/b/d', 0)
    await hung
    await assert.rejects(delegateContext(policy, users, fs, vocabulary, { timeoutMs: 300 }), {
      code: 'BPFTOKEN_TIMEOUT',
    })
    await othersGoOn()
    fuse.release()
    await configured
    await user.must('close', fs)
  }))

test('an executor that not even SIGKILL ends is left behind and told of, and another undoes what it had begun', async () => {
  using executor = Executor.start()
  const { pid } = executor
  // As if it slept in the kernel.
  executor.kill = () => {}
  const paused = (): void => {
    process.kill(pid, 'SIGSTOP')
  }
  try {
    const attached = plan.findIndex(action => action.do === 'attachMount') + 1
    const pausing: Action[] = [...plan.slice(0, attached), { do: 'pause' }, ...plan.slice(attached)]
    // It is waited for four times as long, and some seconds more.
    const given = execute(pausing, target, vocabulary, { executor, timeoutMs: 1500, paused })
    await assert.rejects(inTime(given), {
      code: 'BPFTOKEN_NOT_UNDONE',
      message: new RegExp(`hangs, and was left behind \\(process ${pid}\\)`),
    })
    assert.deepEqual(mounted(), [])
    assert.equal(executor.alive, false)
  } finally {
    process.kill(pid, 'SIGKILL')
  }
  assert.equal(await executor.ended(), true)
  await othersGoOn()
})

test('an executor is lent again only when it has let go of its last plan', async () => {
  const first = await borrowExecutor()
  const accept = (): void => {
    process.kill(first.pid, 'SIGSTOP')
  }
  await execute(plan, target, vocabulary, { executor: first, accept })
  returnExecutor(first)
  const second = await borrowExecutor()
  assert.notEqual(second.pid, first.pid)
  await execute(plan, other, vocabulary, { executor: second })
  returnExecutor(second)
  await undelegate(other, vocabulary)
  // The twin: the one that goes on is lent again.
  const third = await borrowExecutor()
  assert.notEqual(third.pid, first.pid)
  returnExecutor(third)
  process.kill(first.pid, 'SIGCONT')
  await inTime(new Promise<void>(resolve => first.whenFree(resolve)))
  await undelegate(target, vocabulary)
  assert.deepEqual([...mounted(), ...mounted(other)], [])
})

test('of two delegations at once to one directory at most one stands, and whoever was told so has it', async t => {
  let both = 0
  for (let turn = 0; turn < 40; turn++) {
    const ends = await Promise.allSettled([1, 2].map(() => delegate(policy, target, vocabulary)))
    const made = ends.filter(({ status }) => status === 'fulfilled').length
    assert.ok(made <= 1, 'two were made')
    assert.equal(mounted().length, made)
    if (made === 0) both++
    else await undelegate(target, vocabulary)
  }
  t.diagnostic(`in ${both} of 40 turns both gave way`)
  await delegate(policy, target, vocabulary)
  await undelegate(target, vocabulary)
})

test('a mount that the target covers before it is reached is taken away itself, and not its cover alone', async () => {
  const attached = plan.findIndex(action => action.do === 'attachMount') + 1
  const pausing: Action[] = [...plan.slice(0, attached), { do: 'pause' }, ...plan.slice(attached)]
  for (const covers of [1, 3]) {
    const paused = async (): Promise<void> => {
      for (let i = 0; i < covers; i++) await workload.must('mount', 'none', PATH, 'tmpfs', 0, 'mode=755')
    }
    await assert.rejects(execute(pausing, target, vocabulary, { paused }), {
      code: 'BPFTOKEN_NOT_UNDONE',
      message: /It was unmounted again/,
    })
    assert.deepEqual(mounted(), [])
  }
  await execute(pausing, target, vocabulary, { paused: () => {} })
  await undelegate(target, vocabulary)
})

test('covers are put back though the executor is killed while they are lifted', async () => {
  const COVERS = 8
  const isExecutor = (pid: string): boolean => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      return status.includes('Name:\tbpftoken-execut') && status.includes(`\nPPid:\t${process.pid}\n`)
    } catch {
      return false // No process, or one that has gone.
    }
  }
  const isInside = (pid: string): boolean => {
    try {
      return (
        readFileSync(`/proc/${pid}/comm`, 'utf8') === 'bpftoken-inside\n' &&
        readlinkSync(`/proc/${pid}/ns/user`) === target.facts.userNamespace
      )
    } catch {
      return false // No process, or one that has gone.
    }
  }
  const covers = (): number =>
    readProc(target.process, 'mountinfo')
      .split('\n')
      .filter(line => line.includes(` ${PATH} `) && line.includes(' - tmpfs ')).length
  for (let turn = 0; turn < 25; turn++) {
    await delegate(policy, target, vocabulary)
    for (let i = 0; i < COVERS; i++) await workload.must('mount', 'none', PATH, 'tmpfs', 0, 'mode=755')
    const ended = undelegate(target, vocabulary).then(
      () => true,
      () => false,
    )
    await sleep(Math.random() * 4)
    for (const pid of readdirSync('/proc').filter(isExecutor)) process.kill(Number(pid), 'SIGKILL')
    await ended
    for (let wait = 0; covers() < COVERS || readdirSync('/proc').some(isInside); wait++) {
      assert.ok(wait < 500, `${covers()} of ${COVERS} covers are there`)
      await sleep(10)
    }
    for (let i = 0; i < COVERS; i++) await workload.must('umount2', PATH, MNT_DETACH)
    if (mounted().length > 0) await undelegate(target, vocabulary)
  }
  assert.deepEqual(mounted(), [])
})

test('a cover with more options than anybody reads hides no delegation', async () => {
  const OVERLAYS = 200
  await delegate(policy, target, vocabulary)
  await workload.must('mount', 'none', '/mnt', 'tmpfs', 0, 'mode=755')
  const fs = await workload.must('fsopen', 'overlay', 0)
  for (let i = 0; i < OVERLAYS; i++) {
    const path = `/mnt/${'0'.repeat(200)}${i}`
    await workload.must('mkdirat', AT_FDCWD, path, 0o755)
    await workload.must('fsconfig', fs, 1, 'lowerdir+', path, 0)
  }
  await workload.must('fsconfig', fs, FSCONFIG_CMD_CREATE, 0, 0, 0)
  const mount = await workload.must('fsmount', fs, 0, 0)
  await workload.must('move_mount', mount, '', AT_FDCWD, PATH, 4)
  for (const fd of [mount, fs]) await workload.must('close', fd)
  await workload.must('mount', 'none', PATH, 'tmpfs', 0, 'mode=755')
  await assert.rejects(delegate(policy, target, vocabulary), {
    code: 'BPFTOKEN_CONFLICT',
    message: /has a delegation at \/sys\/fs\/bpf already/,
  })
  for (let i = 0; i < 2; i++) await workload.must('umount2', PATH, MNT_DETACH)
  await undelegate(target, vocabulary)
  assert.deepEqual(mounted(), [])
  // The twin: such a cover over nothing is no obstacle.
  await workload.must('mount', 'none', PATH, 'tmpfs', 0, 'mode=755')
  await delegate(policy, target, vocabulary)
  await undelegate(target, vocabulary)
  await workload.must('umount2', PATH, MNT_DETACH)
  await workload.must('umount2', '/mnt', MNT_DETACH)
})

test('somebody who renames without end fails no path with `..` in it', async () => {
  const [one, two] = ['one', 'two'].map(name => join(scratch.path, name))
  mkdirSync(one!)
  const script = `const { renameSync } = require('node:fs')
    for (;;) { renameSync(${JSON.stringify(one)}, ${JSON.stringify(two)}); renameSync(${JSON.stringify(two)}, ${JSON.stringify(one)}) }`
  const worker = new Worker(script, { eval: true })
  await new Promise(resolve => worker.once('online', resolve))
  try {
    const path = `/sys${'/fs/..'.repeat(40)}/fs/bpf`
    for (let turn = 0; turn < 20; turn++) {
      await delegate(policy, target, vocabulary, { path })
      await undelegate(target, vocabulary, { path })
    }
  } finally {
    await worker.terminate()
  }
  assert.deepEqual(mounted(), [])
})

test('the root directory of a chrooted target is no place for a delegation either', async () => {
  const caged = await Workload.sandboxed({ capabilities: [...ALL_CAPS, 'sys_chroot'] })
  await caged.must('mount', 'none', '/mnt', 'tmpfs', 0, 'mode=755')
  for (const path of ['/mnt/root', '/mnt/root/x']) await caged.must('mkdirat', AT_FDCWD, path, 0o755)
  await caged.must('chroot', '/mnt/root')
  const cage = openTarget(caged.pid)
  try {
    for (const path of ['/', '/x/..'])
      await assert.rejects(delegate(policy, cage, vocabulary, { path }), {
        code: 'BPFTOKEN_CONFLICT',
        message: /cannot reach what is mounted over/,
      })
    await delegate(policy, cage, vocabulary, { path: '/x' })
    await undelegate(cage, vocabulary, { path: '/x' })
  } finally {
    cage[Symbol.dispose]()
    caged[Symbol.dispose]()
    await caged.exited
  }
})

test('a child that its owner lets have no descriptor fails the delegation, of which nothing stands', async () => {
  const attach = plan.findIndex(action => action.do === 'attachMount')
  const limit = (executor: Executor): void => {
    const child = readdirSync('/proc').find(pid => isChildInside(pid, executor.pid))!
    execFileSync('prlimit', ['--pid', child, '--nofile=3:3'])
  }
  const pausing: Action[] = [...plan.slice(0, attach), { do: 'pause' }, ...plan.slice(attach)]
  await assert.rejects(execute(pausing, target, vocabulary, { paused: limit }), { code: 'BPFTOKEN_CONFLICT' })
  assert.deepEqual(mounted(), [])
  // The twin: with its descriptors it comes to its end.
  await execute(pausing, target, vocabulary, { paused: () => {} })
  await undelegate(target, vocabulary)
})

/** One that is in other namespaces than we are. */
function isChildInside(pid: string, parent: number): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const map = readFileSync(`/proc/${pid}/uid_map`, 'utf8')
    return status.includes(`\nPPid:\t${parent}\n`) && map !== readFileSync('/proc/self/uid_map', 'utf8')
  } catch {
    return false // No process, or one that has gone.
  }
}

test('explain ends where the loader of a process lies on a file system that does not answer', async t =>
  withFuse(t, async fuse => {
    await user.must('mount', 'none', '/mnt/c', 'overlay', 0, 'lowerdir=/mnt/b:/mnt/u,xino=on')
    const library = await user.must('openat', AT_FDCWD, '/mnt/c/libbpf.so', 0, 0)
    const length = 4096
    const mapped = await user.must('mmap', 0, length, 1 /* PROT_READ */, 2 /* MAP_PRIVATE */, library, 0)
    void fuse.hang(FUSE.OPEN)
    const words = ['explain', '--pid', String(user.pid), '--', 'map_create', 'hash']
    const { status, stdout } = await cli(words)
    assert.deepEqual([status, fuse.kept], [3, 0], stdout)
    assert.match(stdout, /^map_create hash: refused \(EPERM\): no-delegation/)
    fuse.release()
    await user.must('munmap', mapped, length)
    await user.must('close', library)
    await user.must('umount2', '/mnt/c', MNT_DETACH)
  }))
