/**
 * What `ls` finds: every delegation, also one that no path leads to any more; by the kernel's table
 * and by mountinfo.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import { mountsOfType } from '../../../src/sys/mount-table.ts'
import { parseMountInfo } from '../../../src/sys/mountinfo.ts'
import { open } from '../../../src/sys/open.ts'
import { BPF_FS_MAGIC, O_CLOEXEC, O_RDONLY } from '../../../src/uapi/constants.ts'
import { kernelSince } from '../../helpers/machine.ts'
import { Shell } from '../../helpers/shell.ts'
import { policyWith, vocabulary } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'

let shell: Shell
leavesNothing()
beforeEach(async () => {
  shell = await Shell.start()
})
afterEach(() => shell.end())

const hasPython = spawnSync('python3', ['-c', '0']).status === 0
const canHoldThreads = hasPython
  ? kernelSince(6, 9)
    ? {}
    : { skip: 'threads can be held since Linux 6.9' }
  : { skip: 'there is no python3, whose threads are used' }

const canAskKernel = kernelSince(6, 11)
  ? {}
  : { skip: 'the mounts of other namespaces can be asked for since Linux 6.11' }

async function lend(path: string): Promise<void> {
  using target = openTarget(shell.pid)
  await delegate(policyWith({ cmds: 1n }), target, vocabulary, { path })
}

/** `PATH`, with `(covered)`, of each delegation that the shell's namespace holds. */
function listed(): string[] {
  return listInstances(vocabulary)
    .filter(({ pids }) => pids.includes(shell.pid))
    .map(({ path, covered }) => (covered ? `${path} (covered)` : path))
    .sort()
}

test('a delegation is listed, and nothing where there is none', async () => {
  assert.deepEqual(listed(), [])
  await lend('/sys/fs/bpf')
  await lend('/mnt')
  assert.deepEqual(listed(), ['/mnt', '/sys/fs/bpf'])
})

test('a delegation under another mount is listed as covered, until that is gone', async () => {
  await lend('/sys/fs/bpf')
  await shell.run('mount -t tmpfs t /sys/fs/bpf')
  assert.deepEqual(listed(), ['/sys/fs/bpf (covered)'])
  await lend('/mnt')
  await shell.run('mount --bind /mnt /sys/fs/bpf')
  assert.deepEqual(listed(), ['/mnt', '/sys/fs/bpf', '/sys/fs/bpf (covered)'])
  await shell.run('umount /sys/fs/bpf && umount /sys/fs/bpf')
  assert.deepEqual(listed(), ['/mnt', '/sys/fs/bpf'])
})

test('a delegation under a mount above its directory is listed as covered; a mount beside it covers nothing', async () => {
  await shell.run('mount -t tmpfs t /mnt && mkdir -p /mnt/a/b /mnt/a-b /mnt/c')
  await lend('/mnt/a/b')
  await shell.run('mount -t tmpfs t /mnt/a-b && mount -t tmpfs t /mnt/c')
  assert.deepEqual(listed(), ['/mnt/a/b'])
  await shell.run('mount -t tmpfs t /mnt/a')
  assert.deepEqual(listed(), ['/mnt/a/b (covered)'])
  await shell.run('umount /mnt/a')
  assert.deepEqual(listed(), ['/mnt/a/b'])
  await shell.run('mount -t tmpfs t /mnt')
  assert.deepEqual(listed(), ['/mnt/a/b (covered)'])
})

test('a delegation on the top of a pile is not covered', async () => {
  await shell.run('mount -t tmpfs t /mnt && mount -t tmpfs t /mnt && mount -t tmpfs t /mnt')
  await lend('/mnt')
  assert.deepEqual(listed(), ['/mnt'])
})

test('a delegation that all processes left by chroot(2) is listed as covered', canAskKernel, async () => {
  await shell.run('mount --rbind / /mnt')
  await lend('/sys/fs/bpf')
  assert.deepEqual(listed(), ['/sys/fs/bpf'])
  await shell.become('chroot /mnt')
  const [line, ...more] = listed()
  assert.match(line ?? '', /^(\/sys\/fs\/bpf|\?) \(covered\)$/)
  assert.deepEqual(more, [])
})

test("the kernel's table and mountinfo say the same of each bpffs", canAskKernel, async () => {
  await lend('/sys/fs/bpf')
  await lend('/mnt')
  await shell.run(
    'mount -t tmpfs t /run && mkdir /run/x && mount --bind /mnt /run/x && mount -t tmpfs t /mnt',
  )
  using namespace = open(`/proc/${shell.pid}/ns/mnt`, O_RDONLY | O_CLOEXEC)
  const found = mountsOfType(namespace, BigInt(BPF_FS_MAGIC))
  assert.ok(found !== undefined, 'the kernel does not tell')
  const told = found.map(mount => mount.describe()!)
  assert.deepEqual(
    found.map(({ mountId }) => mountId),
    told.map(({ mountId }) => mountId),
  )
  const text = readFileSync(`/proc/${shell.pid}/mountinfo`, 'utf8')
  const read = parseMountInfo(text, 'bpf').map(({ mountId, parentId, device, root, path, superOptions }) => ({
    mountId,
    parentId,
    device,
    root,
    path,
    // The first word is of the superblock, not of bpffs.
    superOptions: superOptions.filter(option => option !== 'rw'),
  }))
  assert.ok(read.length >= 3)
  const byId = (a: { mountId: number }, b: { mountId: number }): number => a.mountId - b.mountId
  // A namespace whose root is the first of all file systems has no paths in the kernel's table.
  const known = told.map(mount => ({
    ...mount,
    path: mount.path ?? read.find(one => one.mountId === mount.mountId)?.path,
  }))
  assert.deepEqual(known.sort(byId), read.sort(byId))
})

test("the kernel's table has no mount of a type that nobody mounted", canAskKernel, () => {
  using namespace = open('/proc/self/ns/mnt', O_RDONLY | O_CLOEXEC)
  assert.deepEqual(mountsOfType(namespace, 0x1234_5678n), [])
})

/** Starts what is below in a process in user, mount and network namespaces of its own. */
const PYTHON_THREADS = `
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result < 0: sys.exit(ctypes.get_errno())
def other():
    if sys.argv[1] == 'own': must(libc.unshare(0x20000 | 0x200))
    print(threading.get_native_id(), flush=True)
    sys.stdin.readline()
    os._exit(0)
threading.Thread(target=other).start()
if sys.argv[1] == 'alone': libc.pthread_exit(None)
while True: time.sleep(60)
`

async function listsAndTakesBack(how: 'alone' | 'own'): Promise<void> {
  const command = ['--user', '--map-root-user', '--mount', '--net', 'python3', '-c', PYTHON_THREADS, how]
  const child = spawn('unshare', command, { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    const [line] = await once(child.stdout, 'data')
    const tid = Number(line)
    assert.notEqual(tid, child.pid)
    const found = () => listInstances(vocabulary).filter(({ pids }) => pids.includes(tid))
    assert.deepEqual(found(), [])
    using target = openTarget(tid)
    await delegate(policyWith({ cmds: 1n }), target, vocabulary, { path: '/mnt' })
    assert.deepEqual(
      found().map(({ path }) => path),
      ['/mnt'],
    )
    await undelegate(target, vocabulary, { path: '/mnt' })
    assert.deepEqual(found(), [])
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
}

test(
  'a delegation of a process whose first thread has ended is listed, and taken back by the number of the thread',
  canHoldThreads,
  () => listsAndTakesBack('alone'),
)

test(
  'a delegation of a thread with a mount namespace of its own is listed, and taken back by its number',
  canHoldThreads,
  () => listsAndTakesBack('own'),
)
