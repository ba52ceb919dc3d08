import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Owned } from '../../../src/ebpf/owned.ts'

test('all that is owned is disposed of, the last first, also where one throws', () => {
  const gone: number[] = []
  const owned = new Owned()
  for (const n of [1, 2, 3, 4])
    owned.add({
      [Symbol.dispose]: () => {
        gone.push(n)
        if (n % 2 === 0) throw new RangeError(`${n}`)
      },
    })
  assert.throws(() => owned[Symbol.dispose](), { name: 'RangeError', message: '4' })
  assert.deepEqual(gone, [4, 3, 2, 1])
  owned[Symbol.dispose]()
  assert.equal(gone.length, 4)
})
