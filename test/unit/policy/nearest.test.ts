import assert from 'node:assert/strict'
import { test } from 'node:test'
import { editDistance, nearest } from '../../../src/policy/nearest.ts'

test('editDistance() counts a swap of neighbours as one edit', () => {
  assert.equal(editDistance('prog_laod', 'prog_load'), 1)
  assert.equal(editDistance('', 'abc'), 3)
  assert.equal(editDistance('same', 'same'), 0)
})

test('nearest() finds a misspelt word and nothing when all are far', () => {
  assert.equal(nearest('ringbuff', ['array', 'ringbuf']), 'ringbuf')
  assert.equal(nearest('zzz', ['array', 'ringbuf']), undefined)
})

test('nearest() does not compare words that are too long to be typing errors', () => {
  assert.equal(nearest('a'.repeat(65), ['a'.repeat(64)]), undefined)
})
