/** What is suggested of the guard's events, and what is said where they do not hold enough. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { REASONS } from '../../../src/guard/layout.ts'
import { type SeenEvent, suggestAdditions } from '../../../src/guard/suggest.ts'
import { DEFAULT_TERMS } from '../../../src/policy/policy.ts'

const seen = (reason: string, more: Partial<SeenEvent> = {}): SeenEvent => ({
  ...{ verdict: 'would-refuse', point: 'attach', task: 'loader', pid: 7, uid: 1000, count: 1 },
  reason,
  ...more,
})
const added = (...events: SeenEvent[]) =>
  suggestAdditions(events).additions.map(({ path, value }) => [path, value])

test('suggestAdditions() names the field that was in the way', () => {
  assert.deepEqual(added(seen('capability', { point: 'token_capable', type: 'net_admin' })), [
    ['spec.rights.capabilities', 'net_admin'],
  ])
  assert.deepEqual(added(seen('rights', { point: 'map_create', type: 'hash' })), [
    ['spec.rights.maps', 'hash'],
  ])
  assert.deepEqual(added(seen('rights', { point: 'command', cmd: 'prog_get_next_id' })), [
    ['spec.rights.cmds', 'prog_get_next_id'],
  ])
  assert.deepEqual(added(seen('outlives')), [['spec.revocable', false]])
  assert.deepEqual(added(seen('network')), [['spec.network', 'host']])
  assert.deepEqual(added(seen('cgroup')), [['spec.cgroups', 'any']])
  assert.deepEqual(added(seen('elsewhere', { point: 'move' })), [['spec.sharing.bindMount', true]])
  assert.deepEqual(added(seen('stranger', { point: 'receive' })), [['spec.sharing.passToken', true]])
  // No value that a policy has by default.
  assert.ok(![DEFAULT_TERMS.network, DEFAULT_TERMS.cgroups].includes('host' as never))
})

test('suggestAdditions() suggests nothing for what was allowed', () => {
  assert.deepEqual(suggestAdditions([seen('none', { verdict: 'allowed' })]), {
    additions: [],
    unanswered: [],
  })
})

test('alike events are one addition, with who and how often', () => {
  const { additions } = suggestAdditions([
    seen('network'),
    seen('network', { count: 4 }),
    seen('network', { verdict: 'refused' }),
    seen('network', { pid: 8 }),
  ])
  assert.equal(additions.length, 1)
  assert.deepEqual(
    additions[0]!.occasions.map(({ verdict, pid, count }) => [verdict, pid, count]),
    [
      ['would-refuse', 7, 5],
      ['refused', 7, 1],
      ['would-refuse', 8, 1],
    ],
  )
})

test('what events do not hold is said, and no addition is guessed', () => {
  for (const reason of Object.values(REASONS)) {
    if (reason === 'none') continue
    const { additions, unanswered } = suggestAdditions([seen(reason, { point: 'token_create' })])
    assert.equal(additions.length + unanswered.length, 1, reason)
    for (const { why } of unanswered) assert.notEqual(why, '')
  }
  for (const reason of ['maps', 'map-bytes', 'instructions', 'digest', 'function', 'expired', 'revoked'])
    assert.deepEqual(added(seen(reason)), [], reason)
  assert.deepEqual(added(seen('capability', { type: 'sys_ptrace' })), [])
  const [program] = suggestAdditions([seen('rights', { point: 'prog_load', type: 'xdp' })]).additions
  assert.match(program!.caution!, /attach type/)
})
