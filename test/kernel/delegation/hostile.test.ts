/** Targets that exit, move, stop or lie, and loans that are given up half-way. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { planDelegation } from '../../../src/delegation/actions.ts'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { execute } from '../../../src/delegation/execute.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import { HANG_MS } from '../../helpers/eventually.ts'
import { inVm } from '../../helpers/machine.ts'
import { lab, withLab } from './fixture.ts'
import { Lab, policyWith, vocabulary } from './lab.ts'
import { ourInstances } from './leaves-nothing.ts'
import { ALL_CAPS, Workload } from './workload.ts'

withLab()

const policy = policyWith({ cmds: 1n })

test('openTarget() refuses what is no process, and a process in our own user namespace', () => {
  assert.throws(() => openTarget(4194303), { code: 'BPFTOKEN_NOT_FOUND' })
  assert.throws(() => openTarget(process.pid), { code: 'BPFTOKEN_CONFLICT' })
  openTarget(lab.sandbox.pid)[Symbol.dispose]()
})

test('openTarget() refuses a process whose mount namespace is not its own', async () => {
  const child = spawn('unshare', ['--mount', 'unshare', '--user', '--map-root-user', 'sleep', '60'], {
    stdio: 'ignore',
  })
  try {
    const deadline = Date.now() + HANG_MS
    for (;;) {
      try {
        openTarget(child.pid!)[Symbol.dispose]()
        assert.fail('accepted')
      } catch (error) {
        if (/belongs to/.test((error as Error).message)) break
        // Not there yet: still in our own namespaces.
        if (Date.now() > deadline) throw error
        await new Promise(resolve => setTimeout(resolve, 10))
      }
    }
  } finally {
    child.kill('SIGKILL')
    await new Promise(resolve => child.once('exit', resolve))
  }
})

test('delegate() fails clearly and leaves nothing when the target has exited', async () => {
  const gone = await Lab.open()
  gone.sandbox.signal('SIGKILL')
  await gone.sandbox.exited
  await assert.rejects(delegate(policy, gone.target, vocabulary), (error: Error) =>
    /exited|ESRCH|ENOENT/.test(error.message),
  )
  gone[Symbol.dispose]()
  assert.deepEqual(ourInstances(), [])
})

test('delegate() does not wait for a target that is stopped', async () => {
  lab.sandbox.signal('SIGSTOP')
  await delegate(policy, lab.target, vocabulary)
  await undelegate(lab.target, vocabulary)
  lab.sandbox.signal('SIGCONT')
})

/** A plan that waits before the action with this index until it is given up. */
function pausingAt<T>(plan: readonly T[], at: number): (T | { do: 'pause' })[] {
  return [...plan.slice(0, at), { do: 'pause' }, ...plan.slice(at)]
}

test('execute() given up before any of its actions leaves nothing; not given up it lends', async () => {
  const wish = { masks: policy.rights.masks, rootUid: 65534, rootGid: 65534 }
  const plan = planDelegation(wish, '/sys/fs/bpf')
  const attached = plan.findIndex(action => action.do === 'attachMount')
  for (let stop = 0; stop <= plan.length; stop++) {
    const abort = new AbortController()
    const paused = (): void => abort.abort(new Error('given up'))
    const given = execute(pausingAt(plan, stop), lab.target, vocabulary, { signal: abort.signal, paused })
    // Once it could be reached, that it is unmounted is not enough said.
    await assert.rejects(given, stop > attached ? { code: 'BPFTOKEN_NOT_UNDONE' } : /^Error: given up$/)
    assert.deepEqual(ourInstances(), [], `stopped at ${plan[stop]?.do}`)
  }
  await execute(plan, lab.target, vocabulary)
  await undelegate(lab.target, vocabulary)
})

test('delegate() refuses paths that are missing, files, or symbolic links', async () => {
  const at = (path: string) => delegate(policy, lab.target, vocabulary, { path })
  await assert.rejects(at('/no/such/place'), { errnoName: 'ENOENT' })
  await assert.rejects(at('/etc/passwd'), { errnoName: 'ENOTDIR' })
  await assert.rejects(at('/proc/self/cwd'), /ELOOP|ENOTDIR|ENOENT/)
  await assert.rejects(at('/bin'), (error: Error) => /ENOTDIR|ELOOP/.test(error.message))
  await at('/sys/fs/../fs/bpf')
  await undelegate(lab.target, vocabulary)
})

test("delegate() follows symbolic links of a path within the target's root, and never out of it", async () => {
  const workload = await Workload.sandboxed({ capabilities: [...ALL_CAPS, 'sys_chroot'] })
  try {
    await workload.must('mount', 'tmpfs', '/mnt', 'tmpfs', 0, '')
    for (const directory of ['/mnt/inside', '/mnt/inside/place'])
      await workload.must('mkdirat', -100, directory, 0o755)
    await workload.must('symlinkat', '../../../sys', -100, '/mnt/inside/up')
    await workload.must('symlinkat', '/sys', -100, '/mnt/inside/absolute')
    await workload.must('symlinkat', '/inside', -100, '/mnt/link')
    await workload.must('chroot', '/mnt')
    using target = openTarget(workload.pid)
    // There is a /sys/fs/bpf outside, and none inside.
    for (const link of ['up', 'absolute'])
      await assert.rejects(delegate(policy, target, vocabulary, { path: `/inside/${link}/fs/bpf` }), {
        errnoName: 'ENOENT',
      })
    const path = '/link/place'
    await delegate(policy, target, vocabulary, { path })
    await undelegate(target, vocabulary, { path: '/inside/place' })
  } finally {
    workload[Symbol.dispose]()
    await workload.exited
  }
})

test('many delegations in a row leave no descriptor, mount or process', async t => {
  const started = performance.now()
  const rounds = inVm ? 40 : 1000
  for (let i = 0; i < rounds; i++) {
    await delegate(policy, lab.target, vocabulary)
    await undelegate(lab.target, vocabulary)
  }
  const eachMs = (performance.now() - started) / rounds
  t.diagnostic(`${rounds} times, ${eachMs.toFixed(2)} ms for each, unmounting included`)
  assert.deepEqual(ourInstances(), [])
})
