import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, newSecret, Sessions } from '../../../src/page/sessions.ts'

const doors = (...secrets: string[]) =>
  secrets.map((secret, i) => ({
    role: i === 0 ? ('viewer' as const) : ('operator' as const),
    digest: digestOf(secret),
  }))

test('newSecret() has 256 bits, and is another one each time', () => {
  assert.equal(Buffer.from(newSecret(), 'base64url').length, 32)
  assert.equal(new Set(Array.from({ length: 100 }, newSecret)).size, 100)
})

test('a secret is exchanged once, for a session of its role', () => {
  const [look, act] = [newSecret(), newSecret()]
  const sessions = new Sessions(doors(look, act))
  const viewer = sessions.enter(look)
  const operator = sessions.enter(act)
  assert.ok(typeof viewer === 'object' && typeof operator === 'object')
  assert.equal(sessions.enter(look), 'wrong')
  assert.equal(sessions.enter(act), 'wrong')
  assert.equal(sessions.byCookie(viewer.cookie)?.role, 'viewer')
  assert.equal(sessions.byCookie(operator.cookie)?.role, 'operator')
  assert.equal(new Set([look, act, viewer.cookie, viewer.key, operator.cookie, operator.key]).size, 6)
})

test('cookie and key are to be of one session; neither is the other', () => {
  const [look, act] = [newSecret(), newSecret()]
  const sessions = new Sessions(doors(look, act))
  const viewer = sessions.enter(look)
  const operator = sessions.enter(act)
  assert.ok(typeof viewer === 'object' && typeof operator === 'object')
  assert.equal(sessions.byCookieAndKey(viewer.cookie, viewer.key)?.role, 'viewer')
  assert.equal(sessions.byCookieAndKey(operator.cookie, operator.key)?.role, 'operator')
  for (const [cookie, key] of [
    [operator.cookie, viewer.key],
    [viewer.cookie, operator.key],
    [viewer.key, viewer.cookie],
    [viewer.cookie, ''],
    ['', viewer.key],
    [look, look],
    [viewer.cookie, `${viewer.key}=`],
  ] as const)
    assert.equal(sessions.byCookieAndKey(cookie, key), undefined)
})

test('wrong secrets are looked at twenty times, then two in a second; sessions go on', () => {
  let now = 0
  const [look, act] = [newSecret(), newSecret()]
  const sessions = new Sessions(doors(look, act), () => now)
  const viewer = sessions.enter(look)
  for (let i = 0; i < 20; i++) assert.equal(sessions.enter(newSecret()), 'wrong')
  assert.equal(sessions.enter(newSecret()), 'later')
  assert.equal(sessions.enter(act), 'later')
  assert.ok(typeof viewer === 'object')
  assert.ok(sessions.byCookieAndKey(viewer.cookie, viewer.key))
  now = 500
  assert.equal(sessions.enter(newSecret()), 'wrong')
  assert.equal(sessions.enter(newSecret()), 'later')
  now = 1000
  assert.ok(typeof sessions.enter(act) === 'object')
})
