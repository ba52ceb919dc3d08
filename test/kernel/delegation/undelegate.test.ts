/**
 * Taking back: however the path is written, whatever its bytes, and wherever else it is mounted.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import { NotFoundError } from '../../../src/errors.ts'
import { policyWith, vocabulary } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'
import { workloadOfEach } from './workload-of-each.ts'

leavesNothing()
const workload = workloadOfEach()

const lend = (path: string) => delegate(policyWith({ cmds: 1n }), workload.target, vocabulary, { path })

const mountedOf = (device: string) => listInstances(vocabulary).filter(one => one.device === device)

test('undelegate() takes a path however it is written', async () => {
  await workload.shell.run('mount -t tmpfs t /mnt && mkdir /mnt/a && ln -s a /mnt/link && mkdir /mnt/a/b')
  for (const path of ['/mnt/a/b', '/mnt/a/b/', '/mnt/a/../a/b', '/mnt//a/b', '/mnt/link/b', '/mnt/./a/b/.'])
    for (const other of ['/mnt/a/b', path]) {
      const { device } = await lend(path)
      assert.equal(mountedOf(device).length, 1)
      const gone = await undelegate(workload.target, vocabulary, { path: other })
      assert.deepEqual(gone.copies, { unmounted: 0, left: [] })
      assert.deepEqual(mountedOf(device), [], path)
    }
  await assert.rejects(undelegate(workload.target, vocabulary, { path: '/mnt/link/b' }), NotFoundError)
})

test('undelegate() unmounts what was bound elsewhere, copied and propagated, and no other delegation', async () => {
  const namespaces: string[] = []
  const copyNamespace = async (propagation: string): Promise<void> => {
    // Of bash: a shell of busybox takes its own unshare, which cannot leave propagation as it is.
    const inside = "sh -c 'touch /mnt/started; exec sleep 600'"
    const start = `bash -c "exec unshare --mount --propagation ${propagation} ${inside}" > /dev/null &`
    const started = 'until [ -e /mnt/started ]; do sleep 0.05; done; rm /mnt/started; echo $!'
    namespaces.push(await workload.shell.run(`${start} ${started}`))
  }
  await workload.shell.run('mount -t tmpfs t /mnt && mkdir /mnt/shared /mnt/bound /mnt/deep /mnt/other')
  await workload.shell.run('mount --make-rshared /')
  await copyNamespace('unchanged')
  const { device } = await lend('/mnt/shared')
  const other = await lend('/mnt/other')
  await workload.shell.run('mount --bind /mnt/shared /mnt/bound && mount --bind /mnt/shared /mnt/deep')
  await workload.shell.run('mount -t tmpfs t /mnt/deep')
  await copyNamespace('private')
  assert.ok(mountedOf(device).length >= 9, `${mountedOf(device).length} mounts`)
  const gone = await undelegate(workload.target, vocabulary, { path: '/mnt/shared' })
  assert.deepEqual(gone.copies.left, [])
  assert.ok(gone.copies.unmounted >= 4, `${gone.copies.unmounted} unmounted`)
  assert.deepEqual(mountedOf(device), [])
  assert.ok(mountedOf(other.device).length >= 3)
  await undelegate(workload.target, vocabulary, { path: '/mnt/other' })
  assert.deepEqual(mountedOf(other.device), [])
  await workload.shell.run(`kill ${namespaces.join(' ')}`)
})

test('undelegate() finds by its id what was moved to a path that is no UTF-8', async () => {
  await workload.shell.run('mount -t tmpfs t /mnt && mount --make-private /mnt && mkdir /mnt/from')
  const { device } = await lend('/mnt/from')
  await workload.shell.run("d=/mnt/$(printf '\\377') && mkdir $d && mount --move /mnt/from $d")
  const [moved] = mountedOf(device)
  await assert.rejects(
    undelegate(workload.target, vocabulary, { mount: moved!.mountId + 100_000 }),
    NotFoundError,
  )
  await undelegate(workload.target, vocabulary, { mount: moved!.mountId })
  assert.deepEqual(mountedOf(device), [])
})
