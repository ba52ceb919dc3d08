/** Who may set rights, make a bpffs, and change one: nobody inside, and nobody afterwards. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { Token } from '../../../src/ebpf/token.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigString, fsmount } from '../../../src/sys/mount.ts'
import { FSCONFIG_CMD_CREATE, FSCONFIG_SET_STRING } from '../../../src/uapi/constants.ts'
import { lab, withLab } from './fixture.ts'
import { callWithin, EVERYTHING, openIn, outcome, policyWith, tokenWithin, vocabulary } from './lab.ts'
import { fsopenWithin } from './within.ts'

withLab()

const context = () => fsopenWithin(lab.target.process.pidfd, 'bpf')
const inside = (fs: Fd, cmd: number, key: string | null, value: string | null) =>
  outcome(callWithin(lab.target, 'fsconfig', fs.number, cmd, key, value, 0))

test('a bpffs in a user namespace is created by a delegator and by nobody inside', () => {
  using refused = context()
  assert.equal(inside(refused, FSCONFIG_CMD_CREATE, null, null), 'EPERM')
  using made = context()
  fsconfigCreate(made)
  assert.throws(() => fsconfigCreate(made), { errnoName: 'EBUSY' }, 'twice')
})

test('delegate_* are set by a delegator; inside only the empty mask is', () => {
  using fs = context()
  for (const key of ['delegate_cmds', 'delegate_maps', 'delegate_progs', 'delegate_attachs']) {
    assert.equal(inside(fs, FSCONFIG_SET_STRING, key, 'any'), 'EPERM', key)
    assert.equal(inside(fs, FSCONFIG_SET_STRING, key, '0'), 'ok', key)
    fsconfigString(fs, key, 'any')
  }
})

/**
 * What each value makes of delegate_maps: the kernel's grammar, and that ours reads it back alike.
 */
const VALUES: readonly (readonly [values: string[], shown: string])[] = [
  [['array'], 'array'],
  [['array:ringbuf'], 'array:ringbuf'],
  [['ARRAY'], 'array'],
  [['0x4'], 'array'],
  [['any'], 'any'],
  [['array', 'hash'], 'hash:array'],
  [['array:0x2'], 'hash'],
  [['0x2:array'], 'hash:array'],
  [['array', '0'], 'array'],
]
const REFUSED = ['no_such_map', 'BPF_MAP_TYPE_ARRAY', 'ANY', 'array:', '-1', 'array,hash', '']

test('delegate_maps is understood as the facts say, and mountinfo reads back as the same mask', async () => {
  for (const [values, shown] of VALUES) {
    using fs = context()
    for (const value of values) fsconfigString(fs, 'delegate_maps', value)
    fsconfigCreate(fs)
    using mount = fsmount(fs, 0)
    assert.equal(
      outcome(callWithin(lab.target, 'move_mount', mount.number, '', -100, '/sys/fs/bpf', 4)),
      'ok',
    )
    const line = readFileSync(`/proc/${lab.sandbox.pid}/mounts`, 'utf8')
      .split('\n')
      .find(l => l.includes('delegate_'))
    assert.match(line ?? '', new RegExp(`delegate_maps=${shown}[ ,]`), values.join(' then '))
    await undelegate(lab.target, vocabulary)
  }
  using fs = context()
  for (const value of REFUSED)
    assert.throws(() => fsconfigString(fs, 'delegate_maps', value), { errnoName: 'EINVAL' }, value)
  assert.throws(() => fsconfigString(fs, 'delegate_maps', '0x10000000000000000'), { errnoName: 'ERANGE' })
})

test('a token has the masks that our policy asked for, one by one and all together', async () => {
  for (const masks of [
    { cmds: 1n },
    { maps: 0x6n },
    { progs: 1n << 6n },
    { attachs: 1n << 37n },
    EVERYTHING,
  ]) {
    await lab.lending(masks, ({ token }) => {
      using held = new Token(new Fd(token.release()))
      assert.deepEqual(held.info(), { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n, ...masks })
    })
  }
})

test('masks are a snapshot: neither a later setting nor an unmount changes a token or a mount', async () => {
  using fs = context()
  fsconfigString(fs, 'delegate_cmds', '0x1')
  fsconfigCreate(fs)
  assert.throws(() => fsconfigString(fs, 'delegate_cmds', 'any'), { errnoName: 'EBUSY' })
  using mount = fsmount(fs, 0)
  assert.equal(outcome(callWithin(lab.target, 'move_mount', mount.number, '', -100, '/sys/fs/bpf', 4)), 'ok')
  using root = await openIn(lab.target, '/sys/fs/bpf')
  using before = new Token(new Fd(tokenWithin(lab.target, root.number)))
  // The same context now reconfigures; what it sets is accepted and discarded.
  try {
    fsconfigString(fs, 'delegate_cmds', 'any')
    callWithin(lab.target, 'fsconfig', fs.number, 7, null, null, 0)
  } catch {
    // Refused is as good as discarded.
  }
  using after = new Token(new Fd(tokenWithin(lab.target, root.number)))
  assert.equal(after.info().cmds, 1n)
  await undelegate(lab.target, vocabulary)
  assert.equal(before.info().cmds, 1n)
  // Documented in SECURITY.md: a root directory that is held open goes on making tokens.
  assert.equal(outcome(tokenWithin(lab.target, root.number)), 'ok')
})

test('delegate() refuses a second loan on the same path, and lends again after undelegate()', async () => {
  const policy = policyWith({ cmds: 1n })
  await delegate(policy, lab.target, vocabulary)
  await assert.rejects(delegate(policy, lab.target, vocabulary), { code: 'BPFTOKEN_CONFLICT' })
  await undelegate(lab.target, vocabulary)
  await assert.rejects(undelegate(lab.target, vocabulary), { code: 'BPFTOKEN_NOT_FOUND' })
  await delegate(policy, lab.target, vocabulary)
  await undelegate(lab.target, vocabulary)
})
