/**
 * BPF_TOKEN_CREATE: each way in which it is refused, with its errno, and the one in which it works.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import type { SyscallError } from '../../../src/errors.ts'
import { tokenCreate } from '../../../src/sys/bpf.ts'
import type { Fd } from '../../../src/sys/fd.ts'
import { fsconfigCreate, fsmount, fsopen } from '../../../src/sys/mount.ts'
import { open } from '../../../src/sys/open.ts'
import { O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY } from '../../../src/uapi/constants.ts'
import { BPF_TOKEN_CREATE, mapAttr, tokenAttr } from './attributes.ts'
import { capMask, EVERYTHING, Lab, openIn, outcome, policyWith, tokenWithin, vocabulary } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'
import { bpfWithin } from './within.ts'

let lab: Lab
let other: Lab
before(async () => {
  lab = await Lab.open()
  other = await Lab.open()
})
after(async () => {
  for (const one of [lab, other]) {
    one[Symbol.dispose]()
    await one.sandbox.exited
  }
})
leavesNothing()

const pidfd = (): Fd => lab.target.process.pidfd
const raw = (attr: Uint8Array): string => outcome(bpfWithin(pidfd(), BPF_TOKEN_CREATE, attr))

test('BPF_TOKEN_CREATE works on the root of a delegated bpffs and is refused on everything else', () =>
  lab.lending(EVERYTHING, async ({ root }) => {
    assert.equal(raw(tokenAttr(root.number)), 'ok')

    using path = await openIn(lab.target, '/sys/fs/bpf', O_PATH | O_DIRECTORY | O_CLOEXEC)
    assert.equal(raw(tokenAttr(path.number)), 'EBADF', 'O_PATH')
    assert.equal(raw(tokenAttr(4095)), 'EBADF', 'not open')
    assert.equal(raw(tokenAttr(root.number, 1)), 'EINVAL', 'flags')
    using proc = await openIn(lab.target, '/proc')
    assert.equal(raw(tokenAttr(proc.number)), 'EINVAL', 'not a bpffs')

    const tail = new Uint8Array(32)
    tail.set(tokenAttr(root.number))
    assert.equal(raw(tail), 'ok', 'a tail of zeroes')
    tail[31] = 1
    assert.equal(raw(tail), 'EINVAL', 'a tail that says something')
    const huge = new Uint8Array(1024)
    huge.set(tokenAttr(root.number))
    assert.equal(raw(huge), 'ok', 'zeroes behind the union')
    huge[1023] = 1
    assert.equal(raw(huge), 'E2BIG', 'bytes behind the union')
  }))

test('BPF_TOKEN_CREATE needs CAP_BPF in the user namespace of the bpffs, and no substitute serves', () =>
  lab.lending(EVERYTHING, ({ root }) => {
    const made = (caps: Parameters<typeof capMask>[0]) =>
      outcome(tokenWithin(lab.target, root.number, capMask(caps)))
    assert.equal(made(['bpf']), 'ok')
    assert.equal(made(['sys_admin', 'net_admin', 'perfmon']), 'EPERM')
    assert.equal(made([]), 'EPERM')
  }))

test('BPF_TOKEN_CREATE is refused to the host and to another user namespace', () =>
  lab.lending(EVERYTHING, ({ root }) => {
    assert.equal(outcome(tokenWithin(lab.target, root.number)), 'ok')
    assert.throws(() => tokenCreate(root), { errnoName: 'EPERM' }, 'host root')
    assert.equal(outcome(tokenWithin(other.target, root.number)), 'EPERM')
  }))

test('BPF_TOKEN_CREATE says EOPNOTSUPP in the initial user namespace and ENOENT where nothing is delegated', async () => {
  using context = fsopen('bpf')
  fsconfigCreate(context)
  using mount = fsmount(context, 0)
  using root = open('.', O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, mount)
  assert.throws(
    () => tokenCreate(root),
    (error: SyscallError) => error.errnoName === 'EOPNOTSUPP' && error.hint !== undefined,
  )

  await delegate(policyWith({}), lab.target, vocabulary)
  {
    using plain = await openIn(lab.target, '/sys/fs/bpf')
    assert.equal(outcome(tokenWithin(lab.target, plain.number)), 'ENOENT')
  }
  await undelegate(lab.target, vocabulary)
})

test('a token lends for its own type only, to callers with the capability, and cannot be pinned', () =>
  lab.lending({ cmds: 1n, maps: 1n << 2n }, ({ token }) => {
    const array = (caps: Parameters<typeof capMask>[0]) =>
      lab.run({ cmd: 0, attr: mapAttr('array', token.number), refs: [] }, caps)
    assert.equal(array(['bpf']), 'ok')
    assert.equal(array(['sys_admin']), 'ok', 'CAP_SYS_ADMIN stands in once the token exists')
    assert.equal(array(['net_admin']), 'EPERM')
    assert.equal(lab.run({ cmd: 0, attr: mapAttr('hash', token.number), refs: [] }), 'EPERM')
    assert.equal(
      outcome(bpfWithin(other.target.process.pidfd, 0, mapAttr('array', token.number))),
      'EPERM',
      'another namespace',
    )

    const pin = new Uint8Array(24)
    new DataView(pin.buffer).setUint32(8, token.number, true)
    const name = new TextEncoder().encode('/sys/fs/bpf/token\0')
    assert.equal(lab.run({ cmd: 6, attr: pin, refs: [pin, 0, name] }), 'EINVAL')
  }))
