/** What follows from what is found, and from what is not. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Found, reconcile, type Step } from '../../../src/daemon/reconcile.ts'
import type { DelegatedInstance } from '../../../src/delegation/instances.ts'
import type { GuardDelegation } from '../../../src/guard/guard.ts'
import { DEFAULT_TERMS, policyToJSON } from '../../../src/policy/policy.ts'
import type { LoanRecord } from '../../../src/registry/loan-record.ts'

const BOOT = 'this-boot'
const NAMESPACE = 'user:[4026532001]'
const MOUNTS = 'mnt:[4026532002]'
const MASKS = { cmds: 1n, maps: 2n, progs: 0n, attachs: 0n }
const OPTIONS = ['delegate_cmds=map_create', 'delegate_maps=hash']
const terms = { ...DEFAULT_TERMS, rights: { masks: MASKS, capabilities: ['bpf'] } } as const
const policy = policyToJSON({ name: 'agents', approval: 'none', ...terms })
const NOW = '2026-01-02T03:04:05Z'

const making: LoanRecord = {
  id: 7,
  kind: 'delegate',
  state: 'making',
  boot: BOOT,
  policy,
  policyDigest: 'd'.repeat(64),
  asker: { pid: 1, uid: 1000, gid: 1000, userNamespace: 'user:[4026531837]' },
  askedAt: NOW,
  place: { path: '/sys/fs/bpf' },
  because: 'subject',
  recipient: { pid: 100, userNamespace: NAMESPACE, mountNamespace: MOUNTS, ownerUid: 1000 },
}
const made = {
  at: NOW,
  mountId: 40,
  device: '0:50',
  path: '/sys/fs/bpf',
  masks: { cmds: '0x1', maps: '0x2', progs: '0x0', attachs: '0x0' },
  options: OPTIONS,
}
const live: LoanRecord = { ...making, state: 'live', made }

const mount: DelegatedInstance = {
  mountId: 40,
  device: '0:50',
  path: '/sys/fs/bpf',
  masks: MASKS,
  options: OPTIONS,
  mountNamespace: MOUNTS,
  userNamespace: NAMESPACE,
  ownerUid: 1000,
  pids: [100],
  command: 'agent',
  covered: false,
}
const delegation = {
  id: 300n,
  kind: 'bpffs',
  policy: 'agents',
  terms,
  revoked: false,
  userNamespace: 4026532001,
} as unknown as GuardDelegation

function steps(open: LoanRecord[], found: Partial<Found> = {}): Step[] {
  const inhabited = new Set([NAMESPACE])
  const all = {
    ...{ boot: BOOT, first: true, mounts: [], delegations: undefined, inhabited },
    reused: new Set<number>(),
  }
  return reconcile(open, { ...all, ...found })
}

/** The only step, in short. */
function step(loan: LoanRecord, found: Partial<Found> = {}): string {
  const [one, ...more] = steps([loan], found)
  assert.deepEqual(more, [])
  return one === undefined ? 'none' : `${one.do} ${'why' in one ? one.why : ''}`.trim()
}

describe('reconcile()', () => {
  test('undoes what was being made, whatever of it is there, and only that', () => {
    assert.equal(step(making), 'end failed')
    assert.equal(step(making, { mounts: [mount] }), 'takeBack failed')
    const [one] = steps([making], { delegations: [delegation] })
    assert.deepEqual([one!.do, 'delegation' in one! && one.delegation], ['takeBack', 300])
    // Of another place, namespace or policy it is somebody else's.
    for (const other of [{ path: '/mnt' }, { userNamespace: 'user:[9]' }, { mountNamespace: 'mnt:[9]' }]) {
      const all = steps([making], { mounts: [{ ...mount, ...other }] })
      assert.deepEqual(
        all.map(one => one.do),
        ['end', 'adopt'],
        JSON.stringify(other),
      )
    }
    const foreign = { ...delegation, policy: 'other' }
    assert.deepEqual(
      steps([making], { delegations: [foreign] }).map(one => one.do),
      ['end', 'adopt'],
    )
  })

  test('keeps what was made, and says how it is otherwise than it was', () => {
    const seen = (mounts: DelegatedInstance[], loan = live) => {
      const [one] = steps([loan], { mounts })
      assert.equal(one?.do, 'see')
      return one.do === 'see' ? one.seen : assert.fail()
    }
    assert.deepEqual(seen([mount]), { mounted: true, processes: 1, drift: [] })
    assert.match(seen([{ ...mount, path: '/mnt' }]).drift[0]!, /mounted at \/mnt/)
    assert.match(seen([{ ...mount, covered: true }]).drift[0]!, /lies above it/)
    assert.match(
      seen([mount, { ...mount, mountId: 41, mountNamespace: 'mnt:[5]' }]).drift[0]!,
      /1 more mounts/,
    )
    assert.match(seen([{ ...mount, mountId: 41 }]).drift[0]!, /its own mount is gone/)
  })

  test('does not take a mount for a loan whose number of a superblock is used again', () => {
    for (const other of [{ userNamespace: 'user:[9]' }, { options: ['delegate_cmds=any'] }]) {
      const all = steps([live], { mounts: [{ ...mount, ...other }], inhabited: new Set() })
      assert.deepEqual(
        all.map(one => one.do),
        ['end', 'adopt'],
        JSON.stringify(other),
      )
    }
  })

  test('takes a mount for the loan that was made last, of two to one namespace with one number of a superblock', () => {
    const later = { ...live, id: 8, made: { ...made, at: '2026-01-02T03:04:06Z' } }
    for (const open of [
      [live, later],
      [later, live],
    ]) {
      const all = steps(open, { mounts: [mount], first: false })
      const seen = all.map(one => one.do === 'see' && [one.loan, one.seen.mounted])
      assert.deepEqual(seen.sort(), [
        [7, false],
        [8, true],
      ])
    }
    // The twin: without the other one it is its own.
    assert.equal(step(live, { mounts: [mount], first: false }), 'see')
  })

  test('ends a loan whose user namespace is gone, though another one has its number and what looks like it', () => {
    const reused = new Set([live.id])
    assert.equal(step(live, { first: false, reused }), 'end processes-gone')
    assert.deepEqual(
      steps([live], { mounts: [mount], reused }).map(one => one.do),
      ['end', 'adopt'],
    )
    // The twin: it is still the same one.
    assert.equal(step(live, { mounts: [mount] }), 'see')
  })

  test('ends a loan whose namespaces are gone, or that another boot had; at the start, one that was lost', () => {
    assert.equal(step(live, { inhabited: new Set() }), 'end processes-gone')
    assert.equal(step({ ...live, boot: 'another' }, { mounts: [] }), 'end reboot')
    assert.equal(step(live), 'end lost')
    // Later its tokens may be in use: it stays, and says so.
    assert.equal(step(live, { first: false }), 'see')
    const { made: _, ...context } = { ...live, place: { contextFd: 5 } }
    assert.equal(step({ ...context, made: { at: NOW } }), 'see')
  })

  test('asks the guard where it can say', () => {
    const guarded: LoanRecord = { ...live, made: { ...made, delegation: 300 } }
    assert.equal(step(guarded, { delegations: [delegation], inhabited: new Set() }), 'see')
    assert.equal(step(guarded, { delegations: [] }), 'end undelegated')
    // Of another namespace it is another one's.
    const strange = { ...delegation, userNamespace: 9 }
    assert.equal(steps([guarded], { delegations: [strange] })[0]!.do, 'end')
  })

  test('goes on with what was being taken back', () => {
    const ending: LoanRecord = { ...live, state: 'ending', ended: { at: NOW, why: 'revoked', by: 0 } }
    assert.equal(step(ending, { mounts: [mount] }), 'takeBack revoked')
    assert.equal(step(ending, { first: false }), 'end revoked')
  })

  test('adopts what nobody of ours has lent, once, with what the guard has of it where that is clear', () => {
    const copy = { ...mount, mountId: 41, mountNamespace: 'mnt:[5]' }
    const all = steps([], { mounts: [mount, copy], delegations: [delegation] })
    assert.deepEqual(
      all.map(one => one.do === 'adopt' && [one.mounts.length, one.delegation?.id]),
      [[2, 300n]],
    )
    const two = steps([], { mounts: [mount, { ...copy, device: '0:51' }], delegations: [delegation] })
    assert.deepEqual(
      two.map(one => one.do === 'adopt' && [one.mounts.length, one.delegation?.id]),
      [
        [1, undefined],
        [1, undefined],
        [0, 300n],
      ],
    )
    assert.deepEqual(steps([], { delegations: [{ ...delegation, revoked: true }] }), [])
  })
})
