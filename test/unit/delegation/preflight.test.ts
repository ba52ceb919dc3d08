/** What keeps a target from using a loan, by what the kernel says of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Concern,
  parseTaskStatus,
  preflight,
  type TaskStatus,
} from '../../../src/delegation/preflight.ts'
import type { Rights } from '../../../src/policy/policy.ts'
import { vocabularyFrom } from '../../../src/policy/vocabulary.ts'
import { CAPABILITIES } from '../../../src/uapi/constants.ts'
import { ENUMS } from '../policy/sample-kernel.ts'

const vocabulary = vocabularyFrom(ENUMS)
const set = (...names: ('BPF' | 'NET_ADMIN' | 'PERFMON' | 'SYS_ADMIN')[]): bigint =>
  names.reduce((mask, name) => mask | (1n << BigInt(CAPABILITIES[`CAP_${name}`])), 0n)
const ALL = (1n << 41n) - 1n
const ROOT = 100_000
const USER = 101_000

/** Root of a container with everything; each test takes something away. */
const rootWithAll: TaskStatus = {
  uids: [ROOT, ROOT, ROOT],
  permitted: ALL,
  ambient: 0n,
  bounding: ALL,
  noNewPrivs: false,
  seccomp: 0,
}
const rights = (
  progs: string[] = ['xdp'],
  capabilities: Rights['capabilities'] = ['bpf', 'net_admin'],
): Rights => ({
  masks: {
    cmds: 0x21n,
    maps: 0n,
    progs: progs.reduce((mask, name) => mask | (1n << BigInt(vocabulary.progs.bitOfName.get(name)!)), 0n),
    attachs: 0n,
  },
  capabilities,
})
const look = (change: Partial<TaskStatus>, wanted = rights()): Concern[] =>
  preflight({ ...rootWithAll, ...change }, ROOT, wanted, vocabulary)
const brief = (concerns: Concern[]): string[] =>
  concerns.map(({ code, capability, certain }) => `${certain ? '' : '?'}${capability ?? code}`)

test('preflight() has nothing to say of root with its capabilities, or of one that gets them by exec', () => {
  assert.deepEqual(look({}), [])
  assert.deepEqual(look({ permitted: 0n }), [])
  assert.deepEqual(look({ noNewPrivs: true }), [])
  assert.deepEqual(look({ permitted: set('BPF', 'NET_ADMIN'), bounding: set('BPF', 'NET_ADMIN') }), [])
})

test('preflight() finds what the bounding set has not', () => {
  const bounding = ALL & ~set('BPF')
  const [concern] = look({ permitted: bounding, bounding })
  assert.deepEqual(brief([concern!]), ['bpf'])
  assert.match(concern!.what, /bounding set: a token cannot be made/)
  for (const word of [
    /--cap-add BPF/,
    /CAP_BPF in CapabilityBoundingSet=/,
    /lxc\.cap\.drop/,
    /securityContext/,
  ])
    assert.match(concern!.remedy, word)
  // CAP_SYS_ADMIN makes no token.
  assert.deepEqual(brief(look({ permitted: set('SYS_ADMIN'), bounding: set('SYS_ADMIN') })), ['bpf'])
})

test('preflight() finds what programs need that are lent, unless CAP_SYS_ADMIN stands in', () => {
  const bounding = set('BPF')
  assert.deepEqual(brief(look({ permitted: bounding, bounding })), ['net_admin'])
  assert.match(look({ permitted: bounding, bounding })[0]!.what, /programs of type xdp/)
  const both = rights(['xdp', 'kprobe'], ['bpf'])
  assert.deepEqual(brief(look({ permitted: bounding, bounding }, both)).sort(), ['net_admin', 'perfmon'])
  const admin = set('BPF', 'SYS_ADMIN')
  assert.deepEqual(look({ permitted: admin, bounding: admin }, both), [])
  assert.deepEqual(look({ permitted: bounding, bounding }, rights(['socket_filter'], ['bpf'])), [])
})

test('preflight() knows that who is not root loses by exec what is not ambient', () => {
  const user = { uids: [USER, USER, USER] }
  const held = set('BPF', 'NET_ADMIN')
  assert.deepEqual(brief(look({ ...user, permitted: held })), ['?bpf', '?net_admin'])
  assert.ok(look({ ...user, permitted: held }).every(({ code }) => code === 'kept-until-exec'))
  assert.deepEqual(look({ ...user, permitted: held, ambient: held }), [])
  assert.deepEqual(brief(look({ ...user, permitted: 0n })), ['?bpf', '?net_admin'])
  assert.deepEqual(brief(look({ ...user, permitted: 0n, noNewPrivs: true })), ['bpf', 'net_admin'])
  // It may become root again, by setuid(2).
  assert.deepEqual(look({ uids: [USER, USER, ROOT], permitted: 0n }), [])
})

test('preflight() knows that no_new_privs gives not even root what it has not', () => {
  const [concern] = look({ permitted: set('NET_ADMIN'), noNewPrivs: true })
  assert.deepEqual(brief([concern!]), ['bpf'])
  assert.match(concern!.remedy, /NoNewPrivileges=no/)
})

test('preflight() takes nobody for root where root is not mapped', () => {
  const concerns = preflight({ ...rootWithAll, permitted: 0n }, undefined, rights(), vocabulary)
  assert.deepEqual(brief(concerns), ['?bpf', '?net_admin'])
})

test('preflight() cannot know what a seccomp filter refuses, and knows what strict mode does', () => {
  assert.deepEqual(brief(look({ seccomp: 2 })), ['?seccomp'])
  assert.match(look({ seccomp: 2 })[0]!.remedy, /SystemCallFilter=/)
  assert.deepEqual(brief(look({ seccomp: 1 })), ['seccomp'])
})

test('parseTaskStatus() reads what the kernel prints, and takes for nothing what it does not', () => {
  const text =
    'Name:\tx:\\ny\nUid:\t1000\t0\t2\t1000\nSeccomp:\t2\nNoNewPrivs:\t1\nCapPrm:\t000001ffffffffff\nCapBnd:\t0000008000000000\n'
  assert.deepEqual(parseTaskStatus(text), {
    uids: [1000, 0, 2],
    permitted: ALL,
    ambient: 0n,
    bounding: set('BPF'),
    noNewPrivs: true,
    seccomp: 2,
  })
  assert.equal(parseTaskStatus('CapPrm:\tzz\n').permitted, 0n)
})
