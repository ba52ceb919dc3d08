/** What is said of the guard's events: for each of its reasons, with what is known and without. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventChangeText } from '../../../src/cli/event-change-text.ts'
import { REASONS } from '../../../src/guard/layout.ts'
import { explainEvent, type JudgedEvent, type KnownDelegation } from '../../../src/lending/explain-event.ts'

const event = (reason: string, more: Partial<JudgedEvent> = {}): JudgedEvent => ({
  ...{ verdict: 'refused', point: 'attach', task: 'loader', pid: 7, uid: 1000, count: 1, name: '' },
  reason,
  ...more,
})
const LIVE: KnownDelegation = {
  state: 'live',
  capabilities: ['bpf'],
  limits: { maps: 2, instructions: 100, mapBytes: 4096n },
  live: { tokens: 1, programs: 0, maps: 2 },
  mapBytes: 2048n,
}

test('explainEvent() of a capability: what was lent, and the word that is missing', () => {
  const of = event('capability', { point: 'token_capable', type: 'net_admin' })
  const said = explainEvent(of, LIVE)
  assert.deepEqual(
    [said.call, said.errno, said.cause],
    ['token_capable net_admin', 'EPERM', 'guard-capability'],
  )
  assert.equal(said.found, 'lent: bpf')
  assert.deepEqual(said.edit, { path: 'spec.rights.capabilities', value: 'net_admin' })
  assert.equal(eventChangeText(of, said), 'spec.rights.capabilities: add net_admin')
  assert.equal(explainEvent(of, undefined).found, 'net_admin was not lent')
})

test('explainEvent() of a limit: how much is in use, and one more', () => {
  const said = explainEvent(
    event('maps', { point: 'map_create', cmd: 'map_create', type: 'hash', name: 'a' }),
    LIVE,
  )
  assert.deepEqual([said.call, said.errno], ['map_create hash "a"', 'EDQUOT'])
  assert.equal(said.found, 'spec.limits.maps: 2, of which 2 are in use now')
  assert.deepEqual(said.edit, { path: 'spec.limits.maps', value: 3 })
  const byDefault = explainEvent(event('tokens', { point: 'token_create' }), LIVE)
  assert.equal(byDefault.found, 'spec.limits.tokens: 1024, by default, of which 1 are in use now')
  assert.deepEqual(byDefault.edit, { path: 'spec.limits.tokens', value: 1025 })
  const bytes = explainEvent(event('map-bytes', { point: 'map_create' }), LIVE)
  assert.equal(bytes.found, 'spec.limits.mapBytes: 4KiB, of which 2KiB are in use now')
  assert.equal(bytes.edit, undefined, 'how much was asked for is not known')
  assert.equal(explainEvent(event('maps'), undefined).edit, undefined, 'nor is the limit')
})

test('explainEvent() of what was let through, allowed, or has ended', () => {
  const let_ = explainEvent(event('network', { verdict: 'would-refuse' }), LIVE)
  assert.deepEqual(
    [let_.verdict, let_.errno, let_.edit],
    ['would-refuse', undefined, { path: 'spec.network', value: 'host' }],
  )
  const allowed = explainEvent(event('none', { verdict: 'allowed' }), LIVE)
  assert.deepEqual([allowed.cause, allowed.edit], ['none', undefined])
  assert.match(
    explainEvent(event('revoked'), { state: 'ended' }).found,
    /^it was revoked; the delegation is ended now$/,
  )
})

test('every reason of the guard has its words: what was needed, found, and what helps', () => {
  // What no change helps against.
  const hopeless = [
    'none',
    'no-keeper',
    'mismatch',
    'not-own',
    'unreadable',
    'beyond-abilities',
    'rights',
    'capability',
  ]
  for (const reason of Object.values(REASONS)) {
    const of = event(reason)
    for (const known of [undefined, LIVE]) {
      const { needed, found, ...said } = explainEvent(of, known)
      assert.notEqual(needed, 'what the guard asks for', reason)
      assert.notEqual(found, '')
      const change = eventChangeText(of, said)
      if (!hopeless.includes(reason)) assert.doesNotMatch(change, /^(none|no policy allows it)$/, reason)
    }
  }
})
