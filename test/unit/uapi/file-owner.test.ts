/** Whose a file is alone: of every owner and mode, against what the permissions mean. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { notOwnersAlone, othersMayExchange } from '../../../src/uapi/file-owner.ts'

const FILE = 0o100_000
const DIRECTORY = 0o040_000

test('notOwnersAlone() lets pass what its owner alone may write to, of all modes', () => {
  for (let mode = 0; mode <= 0o7777; mode++) {
    const alone = !/[2367]/.test(mode.toString(8).padStart(4, '0').slice(2))
    assert.equal(notOwnersAlone({ uid: 5, mode: FILE | mode }, 5) === undefined, alone, mode.toString(8))
    assert.notEqual(notOwnersAlone({ uid: 6, mode: FILE | mode }, 5), undefined)
    // Root is an owner like any other: a file of root is not this user's.
    assert.notEqual(notOwnersAlone({ uid: 0, mode: FILE | mode }, 5), undefined)
  }
})

test('othersMayExchange() takes directories of root and of the owner, and sticky ones', () => {
  for (let mode = 0; mode <= 0o7777; mode++) {
    const may = notOwnersAlone({ uid: 5, mode }, 5) !== undefined && (mode & 0o1000) === 0
    for (const uid of [0, 5])
      assert.equal(othersMayExchange({ uid, mode: DIRECTORY | mode }, 5) !== undefined, may)
    assert.notEqual(othersMayExchange({ uid: 6, mode: DIRECTORY | mode }, 5), undefined)
  }
})

test('both say why in the same words', () => {
  const open = { uid: 5, mode: FILE | 0o666 }
  const foreign = { uid: 6, mode: FILE | 0o600 }
  for (const why of [notOwnersAlone, othersMayExchange]) {
    assert.equal(why(open, 5), 'others than its owner may write to it (mode 666)')
    assert.equal(why(foreign, 5), 'it belongs to user 6, not to user 5')
    assert.equal(why(foreign, 0), 'it belongs to user 6, not to root')
  }
  assert.equal(notOwnersAlone({ uid: 0, mode: 0o600 }, 5), 'it belongs to root, not to user 5')
})
