/**
 * Masks are fixed when the superblock is made, and copied when the token is made: whatever is done
 * to the mount later, by the workload or by the host's root, widens neither. What outlives an
 * unmount is said too.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { parseTokenFdinfo, Token } from '../../../src/ebpf/token.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigString, fsmount } from '../../../src/sys/mount.ts'
import { parseMountInfo } from '../../../src/sys/mountinfo.ts'
import { native } from '../../../src/sys/native.ts'
import { readProc } from '../../../src/sys/process.ts'
import {
  FSCONFIG_CMD_RECONFIGURE,
  FSCONFIG_SET_FLAG,
  FSCONFIG_SET_STRING,
  FSPICK_CLOEXEC,
  FSPICK_EMPTY_PATH,
  MNT_DETACH,
  MS_REMOUNT,
} from '../../../src/uapi/constants.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import { BPF_MAP_CREATE, mapAttr } from './attributes.ts'
import { target, withWorkload, workload } from './fixture.ts'
import { callWithin, openIn, outcome, policyWith, tokenWithin, vocabulary } from './lab.ts'
import { fsopenWithin } from './within.ts'

const PATH = '/sys/fs/bpf'
const KEYS = ['delegate_cmds', 'delegate_maps', 'delegate_progs', 'delegate_attachs']
const LENT = { cmds: 1n, maps: 1n << 2n, progs: 0n, attachs: 0n }

withWorkload()

let root: Fd
let early: Token
beforeEach(async () => {
  await delegate(policyWith(LENT), target, vocabulary)
  root = await openIn(target, PATH)
  early = new Token(new Fd(tokenWithin(target, root.number)))
})
afterEach(() => {
  early.close()
  root.close()
  callWithin(target, 'umount2', PATH, MNT_DETACH)
})

/** What the kernel itself says of a token now; `Token.info()` remembers what it said first. */
function masksOf(fd: Fd): unknown {
  return parseTokenFdinfo(readFileSync(`/proc/self/fdinfo/${fd.number}`, 'utf8'))
}

/** Of the instance that delegates; there may be one of the host's below it. */
function superOptions(): string[] | undefined {
  return parseMountInfo(readProc(target.process, 'mountinfo'), 'bpf')
    .filter(mount => mount.path === PATH)
    .map(mount => mount.superOptions)
    .find(options => options.some(option => option.startsWith('delegate_')))
}

/** The old token and a new one have the lent masks and nothing else, by info and by use. */
function nothingWider(what: string): void {
  using late = new Token(new Fd(tokenWithin(target, root.number)))
  for (const token of [early, late]) {
    assert.deepEqual(masksOf(token.fd), LENT, what)
    const make = (type: string) =>
      outcome(callWithin(target, 'bpf', BPF_MAP_CREATE, mapAttr(type, token.fd.number)))
    assert.equal(make('array'), 'ok', what)
    assert.equal(make('hash'), 'EPERM', what)
  }
}

test('a token is what it was when nothing is done', () => nothingWider('untouched'))

test("fspick() and reconfiguring by the host's root are taken, and change no mask", () => {
  const shown = superOptions()
  // Our own view of the target's mount: its directory, through the descriptor that we hold.
  using fs = new Fd(native().fspick(root.number, '', FSPICK_CLOEXEC | FSPICK_EMPTY_PATH))
  for (const key of KEYS) fsconfigString(fs, key, 'any')
  assert.equal(native().fsconfig(fs.number, FSCONFIG_CMD_RECONFIGURE, null, null, 0), 0)
  nothingWider('after reconfiguring')
  assert.deepEqual(superOptions(), shown)
})

test('fspick() by the workload may change read-only, may not name a mask, and changes none', () => {
  using fs = new Fd(callWithin(target, 'fspick', -100, PATH, FSPICK_CLOEXEC))
  const set = (cmd: number, key: string | null, value: string | null) =>
    outcome(callWithin(target, 'fsconfig', fs.number, cmd, key, value, 0))
  for (const key of KEYS) {
    assert.equal(set(FSCONFIG_SET_STRING, key, 'any'), 'EPERM', key)
    assert.equal(set(FSCONFIG_SET_STRING, key, '0'), 'ok', key)
  }
  // The twin: reconfiguring as such works, and what can be changed is. A token is a file without a
  // name, which keeps its file system from becoming read-only (EBUSY), so this one goes first.
  early.close()
  assert.equal(set(FSCONFIG_SET_FLAG, 'ro', null), 'ok')
  assert.equal(set(FSCONFIG_CMD_RECONFIGURE, null, null), 'ok')
  assert.ok(superOptions()!.includes('ro'))
  early = new Token(new Fd(tokenWithin(target, root.number)))
  nothingWider('after the workload reconfigured')
})

test('mount(MS_REMOUNT) with wider masks is refused to the workload, and one without them changes none', async () => {
  const remount = async (data: string) =>
    errnoName(await workload.call('mount', 'bpf', PATH, 'bpf', MS_REMOUNT, data))
  for (const key of KEYS) assert.equal(await remount(`${key}=any`), 'EPERM', key)
  assert.equal(await workload.call('mount', 'bpf', PATH, 'bpf', MS_REMOUNT, 'mode=0777'), 0)
  nothingWider('after remounting')
})

test("mount(8) remounting by the host's root changes no mask", () => {
  const shown = superOptions()
  // util-linux, in the target's mount namespace but with all rights of the host.
  const options = ['remount', ...KEYS.map(key => `${key}=any`)].join(',')
  execFileSync('nsenter', ['--mount', '--target', String(workload.pid), 'mount', '-i', '-o', options, PATH])
  nothingWider('after the host remounted')
  assert.deepEqual(superOptions(), shown)
})

test('the descriptor that made the superblock sets nothing afterwards', () => {
  using fs = fsopenWithin(target.process.pidfd, 'bpf')
  fsconfigString(fs, 'delegate_cmds', '0x1')
  fsconfigCreate(fs)
  for (const key of KEYS) assert.throws(() => fsconfigString(fs, key, 'any'), { errnoName: 'EBUSY' }, key)
  assert.throws(() => fsconfigCreate(fs), { errnoName: 'EBUSY' })
  using mount = fsmount(fs, 0)
  // From here on the same descriptor reconfigures, which bpffs takes and discards.
  for (const key of KEYS) fsconfigString(fs, key, 'any')
  assert.equal(native().fsconfig(fs.number, FSCONFIG_CMD_RECONFIGURE, null, null, 0), 0)
  assert.equal(outcome(callWithin(target, 'move_mount', mount.number, '', -100, '/mnt', 4)), 'ok')
  const line = parseMountInfo(readProc(target.process, 'mountinfo'), 'bpf').find(m => m.path === '/mnt')
  assert.deepEqual(
    line?.superOptions.filter(option => option.startsWith('delegate_')),
    ['delegate_cmds=map_create'],
  )
  assert.equal(outcome(callWithin(target, 'umount2', '/mnt', MNT_DETACH)), 'ok')
})

test('a second, wider delegation over the first one widens no token of the first', async () => {
  // Not by delegate(), which refuses it: by hand, as another delegator might.
  using fs = fsopenWithin(target.process.pidfd, 'bpf')
  for (const key of KEYS) fsconfigString(fs, key, 'any')
  fsconfigCreate(fs)
  using mount = fsmount(fs, 0)
  assert.equal(outcome(callWithin(target, 'move_mount', mount.number, '', -100, PATH, 4)), 'ok')
  nothingWider('under a wider one')
  {
    using wide = await openIn(target, PATH)
    using token = new Token(new Fd(tokenWithin(target, wide.number)))
    assert.notDeepEqual(masksOf(token.fd), LENT)
  }
  assert.equal(outcome(callWithin(target, 'umount2', PATH, MNT_DETACH)), 'ok')
  nothingWider('after the wider one is gone')
})

test('an open token keeps the instance busy; a lazy unmount goes through and widens nothing', () => {
  assert.equal(outcome(callWithin(target, 'umount2', PATH, 0)), 'EBUSY')
  assert.equal(outcome(callWithin(target, 'umount2', PATH, MNT_DETACH)), 'ok')
  assert.equal(superOptions(), undefined)
  // Documented: a root directory that is held open goes on making tokens, with the same masks.
  nothingWider('after a lazy unmount')
})

test('undelegate() ends the making of tokens by path, and of none by a descriptor that is open', async () => {
  await undelegate(target, vocabulary)
  {
    using directory = await openIn(target, PATH)
    // A directory of sysfs, or a bpffs of the host.
    assert.match(outcome(tokenWithin(target, directory.number)), /EINVAL|EPERM/)
  }
  nothingWider('after undelegate()')
})

test('a token outlives every other descriptor of its instance', async () => {
  await undelegate(target, vocabulary)
  root.close()
  assert.deepEqual(masksOf(early.fd), LENT)
  const make = (type: string) =>
    outcome(callWithin(target, 'bpf', BPF_MAP_CREATE, mapAttr(type, early.fd.number)))
  assert.equal(make('array'), 'ok')
  assert.equal(make('hash'), 'EPERM')
})
