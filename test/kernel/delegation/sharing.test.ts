/**
 * How far a token and an instance can be passed on: by descriptor to anybody, in use only inside
 * their user namespace.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import { Token } from '../../../src/ebpf/token.ts'
import { objPin } from '../../../src/sys/bpf.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { native } from '../../../src/sys/native.ts'
import { open } from '../../../src/sys/open.ts'
import { takeFd } from '../../../src/sys/process.ts'
import { bpf_attr_obj } from '../../../src/uapi/bpf.ts'
import {
  CLONE_NEWNS,
  CLONE_NEWUSER,
  MNT_DETACH,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  OPEN_TREE_CLOEXEC,
  OPEN_TREE_CLONE,
} from '../../../src/uapi/constants.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import { BPF_MAP_CREATE, BPF_OBJ_PIN, BPF_TOKEN_CREATE, mapAttr, tokenAttr } from './attributes.ts'
import { workload as holder, target, withWorkload } from './fixture.ts'
import { callWithin, capMask, openIn, outcome, policyWith, tokenWithin, vocabulary } from './lab.ts'
import { bpfWithin } from './within.ts'
import { Workload } from './workload.ts'

const PATH = '/sys/fs/bpf'
const LENT = { cmds: 1n, maps: 1n << 2n, progs: 0n, attachs: 0n }

/** The holder of the delegation. */
withWorkload()

let root: number
let token: number
beforeEach(async () => {
  await delegate(policyWith(LENT), target, vocabulary)
  root = await holder.must('openat', -100, PATH, O_DIRECTORY, 0)
  token = await holder.token(root)
})
afterEach(async () => {
  for (const fd of [root, token]) await holder.must('close', fd)
  await undelegate(target, vocabulary)
})

/**
 * What another process of the holder's user namespace gets with the token, given these capabilities
 * there.
 */
function neighbour(passed: Fd, caps: Parameters<typeof capMask>[0], type = 'array'): string {
  const attr = mapAttr(type, passed.number)
  return outcome(bpfWithin(target.process.pidfd, BPF_MAP_CREATE, attr, { caps: capMask(caps) }))
}

const made = async (who: Workload, type: string, number: number): Promise<string> => {
  const result = await who.map(type, number)
  if (result < 0) return errnoName(result)
  await who.must('close', result)
  return 'ok'
}

/** A workload for one test. */
async function guest<T>(start: Promise<Workload>, body: (guest: Workload) => Promise<T>): Promise<T> {
  const workload = await start
  try {
    return await body(workload)
  } finally {
    workload[Symbol.dispose]()
    await workload.exited
  }
}

test('BPF_OBJ_PIN of a token is refused with EINVAL; a map that it made can be pinned beside it', async () => {
  const map = await holder.must('bpf', BPF_MAP_CREATE, mapAttr('array', token), 96)
  const pin = async (fd: number, name: string) => {
    const attr = bpf_attr_obj.encode({ bpf_fd: fd })
    const pathname = { off: bpf_attr_obj.fields.pathname.off, text: `${PATH}/${name}` }
    return outcome(await holder.call('bpf', BPF_OBJ_PIN, attr, pathname, attr.length))
  }
  assert.equal(await pin(token, 'token'), 'EINVAL')
  assert.equal(await pin(map, 'map'), 'ok')
  // Nor from outside; and there not even the map, since the host's root is nobody inside
  // (EOVERFLOW).
  using passed = await holder.give(token)
  using made = await holder.give(map)
  const outside = `/proc/${holder.pid}/root${PATH}`
  assert.throws(() => objPin(passed, `${outside}/token`), { errnoName: 'EINVAL' })
  assert.throws(() => objPin(made, `${outside}/other`), { errnoName: 'EOVERFLOW' })
  await holder.must('unlinkat', root, 'map', 0)
  await holder.must('close', map)
})

test('a duplicated token is the same token', async () => {
  const copy = await holder.must('dup', token)
  assert.equal(await made(holder, 'array', copy), 'ok')
  assert.equal(await made(holder, 'hash', copy), 'EPERM')
  await holder.must('close', copy)
})

test('a token passed by SCM_RIGHTS serves a process with the capabilities in its user namespace', async () => {
  using passed = await holder.give(token)
  assert.equal(neighbour(passed, ['bpf']), 'ok')
  assert.equal(neighbour(passed, ['sys_admin']), 'ok')
  assert.equal(neighbour(passed, ['bpf', 'sys_admin'], 'hash'), 'EPERM', 'what was not lent')
  assert.equal(neighbour(passed, ['net_admin', 'perfmon']), 'EPERM', 'other capabilities')
  assert.equal(neighbour(passed, []), 'EPERM', 'no capabilities')
})

test('a token taken by pidfd_getfd() serves as one that was passed', async () => {
  using taken = takeFd(target.process, token)
  assert.equal(neighbour(taken, ['bpf']), 'ok')
  assert.equal(neighbour(taken, ['bpf'], 'hash'), 'EPERM')
  assert.equal(neighbour(taken, []), 'EPERM')
})

test("pidfd_getfd() of the holder's token is refused to ordinary users, its own user id included", async () => {
  takeFd(target.process, token).close()
  for (const uid of [65534, 65533])
    await guest(Workload.onHost(uid), async stranger => {
      const pidfd = await stranger.must('pidfd_open', holder.pid, 0)
      assert.equal(errnoName(await stranger.call('pidfd_getfd', pidfd, token, 0)), 'EPERM', `uid ${uid}`)
    })
})

test('a token passed to another user of the host, to a sibling or to a nested namespace serves none of them', async () => {
  using passed = await holder.give(token)
  await guest(Workload.onHost(65533), async stranger =>
    assert.equal(await made(stranger, 'array', await stranger.take(passed)), 'EPERM', 'another user'),
  )
  await guest(Workload.onHost(65534), async stranger =>
    assert.equal(
      await made(stranger, 'array', await stranger.take(passed)),
      'EPERM',
      'the same user, outside',
    ),
  )
  await guest(Workload.sandboxed(), async sibling =>
    assert.equal(await made(sibling, 'array', await sibling.take(passed)), 'EPERM', 'a sibling namespace'),
  )
  assert.equal(await made(holder, 'array', token), 'ok', 'the holder')
})

test('a process that enters a nested user namespace loses the token it holds, and can make none', () =>
  guest(Workload.sandboxed(), async own => {
    using place = openTarget(own.pid)
    await delegate(policyWith(LENT), place, vocabulary)
    const directory = await own.must('openat', -100, PATH, O_DIRECTORY, 0)
    const held = await own.token(directory)
    assert.equal(await made(own, 'array', held), 'ok')
    // All capabilities, but in a namespace below the token's. A workload has one thread, so it may.
    await own.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
    assert.equal(await made(own, 'array', held), 'EPERM')
    assert.equal(errnoName(await own.token(directory)), 'EPERM')
  }))

test("the host's root uses a token of a container, and makes none from its bpffs", async () => {
  using passed = await holder.give(token)
  // Its own capabilities would do without a token: that it is no error is all that can be seen.
  assert.equal(outcome(native().bpf(BPF_MAP_CREATE, mapAttr('array', passed.number))), 'ok')
  using directory = await openIn(target, PATH)
  assert.equal(outcome(native().bpf(BPF_TOKEN_CREATE, tokenAttr(directory.number))), 'EPERM')
  assert.equal(outcome(tokenWithin(target, directory.number)), 'ok')
})

test('a bind mount of the instance makes tokens with the same masks, wherever it is', async () => {
  using clone = new Fd(callWithin(target, 'open_tree', -100, PATH, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC))
  const from = (directory: Fd): unknown => {
    using shared = new Token(new Fd(tokenWithin(target, directory.number)))
    return { ...shared.info() }
  }
  {
    using detached = open('.', O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, clone)
    assert.deepEqual(from(detached), LENT, 'while it is mounted nowhere')
  }
  assert.equal(outcome(callWithin(target, 'move_mount', clone.number, '', -100, '/mnt', 4)), 'ok')
  {
    using bound = await openIn(target, '/mnt')
    assert.deepEqual(from(bound), LENT, 'at another path')
    // Taking the first mount away takes nothing from the second.
    assert.equal(outcome(callWithin(target, 'umount2', PATH, MNT_DETACH)), 'ok')
    assert.deepEqual(from(bound), LENT, 'as the only mount')
  }
  assert.equal(outcome(callWithin(target, 'umount2', '/mnt', MNT_DETACH)), 'ok')
  await delegate(policyWith(LENT), target, vocabulary) // for afterEach
})

test('a bind mount of a subdirectory makes no token', async () => {
  await holder.must('mkdirat', root, 'below', 0o755)
  const below = await holder.must('openat', root, 'below', O_DIRECTORY, 0)
  assert.equal(errnoName(await holder.token(below)), 'EINVAL')
  const clone = await holder.must('open_tree', root, 'below', OPEN_TREE_CLONE)
  const bound = await holder.must('openat', clone, '.', O_DIRECTORY, 0)
  assert.equal(errnoName(await holder.token(bound)), 'EINVAL')
  const again = await holder.token(root)
  assert.ok(again > 0, 'the root itself')
  for (const fd of [again, bound, clone, below]) await holder.must('close', fd)
  await holder.must('unlinkat', root, 'below', 0x200)
})

test('a workload without capabilities makes no token and uses none, though it is root inside', () =>
  guest(Workload.sandboxed({ capabilities: [] }), async bare => {
    using place = openTarget(bare.pid)
    await delegate(policyWith(LENT), place, vocabulary)
    const directory = await bare.must('openat', -100, PATH, O_DIRECTORY, 0)
    assert.equal(errnoName(await bare.token(directory)), 'EPERM')
    using opened = await openIn(place, PATH)
    using passed = new Fd(tokenWithin(place, opened.number))
    assert.equal(await made(bare, 'array', await bare.take(passed)), 'EPERM')
    assert.equal(
      outcome(bpfWithin(place.process.pidfd, BPF_MAP_CREATE, mapAttr('array', passed.number))),
      'ok',
    )
  }))
