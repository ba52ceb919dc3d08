import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isSettled, type Look } from '../../../src/lending/recipient/settled.ts'

const building: Look = { isApart: true, isMakers: true, sleeps: false, switches: '1 1' }

test('isSettled() takes what executes another program, or stays asleep, and nothing in between', () => {
  const apart: Look = { ...building, isApart: false, isMakers: false, sleeps: true }
  const asleep: Look = { ...building, sleeps: true }
  assert.equal(isSettled(undefined, { ...building, isMakers: false }), true)
  assert.equal(isSettled(asleep, asleep), true)
  assert.equal(isSettled(undefined, asleep), false)
  assert.equal(isSettled(building, building), false)
  assert.equal(isSettled(asleep, { ...asleep, switches: '2 1' }), false)
  assert.equal(isSettled(building, asleep), false)
  assert.equal(isSettled(apart, apart), false)
  assert.equal(isSettled({ ...asleep, isApart: false }, asleep), false)
})
