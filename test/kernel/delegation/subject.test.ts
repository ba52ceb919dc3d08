/**
 * What the kernel says of who is to get a delegation, and that it is asked again before anything
 * can be reached.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { delegate, delegateContext, undelegate } from '../../../src/delegation/delegate.ts'
import { type Accounts, subjectOf } from '../../../src/delegation/subject.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import { DeniedError, NotFoundError } from '../../../src/errors.ts'
import type { Policy } from '../../../src/policy/policy.ts'
import type { Subject } from '../../../src/policy/subject.ts'
import { openProcess, readProc } from '../../../src/sys/process.ts'
import { lab, withLab } from './fixture.ts'
import { EVERYTHING, policyWith, vocabulary } from './lab.ts'
import { program, Workload } from './workload.ts'

withLab()

const NOBODY_KNOWN: Accounts = { uidOf: () => undefined, gidOf: () => undefined }

function policyFor(...subjects: Subject[]): Policy {
  return { ...policyWith({}), subjects }
}

/**
 * A process with these ids, as setpriv(1) sets them. Not of busybox, which gives up what differs.
 */
async function startWith(...options: string[]): Promise<ChildProcess> {
  const child = spawn('setpriv', [...options, program()], { stdio: ['pipe', 'ignore', 'ignore'] })
  await once(child, 'spawn')
  while (!readFileSync(`/proc/${child.pid}/cmdline`, 'utf8').startsWith(program())) {
    assert.equal(child.exitCode, null, 'setpriv has failed')
    await sleep(10)
  }
  return child
}

async function factsWith(policy: Policy, accounts: Accounts, ...options: string[]) {
  const child = await startWith(...options)
  try {
    using held = openProcess(child.pid!)
    return subjectOf(held, policy, accounts)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
}

test('subjectOf() gives the one uid that a process has, and none where its uids differ', async () => {
  const policy = policyFor({ user: 'alice' }, { group: 'staff' })
  const accounts: Accounts = {
    uidOf: name => (name === 'alice' ? 4711 : undefined),
    gidOf: name => (name === 'staff' ? 4714 : undefined),
  }
  const one = await factsWith(policy, accounts, '--reuid', '4711', '--regid', '4712', '--groups', '4713,4714')
  assert.deepEqual(one.user, { is: { id: 4711, names: ['alice'] } })
  assert.deepEqual(one.groups, {
    is: [
      { id: 4712, names: [] },
      { id: 4713, names: [] },
      { id: 4714, names: ['staff'] },
    ],
  })
  const two = await factsWith(policy, accounts, '--ruid', '4711', '--euid', '4712', '--clear-groups')
  assert.match((two.user as { unknown: string }).unknown, /differ: 4711 4712/)
  const groups = await factsWith(policy, accounts, '--rgid', '4712', '--egid', '4711', '--clear-groups')
  assert.match((groups.groups as { unknown: string }).unknown, /differ: 4712 4711/)
})

test('subjectOf() tells of a process that has exited, and not of what took its number', async () => {
  const child = spawn('true')
  using held = openProcess(child.pid!)
  await once(child, 'exit')
  assert.throws(() => subjectOf(held, policyFor({ user: 0 }), NOBODY_KNOWN), NotFoundError)
})

test('delegate() lets nobody reach a delegation that is not confirmed', async () => {
  const isThere = (): boolean => readProc(lab.target.process, 'mountinfo').includes('delegate_cmds')
  let asked = 0
  const refuse = (): void => {
    asked++
    assert.ok(!isThere(), 'asked before the mount is there')
    throw new DeniedError('no more who it was')
  }
  // Not NotUndoneError: there was nothing to be undone.
  await assert.rejects(
    delegate(policyWith(EVERYTHING), lab.target, vocabulary, { confirm: refuse }),
    DeniedError,
  )
  assert.ok(!isThere())
  const confirm = (): void => {
    asked++
    assert.ok(!isThere(), 'asked before the mount is there')
  }
  await delegate(policyWith(EVERYTHING), lab.target, vocabulary, { confirm })
  assert.ok(isThere())
  assert.equal(asked, 2)
  await undelegate(lab.target, vocabulary)
})

test('delegateContext() gives nothing to a context whose owner is not confirmed', async () => {
  const workload = await Workload.sandboxed()
  using target = openTarget(workload.pid)
  const refuse = (): void => {
    throw new DeniedError('no more who it was')
  }
  try {
    for (const confirm of [refuse, () => {}]) {
      const fs = await workload.must('fsopen', 'bpf', 0)
      const given = delegateContext(policyWith(EVERYTHING), target, fs, vocabulary, { confirm })
      if (confirm === refuse) await assert.rejects(given, DeniedError)
      else await given
      const mount = await workload.call('fsmount', fs, 0, 0)
      assert.equal(mount >= 0, confirm !== refuse)
      if (mount >= 0) await workload.must('close', mount)
      await workload.must('close', fs)
    }
  } finally {
    workload[Symbol.dispose]()
    await workload.exited
  }
})
