import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hasCapability, loginUidFrom } from '../../../src/daemon/peer.ts'

test('loginUidFrom() gives a uid, and nobody for (uid_t)-1 and all that is none', () => {
  assert.equal(loginUidFrom('1000'), 1000)
  assert.equal(loginUidFrom('0\n'), 0)
  for (const text of [undefined, '', '4294967295', '4294967296', '-1', '1 2', '1e3', 'x'])
    assert.equal(loginUidFrom(text), undefined, text)
})

test('hasCapability() reads one bit of sixteen digits, and nothing of anything else', () => {
  assert.ok(hasCapability('0000000000200000', 21))
  assert.ok(!hasCapability('0000000000200000', 20))
  assert.ok(!hasCapability('ffffffffffdfffff', 21))
  for (const line of [undefined, '', '200000', '000000000020000g', '00000000002000000', '0x00000000200000'])
    assert.ok(!hasCapability(line, 21), line)
  fc.assert(fc.property(fc.string(), line => /^[0-9a-f]{16}$/.test(line) || !hasCapability(line, 21)))
})
