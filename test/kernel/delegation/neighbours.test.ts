/**
 * Who of the target's user namespace is in our own network. Each look that finds somebody has a twin
 * that finds nobody.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { delegate } from '../../../src/delegation/delegate.ts'
import { inOurNetwork } from '../../../src/delegation/neighbours.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import { taskNamespaces } from '../../../src/sys/tasks.ts'
import { policyWith, vocabulary } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'
import { Workload } from './workload.ts'

const FOUND = /of the same user namespace, or of one above it, is in the host's network/

let workload: Workload
before(async () => {
  workload = await Workload.sandboxed()
})
after(async () => {
  workload[Symbol.dispose]()
  await workload.exited
})
leavesNothing()

/** Comes into the user namespace of the workload alone, and stays in our network. */
async function enter(): Promise<Workload> {
  const one = await Workload.startedBy('nsenter', '-t', String(workload.pid), '-U')
  // It has entered.
  await one.must('getpid')
  return one
}

async function gone(one: Workload): Promise<void> {
  one[Symbol.dispose]()
  await one.exited
}

test('inOurNetwork() sees who has come since the last look, and not who has gone since', async () => {
  using target = openTarget(workload.pid)
  assert.equal(await inOurNetwork(target), undefined)
  const one = await enter()
  try {
    assert.match((await inOurNetwork(target)) ?? '', FOUND)
    const many = await Promise.all(Array.from({ length: 8 }, () => inOurNetwork(target)))
    for (const answer of many) assert.match(answer ?? '', FOUND)
  } finally {
    await gone(one)
  }
  assert.equal(await inOurNetwork(target), undefined)
  assert.equal(await inOurNetwork(target, { first: true }), undefined)
})

test('inOurNetwork() refuses by nothing that was seen before alone', async () => {
  using target = openTarget(workload.pid)
  const one = await enter()
  try {
    assert.match((await inOurNetwork(target)) ?? '', FOUND)
    assert.match((await inOurNetwork(target, { first: true })) ?? '', FOUND)
  } finally {
    await gone(one)
  }
  assert.equal(await inOurNetwork(target, { first: true }), undefined)
})

test('inOurNetwork() sees who is in a user namespace above, from which it can be entered', async () => {
  // One of root's in our network; and in it another one, in a network of its own.
  const above = await Workload.startedBy('unshare', '--user', '--map-root-user')
  try {
    await above.must('getpid')
    const inside = await Workload.startedBy(
      ...(['nsenter', '-t', String(above.pid), '-U'] as const),
      ...['unshare', '--user', '--map-root-user', '--mount', '--net'],
    )
    try {
      await inside.must('getpid')
      using target = openTarget(inside.pid)
      assert.match((await inOurNetwork(target)) ?? '', FOUND)
      await gone(above)
      assert.equal(await inOurNetwork(target), undefined)
    } finally {
      await gone(inside)
    }
  } finally {
    await gone(above)
  }
})

test('inOurNetwork() does not take the child of an executor for one of them', async () => {
  using target = openTarget(workload.pid)
  let seen: unknown = 'not asked'
  await delegate(policyWith({ cmds: 1n }), target, vocabulary, {
    confirm: async () => {
      const tasks = await taskNamespaces('net')
      const inside = tasks.filter(one => one.userNamespace === target.facts.userNamespace)
      assert.ok(inside.length > 1, 'there is a child in it')
      seen = await inOurNetwork(target)
    },
    reached: () => {
      throw new Error('not kept')
    },
  }).catch(error => assert.match(String(error.errors?.[0] ?? error), /not kept/))
  assert.equal(seen, undefined)
})
