import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Journal } from '../../../src/lending/journal.ts'
import { confirmed } from '../../../src/lending/loan.ts'

/** Its disk takes its time; `meanwhile` is what happens then. */
const slow = (meanwhile: () => void): Journal => ({
  will: async () => {},
  ready: async () => {
    await Promise.resolve()
    meanwhile()
  },
  did: async () => {},
  failed: async () => {},
})

test('whoever is another one by the time that the disk has it is lent nothing', async () => {
  let asker = 'same'
  const confirm = (): void => {
    if (asker !== 'same') throw new Error('another one')
  }
  await confirmed(
    confirm,
    slow(() => {}),
  )!()
  const other = confirmed(
    confirm,
    slow(() => {
      asker = 'other'
    }),
  )!
  await assert.rejects(async () => other(), /another one/)
})
