/** What one policy grants and another does not. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { meet } from '../../../src/policy/attenuate.ts'
import { comparePolicies } from '../../../src/policy/diff.ts'
import type { Policy, Terms } from '../../../src/policy/policy.ts'
import { terms } from './any-terms.ts'
import { policyOf, VOCABULARY } from './sample-kernel.ts'

const named = (of: Terms): Policy => ({ name: 'sample', approval: 'none', ...of })
const compare = (a: Policy, b: Policy) => comparePolicies(a, b, VOCABULARY)

test('comparePolicies() finds nothing between a policy and itself, and all of what was taken away', () => {
  fc.assert(
    fc.property(terms, terms, (a, b) => {
      assert.deepEqual(compare(named(a), named(a)).differences, [])
      const within = compare(named(a), named(meet(a, b))).differences
      assert.ok(within.every(({ grants }) => grants !== 'more'))
      const back = compare(named(meet(a, b)), named(a)).differences
      assert.ok(back.every(({ grants }) => grants !== 'less'))
    }),
  )
})

test('comparePolicies() has a policy grant less where root must approve', () => {
  const a = policyOf('  rights: {}')
  const [one, ...more] = compare(a, { ...a, approval: 'required' }).differences
  assert.deepEqual(
    [one?.path, one?.before, one?.after, one?.grants],
    ['spec.approval', 'none', 'required', 'less'],
  )
  assert.deepEqual(more, [])
})

test('comparePolicies() from the other side is the same, with more and less changed', () => {
  const mirror = { more: 'less', less: 'more', other: 'other' } as const
  const key = (one: object): string => JSON.stringify(one)
  fc.assert(
    fc.property(terms, terms, (a, b) => {
      const there = compare(named(a), named(b)).differences
      const back = compare(named(b), named(a)).differences.map(({ path, before, after, grants }) => ({
        path,
        before: after,
        after: before,
        grants: mirror[grants],
      }))
      assert.deepEqual(there.map(key).sort(), back.map(key).sort())
    }),
  )
})

test('comparePolicies() says of each field which way it goes', () => {
  const from = policyOf(`
  subjects: [{ user: alice }, { user: bob }]
  rights: { cmds: [map_create, prog_load], maps: [array], progs: [any], attachs: [xdp] }
  limits: { tokens: 16, mapBytes: 64MiB }
`)
  const to = policyOf(`
  subjects: [{ user: bob }]
  rights: { cmds: [map_create, prog_load], maps: [array, hash], progs: [xdp], attachs: [xdp], capabilities: [bpf, perfmon] }
  limits: { tokens: 32, programs: 4096, lifetime: 8h }
  network: host
`)
  const { differences, risk } = compare(from, to)
  assert.deepEqual(
    differences.map(({ path, before, after, grants }) => [path.replace('spec.', ''), before, after, grants]),
    [
      ['subjects', '{"user":"alice"}', undefined, 'less'],
      ['rights.maps', undefined, 'hash', 'more'],
      ['rights.progs', 'any', 'xdp', 'less'],
      ['rights.capabilities', undefined, 'perfmon', 'more'],
      ['limits.tokens', '16', '32', 'more'],
      ['limits.programs', '4096 (default)', '4096', 'other'],
      ['limits.mapBytes', '64MiB', undefined, 'more'],
      ['limits.lifetime', undefined, '8h', 'less'],
      ['network', 'own', 'host', 'more'],
    ],
  )
  assert.deepEqual(risk, { before: 'critical', after: 'high' })
  const anybody = compare(to, { ...to, subjects: undefined } as unknown as Policy).differences
  assert.deepEqual(
    anybody.map(({ grants }) => grants),
    ['more'],
  )
})
