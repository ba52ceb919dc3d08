/** What is unmounted of a loan, where the workload has moved things about. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { unmount } from '../../../src/daemon/unmount.ts'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { type DelegatedMount, listInstances } from '../../../src/delegation/instances.ts'
import { hexMasks } from '../../../src/policy/mask-text.ts'
import { policyToJSON } from '../../../src/policy/policy.ts'
import type { LoanRecord } from '../../../src/registry/loan-record.ts'
import { policyWith, vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { workloadOfEach } from '../delegation/workload-of-each.ts'

const PATH = '/mnt/a'
const policy = policyWith({ cmds: 1n })

leavesNothing()
const workload = workloadOfEach()

const lend = () => delegate(policy, workload.target, vocabulary, { path: PATH })

/** Loans that have not ended, as the book has them. */
const open: LoanRecord[] = []
const ofDevice = (device: string) => open.filter(({ made }) => made?.device === device)
const parts = { vocabulary, guard: undefined, book: { ofDevice } }

function loanOf({ mountId, device, path, masks, options }: DelegatedMount, id = 1): LoanRecord {
  return {
    id,
    policy: policyToJSON(policy),
    place: { path: PATH },
    recipient: workload.target.facts,
    made: { at: `2026-01-02T03:04:0${id}Z`, mountId, device, path, masks: hexMasks(masks), options },
  } as unknown as LoanRecord
}

const isMounted = ({ device }: DelegatedMount): boolean =>
  listInstances(vocabulary).some(one => one.device === device)

test('another loan that has the path and the number of the mount is left, and a copy of its own is not', async () => {
  await workload.shell.run(`mount -t tmpfs t /mnt && mkdir ${PATH} /mnt/copy`)
  const first = await lend()
  await workload.shell.run(`mount --bind ${PATH} /mnt/copy && umount ${PATH}`)
  // The kernel gives the least number that is free: others may take it first.
  let second = await lend()
  for (let tries = 0; tries < 100 && second.mountId !== first.mountId; tries++) {
    await undelegate(workload.target, vocabulary, { mount: second.mountId })
    second = await lend()
  }
  assert.equal(second.mountId, first.mountId)
  assert.deepEqual(await unmount(parts, loanOf(first)), { gone: true, left: [] })
  assert.deepEqual([isMounted(first), isMounted(second)], [false, true])
  assert.deepEqual(await unmount(parts, loanOf(second)), { gone: true, left: [] })
  assert.equal(isMounted(second), false)
})

test('a copy that was taken along into a user namespace inside is found, though the first is unmounted', async () => {
  await workload.shell.run(`mount -t tmpfs t /mnt && mkdir ${PATH}`)
  const first = await lend()
  const inside = 'unshare --user --map-root-user --mount sh -c "touch /mnt/started; exec sleep 600"'
  const started = 'until [ -e /mnt/started ]; do sleep 0.05; done; echo $!'
  const pid = await workload.shell.run(`bash -c 'exec ${inside}' > /dev/null & ${started}`)
  await workload.shell.run(`umount ${PATH}`)
  assert.equal(isMounted(first), true)
  const { gone, left } = await unmount(parts, loanOf(first))
  assert.equal(gone, !isMounted(first))
  assert.equal(left.length > 0, isMounted(first))
  await workload.shell.run(`kill ${pid}; while [ -e /proc/${pid}/root/mnt ]; do sleep 0.05; done`)
  assert.deepEqual(await unmount(parts, loanOf(first)), { gone: true, left: [] })
  assert.equal(isMounted(first), false)
})

test('a loan whose superblock is gone has nothing of one that was made later with its numbers', async () => {
  await workload.shell.run(`mount -t tmpfs t /mnt && mkdir ${PATH}`)
  const there = await lend()
  const [gone, later] = [loanOf(there, 1), loanOf(there, 2)]
  open.push(gone, later)
  assert.deepEqual(await unmount(parts, gone), { gone: true, left: [] })
  assert.equal(isMounted(there), true)
  assert.deepEqual(await unmount(parts, later), { gone: true, left: [] })
  assert.equal(isMounted(there), false)
  open.length = 0
})
