import assert from 'node:assert/strict'
import { test } from 'node:test'
import { InputError } from '../../../src/errors.ts'
import { unixAddress } from '../../../src/sys/datagram.ts'

test('unixAddress() of a path ends with a zero, of an abstract name begins with one', () => {
  assert.equal(Buffer.from(unixAddress('/run/x')).toString('latin1'), '\x01\0/run/x\0')
  assert.equal(Buffer.from(unixAddress('@x')).toString('latin1'), '\x01\0\0x')
  assert.equal(unixAddress(`/${'x'.repeat(106)}`).length, 110)
})

test('unixAddress() refuses what is none, or too long', () => {
  for (const path of [
    '',
    '/',
    '@',
    'run/x',
    'vsock:2:1',
    '/a\0b',
    `/${'x'.repeat(107)}`,
    `@${'ä'.repeat(60)}`,
  ])
    assert.throws(() => unixAddress(path), InputError, path)
})
