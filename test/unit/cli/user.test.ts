import assert from 'node:assert/strict'
import { test } from 'node:test'
import { resolveUser } from '../../../src/cli/user.ts'
import { UsageError } from '../../../src/errors.ts'
import { entryIn } from '../../../src/lending/accounts.ts'

const PASSWD = `root:x:0:0:root:/root:/bin/bash
alice:x:1000:1001:Alice:/home/alice:/bin/zsh
nobody:x:65534:65534:nobody:/nonexistent:
wraps:x:4294967296:4294967296::/:/bin/sh
group:x:1002:4294967296::/:/bin/sh
none:x:4294967295:100::/:/bin/sh
minus:x:-1:100::/:/bin/sh
hex:x:0x3e8:100::/:/bin/sh
short:x:1003
toor:x:0:100::/:/bin/sh
wheel:x:1004:0::/:/bin/sh
4294967296:x:1005:1005::/:/bin/sh
+1:x:1006:1006::/:/bin/sh
`
const find = (key: string): string | undefined => entryIn(PASSWD, key)
const resolve = (wanted?: string, env: NodeJS.ProcessEnv = {}) => resolveUser(wanted, env, find)
const refused = (wanted?: string, env?: NodeJS.ProcessEnv): void =>
  assert.throws(() => resolve(wanted, env), UsageError, `${wanted} ${JSON.stringify(env)}`)

const ALICE = { name: 'alice', uid: 1000, gid: 1001, home: '/home/alice', shell: '/bin/zsh' }

test('resolveUser() finds users by name, number, and pair of numbers', () => {
  assert.deepEqual(resolve('alice'), ALICE)
  assert.deepEqual(resolve('1000'), ALICE)
  assert.deepEqual(resolve('1000:7'), { ...ALICE, gid: 7 })
  assert.deepEqual(resolve('2000'), { name: '2000', uid: 2000, gid: 2000, home: '/', shell: '/bin/sh' })
  assert.equal(resolve('4294967294:4294967294').uid, 4_294_967_294)
})

test('resolveUser() refuses numbers that are no ids', () => {
  const numbers = [
    '4294967296',
    '4294967295',
    '4294967296000',
    '-1',
    '+1',
    '0x3e8',
    '1e3',
    '01000',
    '1000.0',
    '١٠٠٠',
  ]
  for (const text of numbers) {
    refused(text)
    refused(`${text}:1000`)
    refused(`1000:${text}`)
  }
  for (const text of [
    '',
    ' ',
    ' 1000',
    '1000 ',
    '1000:',
    ':1000',
    '1000:1000:1',
    'alice:1000',
    '--',
    '--help',
    'a\nb',
  ])
    refused(text)
})

test('resolveUser() refuses entries without valid ids, and host root by any name', () => {
  for (const name of ['wraps', 'group', 'none', 'minus', 'hex', 'short', 'root', 'toor', 'wheel'])
    refused(name)
  for (const ids of ['0', '0:0', '0:1000', '1000:0']) refused(ids)
})

test('resolveUser() takes who called sudo, or nobody, and refuses what is neither', () => {
  assert.deepEqual(resolve(undefined, { SUDO_UID: '1000', SUDO_GID: '1001' }), ALICE)
  assert.equal(resolve(undefined, {}).uid, 65534)
  assert.equal(resolve(undefined, { SUDO_UID: '0', SUDO_GID: '0' }).name, 'nobody')
  assert.equal(resolveUser(undefined, {}, () => undefined).uid, 65534)
  for (const bad of ['4294967296', '4294967295', '-1', '0x10', '', 'alice', '00', ' 0']) {
    refused(undefined, { SUDO_UID: bad, SUDO_GID: '1000' })
    refused(undefined, { SUDO_UID: '1000', SUDO_GID: bad })
  }
  refused(undefined, { SUDO_UID: '1000' })
  refused(undefined, { SUDO_GID: '1000' })
  refused(undefined, { SUDO_UID: '1000', SUDO_GID: '0' })
  assert.deepEqual(resolve('alice', { SUDO_UID: 'x' }), ALICE, 'who is named needs no sudo')
})
